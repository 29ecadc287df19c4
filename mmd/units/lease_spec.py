"""A lease as transient units: a token as models have one, a holder, and a service that restores what was unloaded.

The token's gate enters the lease in the ledger. The holder runs for as long as the lease is held, and the token has
BindsTo= the holder: when the holder ends for any reason, the token stops, and then the restore starts.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmd.paths import TOKEN_SUFFIX
from mmd.plan.lease import lease_id
from mmd.plan.share import Holding, Share
from mmd.units.directives import Command, Commands, Descriptor, Directive, Environment, Seconds, Switch, Text, Words
from mmd.units.names import SLICE, back_unit, holder_unit, token_unit
from mmd.units.spec import UnitSpec

# Longer than the gate waits for models that are put to sleep or stopped.
_START_TIMEOUT_SECONDS = 300.0
_STOP_TIMEOUT_SECONDS = 30.0
_MAX_DESCRIPTION_CHARACTERS = 120
_PIPE = 0  # its index among the descriptors of the call


@dataclass(frozen=True, slots=True)
class LeaseUnits:
    """What the units of one lease are made from. The commands are whole command lines."""

    name: str
    share: Share
    description: str  # the program that the lease is for, as shown to users
    gate: tuple[str, ...]
    gone: tuple[str, ...]
    hold: tuple[str, ...]
    back: tuple[str, ...]  # the command that restores a model if it fits, without the model's id
    restores: tuple[str, ...] = ()  # the models to restore
    path: str = ""  # $PATH of the restore: it must find the same engines as this process
    has_pipe: bool = False  # the holder's standard input is a pipe, the first descriptor of the call


def lease_specs(lease: LeaseUnits) -> tuple[UnitSpec, ...]:
    """Return the units, the token first, for the one call that also unloads models."""
    back = (_back_spec(lease),) if lease.restores else ()
    return (_token_spec(lease), _holder_spec(lease), *back)


def restores_text(model_ids: tuple[str, ...], name: str) -> str:
    """Return the Description= of the service that restores these models."""
    return f"restores {' '.join(model_ids)} after the lease {name}"


def read_restores(description: str) -> tuple[str, ...]:
    """Return the models that a service restores: the inverse of `restores_text`."""
    return tuple(description.removeprefix("restores ").partition(" after the lease ")[0].split())


def _token_spec(lease: LeaseUnits) -> UnitSpec:
    holder, back = holder_unit(lease.name), (back_unit(lease.name),)
    restore: tuple[Directive, ...] = (Words("OnSuccess", back), Words("OnFailure", back)) if lease.restores else ()
    return UnitSpec(
        token_unit(lease_id(lease.name)),
        (
            Text("Description", f"{lease_id(lease.name)} {Holding(lease.share).text}"),
            Words("BindsTo", (holder,)),
            Words("Before", (holder,)),
            *restore,
            # `systemctl stop` of a token ends the lease; a start would make a lease without a program.
            Switch("RefuseManualStart", True),
            Text("CollectMode", "inactive-or-failed"),
            Seconds("StartLimitIntervalSec", 0),
            Text("Type", "oneshot"),
            Switch("RemainAfterExit", True),
            Words("RuntimeDirectory", (f"mmd/{lease_id(lease.name)}{TOKEN_SUFFIX}",)),
            Command("ExecStart", lease.gate),
            Command("ExecStopPost", lease.gone),
            Seconds("TimeoutStartSec", _START_TIMEOUT_SECONDS),
            Seconds("TimeoutStopSec", _STOP_TIMEOUT_SECONDS),
            Text("Slice", SLICE),
        ),
    )


def _holder_spec(lease: LeaseUnits) -> UnitSpec:
    about = "".join(char if char.isprintable() else " " for char in lease.description)
    pipe: tuple[Directive, ...] = (Descriptor("StandardInputFileDescriptor", _PIPE),) if lease.has_pipe else ()
    return UnitSpec(
        holder_unit(lease.name),
        (
            Text("Description", about[:_MAX_DESCRIPTION_CHARACTERS]),
            # If the gate refuses, the holder is not started; if a user stops the token, the holder stops, too.
            Words("Requires", (token_unit(lease_id(lease.name)),)),
            Text("CollectMode", "inactive-or-failed"),
            Text("Type", "exec"),
            Command("ExecStart", lease.hold),
            *pipe,
            # With a descriptor as standard input, systemd would connect the output to it, too.
            Text("StandardOutput", "journal"),
            Text("Slice", SLICE),
        ),
    )


def _back_spec(lease: LeaseUnits) -> UnitSpec:
    environment = (Environment("Environment", (f"PATH={lease.path}",)),) if lease.path else ()
    return UnitSpec(
        back_unit(lease.name),
        (
            Text("Description", restores_text(lease.restores, lease.name)),
            Text("CollectMode", "inactive-or-failed"),
            Text("Type", "oneshot"),
            # One command per model, the most important first: each restores its model if it fits.
            Commands("ExecStart", tuple((*lease.back, model_id) for model_id in lease.restores)),
            *environment,
            Text("Slice", "app.slice"),
        ),
    )
