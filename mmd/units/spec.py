"""A launch as two transient units, an engine and a token: D-Bus properties for systemd, and text for people.

The engine is a service. The token is a oneshot service that is active while the model may use its share of the devices;
its ExecStart= is the gate, which admits the model only if that share is free. A swap is a third unit, a slice without
processes: its `Wants=` are the tokens to start, its `Conflicts=` the units to stop. One StartTransientUnit call on the
slice, with the new tokens and engines as auxiliary units, is a whole swap.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmd.paths import TOKEN_SUFFIX
from mmd.plan.launch import Launch, Sleep
from mmd.plan.share import Share, share_words
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

# The environment variable that tells an engine what it holds: "GPU-8a3b1c2d=10240".
SHARE = "MMD_SHARE"

# The release hook's last argument if the model uses no GPU. The token of an engine that cannot sleep has no hook then.
_CPU = "cpu"

_GATE_MARGIN_SECONDS = 30

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
    gate: tuple[str, ...]
    wake: tuple[str, ...]
    release: tuple[str, ...]
    wait_released: tuple[str, ...]
    sleep_seconds: int = 30  # how long an engine may take to fall asleep before it is killed
    gate_seconds: int = 150  # the gate waits so long for models that are unloaded: longer than any of them takes
    restart_seconds: float = 2  # from the crash of an engine to its restart
    test: str = "/usr/bin/test"


@dataclass(frozen=True, slots=True)
class Admission:
    """What the gate of a token needs to know in addition to the launch."""

    capacity: Share  # of the devices of its share: total, less the memory of other programs and the margin
    waits_for: frozenset[str] = frozenset()  # models that are unloaded for it
    conflicts: frozenset[str] = frozenset()  # models whose tokens must not be active with it: residency = "one"
    alone: bool = False  # an awake model on its devices is an obstacle even if both fit: residency = "one"


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
        section = ["", "[Service]", *service] if service else []
        return "\n".join(["[Unit]", *unit, *section, ""])


def engine_spec(launch: Launch, hooks: Hooks, *, loads_after: Iterable[str] = ()) -> UnitSpec:
    """Return the engine's service: `activating` while it loads, `active` when /health answers.

    `loads_after` are models on the same device that load first: engines measure the free memory when they load.
    """
    after = tuple(engine_unit(other) for other in loads_after)
    directives = _engine_directives(launch, hooks, fingerprint(launch, hooks))
    return UnitSpec(engine_unit(launch.model_id), (*((Words("After", after),) if after else ()), *directives))


def token_spec(launch: Launch, hooks: Hooks, admission: Admission) -> UnitSpec:
    """Return the token."""
    rivals = tuple(token_unit(other) for other in sorted(admission.conflicts))
    # Only the later of two tokens names the other: systemd applies Conflicts= both ways.
    conflicts = (Words("Conflicts", rivals),) if rivals else ()
    made = (*conflicts, *_token_directives(launch, hooks, admission))
    # A token that is still loaded is used again only if it is equal, including its gate's arguments.
    mark = Environment("Environment", (f"{FINGERPRINT}={_digest(made)}",))
    return UnitSpec(token_unit(launch.model_id), (*made, mark))


def swap_spec(name: str, comes: Iterable[str], leaves: Iterable[str]) -> UnitSpec:
    """Return the slice of one swap. It starts the tokens of `comes`, models or leases, and stops the units `leaves`.

    The slice has no process and is removed when its transaction is done. So no long-lived unit names another model.
    """
    tokens = tuple(token_unit(model_id) for model_id in comes)
    leaving = tuple(leaves)
    directives: Directives = (
        Text("Description", f"swap: {', '.join(comes)}"),
        # Requires= would cancel the whole swap if one of several new models were stopped.
        Words("Wants", tokens),
        Words("Before", tokens),
        *((Words("Conflicts", leaving),) if leaving else ()),
        Switch("StopWhenUnneeded", True),
        Text("CollectMode", "inactive-or-failed"),
    )
    return UnitSpec(name, directives)


def fingerprint(launch: Launch, hooks: Hooks) -> str:
    """Return a hash of both units, without the sizes and flags that depend on free memory.

    A running engine with the same fingerprint is kept.
    """
    devices = dict.fromkeys(launch.share, 0)
    launch = replace(launch, argv=launch.stable_argv, share=devices, keeps=None if launch.keeps is None else devices)
    return _digest((*_engine_directives(launch, hooks, ""), *_token_directives(launch, hooks, Admission(devices))))


def mark_of(spec: UnitSpec) -> str:
    """Return the entry in a unit's Environment= that shows whether it was made from an equal launch."""
    (entries,) = (one.value for one in spec.directives if isinstance(one, Environment))
    return next(entry for entry in entries if entry.startswith(f"{FINGERPRINT}="))


def _digest(directives: Iterable[Directive]) -> str:
    made = tuple((directive.name, directive.value) for directive in directives)
    return hashlib.sha256(repr(made).encode()).hexdigest()[:16]


