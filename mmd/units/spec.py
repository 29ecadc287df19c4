"""A launch as two transient units: D-Bus properties for systemd, and the same as text for people.

The engine is a service; the token is a service without a life of its own that is active while the model may use
the GPU. `Conflicts=` between tokens is the lock, `Requires=` brings a token's engine along, and one
StartTransientUnit call on the token with the engine beside it is a whole swap.
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
from mmd.units.names import SLICE, engine_unit, token_unit

# The environment variable in which a unit carries the fingerprint of the launch it was made from.
FINGERPRINT = "MMD_LAUNCH"

# systemd keeps a folder for a token as long as it is held, named after its model and this, which is in no id.
_HELD = "~gpu"

# The release hook's last word where the model is on no GPU; other tokens have a hook only where it is on one.
_CPU = "cpu"

Directives = tuple[Directive, ...]

# vLLM ends with status 0 when its engine core dies, 1 when it cannot start, and 2 when it does not know an argument.
_AFTER_A_QUIET_END: Directives = (Text("Restart", "always"), Statuses("RestartPreventExitStatus", (1, 2)))
_AFTER_A_CRASH: Directives = (Text("Restart", "on-abnormal"),)

_UNIT_SECTION = (
    "Description",
    "Requires",
    "Before",
    "After",
    "Conflicts",
    "PartOf",
    "ConditionPathExists",
    "CollectMode",
    "StartLimitIntervalSec",
    "StartLimitBurst",
)


@dataclass(frozen=True, slots=True)
class Hooks:
    """The command lines of the programs that units run beside the engine, and the times that units keep."""

    ready: tuple[str, ...]
    wake: tuple[str, ...]
    release: tuple[str, ...]
    wait_released: tuple[str, ...]
    sleep_seconds: int = 30  # how long an engine may take to fall asleep before it is ended
    restart_seconds: float = 2  # from the crash of an engine to its restart
    nothing: str = "/bin/true"
    test: str = "/usr/bin/test"


@dataclass(frozen=True, slots=True)
class UnitSpec:
    """One transient unit."""

    name: str
    directives: Directives

    def properties(self) -> list[tuple[str, str, Any]]:
        """`(property, D-Bus signature, value)` as StartTransientUnit takes them."""
        return [directive.bus_property for directive in self.directives]

    def text(self) -> str:
        """The same unit as a file; what `mmd show --units` prints and systemd-analyze verifies."""
        unit = [directive.line for directive in self.directives if directive.name in _UNIT_SECTION]
        service = [directive.line for directive in self.directives if directive.name not in _UNIT_SECTION]
        return "\n".join(["[Unit]", *unit, "", "[Service]", *service, ""])


def engine_spec(launch: Launch, hooks: Hooks) -> UnitSpec:
    """The engine as a service: `activating` while it loads, `active` once its health answers."""
    return UnitSpec(engine_unit(launch.model_id), _engine_directives(launch, hooks, fingerprint(launch, hooks)))


def token_spec(launch: Launch, hooks: Hooks, others: Iterable[str]) -> UnitSpec:
    """The token; `others` are the ids of the models whose tokens exist and may not share the GPU with it.

    It is enough that of two tokens the later one names the earlier: systemd reads Conflicts= both ways, and
    between a stop and a start any ordering means that the stop comes first.
    """
    rivals = tuple(token_unit(other) for other in sorted(others) if other != launch.model_id)
    conflicts = (Words("Conflicts", rivals), Words("After", rivals)) if rivals else ()
    directives = _token_directives(launch, hooks, fingerprint(launch, hooks))
    return UnitSpec(token_unit(launch.model_id), (*conflicts, *directives))


def fingerprint(launch: Launch, hooks: Hooks) -> str:
    """Equal where the units would be equal but for the rivals and for what was measured at the start; carried by both
    units of the pair.
    """
    launch = replace(launch, argv=launch.stable_argv)
    made = tuple(
        tuple((directive.name, directive.value) for directive in directives)
        for directives in (_engine_directives(launch, hooks, ""), _token_directives(launch, hooks, ""))
    )
    return hashlib.sha256(repr(made).encode()).hexdigest()[:16]


def missing_programs(commands: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Which of the hooks' files these commands need, a Python and its script, are not on disk any more."""
    files = (word for command in commands for word in (command[0], *_scripts(command)))
    return tuple(file for file in files if not Path(file).exists())


def is_on_gpu(release: Iterable[tuple[str, ...]]) -> bool:
    """Whether the model of a token has memory of a GPU, by the token's ExecStopPost=."""
    return any(command[-1] != _CPU for command in release)


def _scripts(command: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in command[:4] if word.endswith(".py"))


