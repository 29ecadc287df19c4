"""A launch as two transient units, an engine and a token: D-Bus properties for systemd, and text for people.

The engine is a service. The token is a oneshot service that is active while the model may use the GPU. `Conflicts=`
between tokens is the lock, `Requires=` starts a token's engine with it, and one StartTransientUnit call on the token
with the engine beside it is a whole swap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmd.plan.launch import Launch, Sleep
from mmd.units.directives import (
    Command,
    Condition,
    Directive,
    Environment,
    Mode,
    Number,
    Seconds,
    Statuses,
    Switch,
    Text,
    Words,
)
from mmd.units.names import SLICE, engine_description, engine_unit, token_unit

# The environment variable of a unit that holds the fingerprint of its launch.
FINGERPRINT = "MMD_LAUNCH"

# systemd keeps a folder for a token while it is active, named after its model with this suffix, which no id contains.
_HELD = "~gpu"

# The release hook's last argument if the model uses no GPU. The token of an engine that cannot sleep has no hook then.
_CPU = "cpu"

Directives = tuple[Directive, ...]

# vLLM exits with 0 if its engine core dies, 1 if it cannot start, and 2 if it does not know an argument.
_AFTER_A_QUIET_END: Directives = (Text("Restart", "always"), Statuses("RestartPreventExitStatus", (1, 2)))
_AFTER_A_CRASH: Directives = (Text("Restart", "on-abnormal"),)

_UNIT_SECTION = (
    "Description",
    "Requires",
    "Wants",
    "BindsTo",
    "PartOf",
    "Conflicts",
    "Before",
    "After",
    "OnSuccess",
    "OnFailure",
    "ConditionPathExists",
    "RefuseManualStart",
    "StopWhenUnneeded",
    "CollectMode",
    "StartLimitIntervalSec",
    "StartLimitBurst",
)


@dataclass(frozen=True, slots=True)
class Hooks:
    """The command lines of the programs that units run beside the engine, and timeouts."""

    ready: tuple[str, ...]
    wake: tuple[str, ...]
    release: tuple[str, ...]
    wait_released: tuple[str, ...]
    sleep_seconds: int = 30  # how long an engine may take to fall asleep before it is killed
    restart_seconds: float = 2  # from the crash of an engine to its restart
    nothing: str = "/bin/true"
    test: str = "/usr/bin/test"


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """One transient unit."""

    name: str
    directives: Directives

    def properties(self) -> list[tuple[str, str, Any]]:
        """Return `(property, D-Bus signature, value)` as StartTransientUnit takes them."""
        return [directive.bus_property for directive in self.directives]

    def text(self) -> str:
        """Return the unit as a file: `mmd show --units` prints it, and tests have systemd-analyze verify it."""
        unit = [directive.line for directive in self.directives if directive.name in _UNIT_SECTION]
        service = [directive.line for directive in self.directives if directive.name not in _UNIT_SECTION]
        return "\n".join(["[Unit]", *unit, "", "[Service]", *service, ""])


def engine_spec(launch: Launch, hooks: Hooks) -> UnitSpec:
    """Return the engine's service: `activating` while it loads, `active` when /health answers."""
    return UnitSpec(engine_unit(launch.model_id), _engine_directives(launch, hooks, fingerprint(launch, hooks)))


def token_spec(launch: Launch, hooks: Hooks, others: Iterable[str]) -> UnitSpec:
    """Return the token; `others` are the models whose loaded tokens must not share the GPU with it.

    It is enough that the later of two tokens names the earlier: systemd applies Conflicts= both ways, and an ordering
    between a stop and a start always puts the stop first.
    """
    rivals = tuple(token_unit(other) for other in sorted(others) if other != launch.model_id)
    conflicts = (Words("Conflicts", rivals), Words("After", rivals)) if rivals else ()
    directives = _token_directives(launch, hooks, fingerprint(launch, hooks))
    return UnitSpec(token_unit(launch.model_id), (*conflicts, *directives))


def fingerprint(launch: Launch, hooks: Hooks) -> str:
    """Return a hash of both units, without the rivals and the flags that were measured at the start.

    Both units have it, so a unit with the same fingerprint is kept.
    """
    launch = replace(launch, argv=launch.stable_argv)
    made = tuple(
        tuple((directive.name, directive.value) for directive in directives)
        for directives in (_engine_directives(launch, hooks, ""), _token_directives(launch, hooks, ""))
    )
    return hashlib.sha256(repr(made).encode()).hexdigest()[:16]


