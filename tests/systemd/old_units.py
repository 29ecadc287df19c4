"""The units of mmd 0.2, as its spec.py made them: after an upgrade they are still there."""

from __future__ import annotations

from pathlib import Path

from mmd.plan.launch import Launch
from mmd.units.directives import Command, Condition, Environment, Mode, Number, Seconds, Statuses, Switch, Text, Words
from mmd.units.names import engine_unit, token_unit
from mmd.units.spec import Hooks, UnitSpec

_MARK = "MMD_LAUNCH=0123456789abcdef"


def old_units(launch: Launch, hooks: Hooks) -> tuple[UnitSpec, UnitSpec]:
    """Return the token, which has no gate and no share, and the engine."""
    engine, token = engine_unit(launch.model_id), token_unit(launch.model_id)
    held = f"{Path(launch.socket).parent}~gpu"
    environment = (pair for pair in launch.environment if pair[0] != "CUDA_VISIBLE_DEVICES")
    work: tuple[Command, ...] = (
        Command("ExecStart", ("/bin/true",)),
        Command("ExecStopPost", (*hooks.wait_released, engine, launch.socket)),
    )
    if launch.sleep is not None:
        wake = (*hooks.wake, engine, launch.socket, launch.sleep.wake_check.value, str(launch.ready_seconds), "gpu")
        memory = (str(launch.sleep.weights_bytes), str(launch.sleep.reserve_bytes))
        release = (*hooks.release, engine, launch.socket, "30", "1", *memory, "gpu")
        work = Command("ExecStart", wake), Command("ExecStopPost", release)
    return (
        UnitSpec(
            token,
            (
                Text("Description", f"{launch.model_id} may use the GPU"),
                Words("Requires", (engine,)),
                Words("Before", (engine,)),
                Text("CollectMode", "inactive-or-failed"),
                Seconds("StartLimitIntervalSec", 0),
                Text("Type", "oneshot"),
                Switch("RemainAfterExit", True),
                Words("RuntimeDirectory", (f"mmd/{launch.model_id}~gpu",)),
                *work,
                Seconds("TimeoutStopSec", 60),
                Environment("Environment", (_MARK,)),
                Text("Slice", "mmd.slice"),
            ),
        ),
        UnitSpec(
            engine,
            (
                Text("Description", f"{launch.model_id} · {launch.engine} · {launch.type}"),
                Condition("ConditionPathExists", held),
                *(() if launch.sleep else (Words("PartOf", (token,)),)),
                Seconds("StartLimitIntervalSec", 300),
                Number("StartLimitBurst", 3),
                Text("CollectMode", "inactive"),
                Text("Type", "exec"),
                *((Command("ExecCondition", (hooks.test, "-d", held)),) if launch.sleep else ()),
                Command("ExecStart", launch.argv),
                Command("ExecStartPost", (*hooks.ready, launch.socket, str(launch.ready_seconds))),
                Words("RuntimeDirectory", (f"mmd/{launch.model_id}",)),
                Mode("RuntimeDirectoryMode", 0o700),
                Environment("Environment", (*(f"{name}={value}" for name, value in environment), _MARK)),
                Seconds("TimeoutStopSec", 5),
                Text("Restart", "on-abnormal"),
                Seconds("RestartSec", 2),
                Statuses("SuccessExitStatus", ("SIGTERM",)),
                Text("KillMode", "mixed"),
                Text("Slice", "mmd.slice"),
            ),
        ),
    )