def _engine_directives(launch: Launch, hooks: Hooks, mark: str) -> Directives:
    environment = (*launch.environment, (FINGERPRINT, mark))
    return (
        Text("Description", f"{launch.model_id} · {launch.engine} · {launch.type}"),
        # No token, no start by hand.
        Condition("ConditionPathExists", _held(launch)),
        *_taken_along(launch),
        Seconds("StartLimitIntervalSec", 300),
        Number("StartLimitBurst", 3),
        # A failed engine stays listed until the next activation, so that status and systemctl can say so.
        Text("CollectMode", "inactive"),
        Text("Type", "exec"),
        *_not_restarted_asleep(launch, hooks),
        Command("ExecStart", launch.argv),
        Command("ExecStartPost", (*hooks.ready, launch.socket, str(launch.ready_seconds), *_wake_check(launch))),
        # Both engines refuse to start on a stale socket. systemd removes this folder whenever the engine ends,
        # however it ends, and needs no process for it as `ExecStartPre=rm` would.
        Words("RuntimeDirectory", (f"mmd/{launch.model_id}",)),
        Mode("RuntimeDirectoryMode", 0o700),
        Environment("Environment", tuple(f"{name}={value}" for name, value in environment)),
        # The ready hook gives up first: it can say what it waited for.
        Seconds("TimeoutStartSec", launch.ready_seconds + 15),
        Seconds("TimeoutStopSec", launch.stop_seconds),
        # An engine that exits with a status has said what is wrong and would say it again; one that was killed or
        # crashed gets another try.
        *(_AFTER_A_QUIET_END if launch.exits_zero_on_crash else _AFTER_A_CRASH),
        Seconds("RestartSec", hooks.restart_seconds),
        # A ready hook that is stopped with its engine, in a swap away from a model that loads, is no failure.
        Statuses("SuccessExitStatus", ("SIGTERM",)),
        Text("OOMPolicy", "stop"),
        # SIGTERM to the main process only; SIGKILL at the end to all, so no worker keeps the GPU.
        Text("KillMode", "mixed"),
        Text("Slice", SLICE),
        Text("SyslogIdentifier", launch.model_id),
        Mode("UMask", 0o077),
        Number("LimitNOFILE", 65536),
    )


def _held(launch: Launch) -> str:
    """The folder that is there as long as the token is held."""
    return str(Path(launch.socket).parent) + _HELD


def _not_restarted_asleep(launch: Launch, hooks: Hooks) -> Directives:
    """One that died asleep has no token, and would load itself onto a GPU that is somebody else's.

    systemd 254 and newer look at conditions of the unit at the first start only, not at a restart.
    """
    return (Command("ExecCondition", (hooks.test, "-d", _held(launch))),) if launch.sleep else ()


def _taken_along(launch: Launch) -> Directives:
    """An engine that cannot sleep goes with its token, engine first.

    Not PropagatesStopTo= in the token, although that would not keep a dead token in memory beside a failed engine: in
    systemd 257 it does nothing where a rival's Conflicts= stops the token, which is what a swap is.
    """
    return () if launch.sleep else (Words("PartOf", (token_unit(launch.model_id),)),)


def _token_directives(launch: Launch, hooks: Hooks, mark: str) -> Directives:
    engine = engine_unit(launch.model_id)
    work: Directives
    if launch.sleep is not None:
        work = _sleeping(launch, launch.sleep, hooks)
    else:
        work = (Command("ExecStart", (hooks.nothing,)),)
        if launch.uses_gpu:
            work += (
                Command("ExecStopPost", (*hooks.wait_released, engine, launch.socket)),
                Seconds("TimeoutStopSec", 60),
            )
    return (
        Text("Description", f"{launch.model_id} may use the GPU"),
        # Not BindsTo=: systemd would stop the token when the engine crashes, and restart the engine without it.
        Words("Requires", (engine,)),
        Words("Before", (engine,)),
        Text("CollectMode", "inactive-or-failed"),
        # A token that systemd would not start any more would let its engine start without it.
        Seconds("StartLimitIntervalSec", 0),
        Text("Type", "oneshot"),
        Switch("RemainAfterExit", True),
        Words("RuntimeDirectory", (f"mmd/{launch.model_id}{_HELD}",)),
        *work,
        Environment("Environment", (f"{FINGERPRINT}={mark}",)),
        Text("SyslogIdentifier", launch.model_id),
        Text("Slice", SLICE),
    )


def _sleeping(launch: Launch, sleep: Sleep, hooks: Hooks) -> Directives:
    """What a token does for an engine that can sleep."""
    about = (engine_unit(launch.model_id), launch.socket)
    device = "gpu" if launch.uses_gpu else _CPU
    levels = ",".join(str(level) for level in sleep.levels)
    memory = (str(sleep.weights_bytes), str(sleep.reserve_bytes))
    return (
        # Reading the weights again may take as long as a start.
        Command("ExecStart", (*hooks.wake, *about, sleep.wake_check.value, str(launch.ready_seconds), device)),
        # Not ExecStop=: that is left out after a start that was interrupted, with the engine half awake.
        Command("ExecStopPost", (*hooks.release, *about, str(hooks.sleep_seconds), levels, *memory, device)),
        # The hooks give up first: they leave no engine on the GPU.
        Seconds("TimeoutStartSec", launch.ready_seconds + 120),
        Seconds("TimeoutStopSec", hooks.sleep_seconds + 60),
    )


def _wake_check(launch: Launch) -> tuple[str, ...]:
    return (launch.sleep.wake_check.value,) if launch.sleep else ()
