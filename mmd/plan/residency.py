"""Derive where a model's weights are from the state of its two units: the engine and the token.

engine                  token                      residency
active                  active                     RESIDENT
active                  inactive, failed           ASLEEP with the proof of its release hook, else STRANDED
active                  activating, job start      STARTING (it wakes)
active                  deactivating, job stop     STOPPING (it falls asleep)
job restart, or token job restart                  STARTING
activating              any                        STARTING
deactivating, job stop  any                        STOPPING
inactive, failed        job start or restart       STARTING, also with such a job of the engine itself
failed                  any other                  FAILED
inactive                any other                  ABSENT
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mmd.plan.share import Holding, Share


class Residency(StrEnum):
    """Where a model's weights are."""

    ABSENT = "absent"
    STARTING = "starting"
    RESIDENT = "resident"
    ASLEEP = "asleep"
    STOPPING = "stopping"
    FAILED = "failed"
    STRANDED = "stranded"  # its engine is awake without a token: the release hook was killed


@dataclass(frozen=True, slots=True)
class UnitState:
    """The state of one unit, in systemd's words."""

    active: str = "inactive"  # active, reloading, inactive, failed, activating, deactivating
    sub: str = "dead"
    job: str = ""  # the queued job: "start", "stop", …; "" if none
    loaded: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """The engine and the token of one model."""

    engine: UnitState = UnitState()
    token: UnitState = UnitState()
    holding: Holding | None = None  # from its units; None if no unit is loaded, or if they are of mmd 0.1
    engine_name: str = ""  # from its engine's unit, like "vllm"; "" if no engine is loaded
    type: str = ""  # likewise: "chat", "embedding", …
    kept: Share | None = None  # what it keeps asleep, by its release hook; None without that proof

    @property
    def waits_to_restart(self) -> bool:
        """True if the engine crashed and systemd will restart it; systemd delays every other start until then."""
        return self.engine.sub == "auto-restart"

    @property
    def engine_stays(self) -> bool:
        """True if the engine process is kept when its token is released: it goes to sleep."""
        return self.engine.active == "active" and self.engine.job != "stop"

    @property
    def holds_gpu(self) -> bool:
        """True if the token is held or about to be, and the engine uses it: a token outlives an engine that failed."""
        if self.token.job == "stop":
            return False
        if self.token.job in STARTS or self.token.active == "activating":
            return True
        is_down = self.engine.active in ("inactive", "failed") and self.engine.job not in STARTS
        return self.token.active == "active" and not is_down


STARTS = ("start", "restart")


def held_now(pair: Pair) -> Share:
    """Return what a model holds of each device now: less while it is asleep, nothing while its engine is down.

    Units of mmd 0.1 do not say what they hold; for them it is empty.
    """
    here, holding = residency(pair), pair.holding or Holding({})
    if here is Residency.ASLEEP:
        return pair.kept or {}
    return {} if here in (Residency.ABSENT, Residency.FAILED) else holding.uses


def residency(pair: Pair) -> Residency:
    """Return where a model's weights are; see the table at the top."""
    engine, token = pair.engine, pair.token
    if engine.job == "stop" or engine.active == "deactivating":
        return Residency.STOPPING
    match engine.active:
        case "active" | "reloading":
            if token.active == "deactivating" or token.job == "stop":
                return Residency.STOPPING
            if "restart" in (token.job, engine.job):
                return Residency.STARTING
            if token.active == "active":
                return Residency.RESIDENT  # also with a queued start, which does nothing to an active unit
            if token.active == "activating" or token.job == "start":
                return Residency.STARTING
            return Residency.ASLEEP if pair.kept is not None else Residency.STRANDED
        case "activating":
            return Residency.STARTING
        case _ if engine.job in STARTS or token.job in STARTS:
            return Residency.STARTING
        case "failed":
            return Residency.FAILED
        case _:
            return Residency.ABSENT