def missing_programs(commands: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """Return the files of these hook commands, the Python and the script, that are no longer on disk."""
    files = (word for command in commands for word in (command[0], *_scripts(command)))
    return tuple(file for file in files if not Path(file).exists())


def _scripts(command: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in command[:4] if word.endswith(".py"))


def _engine_directives(launch: Launch, hooks: Hooks, mark: str) -> Directives:
    unit = engine_unit(launch.model_id)
    about = engine_description(launch.model_id, launch.engine, launch.type)
    environment = (*launch.environment, (SHARE, share_words(launch.share)), (FINGERPRINT, mark))
    return (
        Text("Description", f"{about} · {launch.holding.text}"),
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
        # On the engine, not on the token: an engine that dies asleep must release its memory, too, and a crashed one
        # must not be restarted onto memory that the driver still counts.
        *((Command("ExecStopPost", (*hooks.wait_released, unit, launch.socket)),) if launch.uses_gpu else ()),
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


def _runtime_folder(launch: Launch) -> Path:
    return Path(launch.socket).parents[1]


def _held(launch: Launch) -> str:
    """Return the path of the model's entry in the ledger, which exists from admission until the token is down."""
    return f"{Path(launch.socket).parent}{TOKEN_SUFFIX}/held"


def _no_restart_asleep(launch: Launch, hooks: Hooks) -> Directives:
    """Keep systemd from restarting an engine that died asleep: without its token it must not load onto the GPU.

    systemd 254 and newer check the unit's conditions at the first start only, not at a restart.
    """
    return (Command("ExecCondition", (hooks.test, "-e", _held(launch))),) if launch.sleep else ()


def _stopped_with_token(launch: Launch) -> Directives:
    """Stop an engine that cannot sleep with its token, the engine first.

    PropagatesStopTo= in the token would be better, since PartOf= keeps a dead token loaded with a failed engine. But in
    systemd 257 it has no effect if a rival's Conflicts= stops the token, as in every swap.
    """
    return () if launch.sleep else (Words("PartOf", (token_unit(launch.model_id),)),)


def _token_directives(launch: Launch, hooks: Hooks, admission: Admission) -> Directives:
    engine = engine_unit(launch.model_id)
    gate = gate_words(launch.model_id, _runtime_folder(launch), launch.share, admission, hooks)
    work: Directives
    if launch.sleep is not None:
        work = _sleep_hooks(launch, launch.sleep, hooks, gate)
    else:
        work = (
            Command("ExecStart", (*hooks.gate, *gate)),
            Seconds("TimeoutStartSec", hooks.gate_seconds + _GATE_MARGIN_SECONDS),
        )
    return (
        Text("Description", f"{launch.model_id} {launch.holding.text}"),
        # With BindsTo= systemd would stop the token when the engine crashes, and restart the engine without it.
        Words("Requires", (engine,)),
        Words("Before", (engine,)),
        # A start by hand could cancel the stop of a token, and with it the swap that stops the token.
        Switch("RefuseManualStart", True),
        Text("CollectMode", "inactive-or-failed"),
        # If systemd refused to start the token, the engine would start without it.
        Seconds("StartLimitIntervalSec", 0),
        Text("Type", "oneshot"),
        Switch("RemainAfterExit", True),
        Words("RuntimeDirectory", (f"mmd/{launch.model_id}{TOKEN_SUFFIX}",)),
        *work,
        Text("SyslogIdentifier", launch.model_id),
        Text("Slice", SLICE),
    )


def gate_words(holder_id: str, folder: Path, share: Share, admission: Admission, hooks: Hooks) -> tuple[str, ...]:
    """Return the arguments of the gate of a model or a lease, see hooks/gate.py. `folder` is mmd's runtime folder."""
    shares = (f"{device}={size_mib}/{admission.capacity[device]}" for device, size_mib in sorted(share.items()))
    waits = (f"wait={','.join(sorted(admission.waits_for))}",) if admission.waits_for else ()
    alone = ("alone",) if admission.alone else ()
    return holder_id, str(folder), str(hooks.gate_seconds), *shares, *waits, *alone


def _sleep_hooks(launch: Launch, sleep: Sleep, hooks: Hooks, gate: tuple[str, ...]) -> Directives:
    """Return the hooks and timeouts of the token of an engine that can sleep."""
    about = (engine_unit(launch.model_id), launch.socket)
    device = "gpu" if launch.uses_gpu else _CPU
    levels = ",".join(str(level) for level in sleep.levels)
    memory = (str(sleep.weights_bytes), str(sleep.reserve_bytes))
    keeps = tuple(share_words(launch.keeps or {}).split())
    return (
        # Reading the weights again may take as long as a start.
        Command("ExecStart", (*hooks.wake, *about, sleep.wake_check.value, str(launch.ready_seconds), device, *gate)),
        # systemd does not run ExecStop= after an interrupted start, which leaves the engine half awake.
        Command("ExecStopPost", (*hooks.release, *about, str(hooks.sleep_seconds), levels, *memory, device, *keeps)),
        # The hooks time out first: they leave no engine on the GPU.
        Seconds("TimeoutStartSec", hooks.gate_seconds + launch.ready_seconds + 120),
        Seconds("TimeoutStopSec", hooks.sleep_seconds + 60),
    )


def _wake_check(launch: Launch) -> tuple[str, ...]:
    return (launch.sleep.wake_check.value,) if launch.sleep else ()