def missing_programs(commands: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the files of these hook commands, the Python and the script, that are no longer on disk."""
    files = (word for command in commands for word in (command[0], *_scripts(command)))
    return tuple(file for file in files if not Path(file).exists())


def is_on_gpu(release: Iterable[tuple[str, ...]]) -> bool:
    """True if the model of a token uses a GPU, by the token's ExecStopPost=."""
    return any(command[-1] != _CPU for command in release)


def _scripts(command: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in command[:4] if word.endswith(".py"))


def _engine_directives(launch: Launch, hooks: Hooks, mark: str) -> Directives:
    environment = (*launch.environment, (FINGERPRINT, mark))
    return (
        Text("Description", engine_description(launch.model_id, launch.engine, launch.type)),
        # `systemctl start` of an engine without its token does nothing.
        Condition("ConditionPathExists", _held(launch)),
        *_stopped_with_token(launch),
        Seconds("StartLimitIntervalSec", 300),
        Number("StartLimitBurst", 3),
        # A failed engine stays loaded until the next activation, so that status and systemctl can show it.
        Text("CollectMode", "inactive"),
        Text("Type", "exec"),
        *_no_restart_asleep(launch, hooks),
        Command("ExecStart", launch.argv),
        Command("ExecStartPost", (*hooks.ready, launch.socket, str(launch.ready_seconds), *_wake_check(launch))),
        # Engines refuse to start on a stale socket. systemd removes this folder whenever the engine ends, for any
        # reason, and without a process such as `ExecStartPre=rm`.
        Words("RuntimeDirectory", (f"mmd/{launch.model_id}",)),
        Mode("RuntimeDirectoryMode", 0o700),
        Environment("Environment", tuple(f"{name}={value}" for name, value in environment)),
        # The ready hook times out first: it can log what it waited for.
        Seconds("TimeoutStartSec", launch.ready_seconds + 15),
        Seconds("TimeoutStopSec", launch.stop_seconds),
        # An engine that exits with a status would fail again for the same reason; one that was killed or crashed is
        # restarted.
        *(_AFTER_A_QUIET_END if launch.exits_zero_on_crash else _AFTER_A_CRASH),
        Seconds("RestartSec", hooks.restart_seconds),
        # A swap away from a model that loads stops its ready hook, too: that must not count as a failure.
        Statuses("SuccessExitStatus", ("SIGTERM",)),
        Text("OOMPolicy", "stop"),
        # SIGTERM goes to the main process; SIGKILL later to all, so that no worker keeps the GPU.
        Text("KillMode", "mixed"),
        Text("Slice", SLICE),
        Text("SyslogIdentifier", launch.model_id),
        Mode("UMask", 0o077),
        Number("LimitNOFILE", 65536),
    )


def _held(launch: Launch) -> str:
    """Return the folder that exists while the token is active."""
    return str(Path(launch.socket).parent) + _HELD


def _no_restart_asleep(launch: Launch, hooks: Hooks) -> Directives:
    """Keep systemd from restarting an engine that died asleep: without its token it must not load onto the GPU.

    systemd 254 and newer check the unit's conditions at the first start only, not at a restart.
    """
    return (Command("ExecCondition", (hooks.test, "-d", _held(launch))),) if launch.sleep else ()


def _stopped_with_token(launch: Launch) -> Directives:
    """Stop an engine that cannot sleep with its token, the engine first.

    PropagatesStopTo= in the token would be better, since PartOf= keeps a dead token loaded with a failed engine. But in
    systemd 257 it has no effect if a rival's Conflicts= stops the token, as in every swap.
    """
    return () if launch.sleep else (Words("PartOf", (token_unit(launch.model_id),)),)


def _token_directives(launch: Launch, hooks: Hooks, mark: str) -> Directives:
    engine = engine_unit(launch.model_id)
    work: Directives
    if launch.sleep is not None:
        work = _sleep_hooks(launch, launch.sleep, hooks)
    else:
        work = (Command("ExecStart", (hooks.nothing,)),)
        if launch.uses_gpu:
            work += (
                Command("ExecStopPost", (*hooks.wait_released, engine, launch.socket)),
                Seconds("TimeoutStopSec", 60),
            )
    return (
        Text("Description", f"{launch.model_id} may use the GPU"),
        # With BindsTo= systemd would stop the token when the engine crashes, and restart the engine without it.
        Words("Requires", (engine,)),
        Words("Before", (engine,)),
        Text("CollectMode", "inactive-or-failed"),
        # If systemd refused to start the token, the engine would start without it.
        Seconds("StartLimitIntervalSec", 0),
        Text("Type", "oneshot"),
        Switch("RemainAfterExit", True),
        Words("RuntimeDirectory", (f"mmd/{launch.model_id}{_HELD}",)),
        *work,
        Environment("Environment", (f"{FINGERPRINT}={mark}",)),
        Text("SyslogIdentifier", launch.model_id),
        Text("Slice", SLICE),
    )


def _sleep_hooks(launch: Launch, sleep: Sleep, hooks: Hooks) -> Directives:
    """Return the hooks and timeouts of the token of an engine that can sleep."""
    about = (engine_unit(launch.model_id), launch.socket)
    device = "gpu" if launch.uses_gpu else _CPU
    levels = ",".join(str(level) for level in sleep.levels)
    memory = (str(sleep.weights_bytes), str(sleep.reserve_bytes))
    return (
        # Reading the weights again may take as long as a start.
        Command("ExecStart", (*hooks.wake, *about, sleep.wake_check.value, str(launch.ready_seconds), device)),
        # systemd does not run ExecStop= after an interrupted start, which leaves the engine half awake.
        Command("ExecStopPost", (*hooks.release, *about, str(hooks.sleep_seconds), levels, *memory, device)),
        # The hooks time out first: they leave no engine on the GPU.
        Seconds("TimeoutStartSec", launch.ready_seconds + 120),
        Seconds("TimeoutStopSec", hooks.sleep_seconds + 60),
    )


def _wake_check(launch: Launch) -> tuple[str, ...]:
    return (launch.sleep.wake_check.value,) if launch.sleep else ()
