"""Random operations by several planners and by hand, on two GPUs: what must hold whatever happens.

Three planners activate, sleep, stop and lend at random. Meanwhile units are started, stopped and restarted by hand, and
engines, hooks, planners and holders of leases are killed. Every allocation of the engines is checked at once.

    python -m tests.user_manager python -m tests.systemd.stress --operations 2000 --seed 12
"""
