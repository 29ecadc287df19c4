"""Where a model's weights are, read off its two units."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Residency(StrEnum):
    ABSENT = "absent"
    STARTING = "starting"
    RESIDENT = "resident"
    ASLEEP = "asleep"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of one unit, in its own words."""

    active: str = "inactive"  # active, reloading, inactive, failed, activating, deactivating
    sub: str = "dead"
    job: str = ""  # the queued job: "start", "stop", …; "" where there is none
    loaded: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """The engine and the token of one model."""

    engine: UnitState = UnitState()
    token: UnitState = UnitState()

    @property
    def waits_to_restart(self) -> bool:
        """Its engine crashed; systemd will start it again by itself, and holds every other start back until then."""
        return self.engine.sub == "auto-restart"

    @property
    def engine_stays(self) -> bool:
        """Its engine runs and is not to be ended: of a token that goes, it is put to sleep."""
        return self.engine.active == "active" and self.engine.job != "stop"

    @property
    def holds_gpu(self) -> bool:
        """Its token is held or about to be, and its engine has a use for it: a token outlives an engine that failed."""
        if self.token.job == "stop":
            return False
        if self.token.job in _STARTS or self.token.active == "activating":
            return True
        is_down = self.engine.active in ("inactive", "failed") and self.engine.job not in _STARTS
        return self.token.active == "active" and not is_down


_STARTS = ("start", "restart")


def residency(pair: Pair) -> Residency:
    """An engine that runs without its token is asleep: one that cannot sleep goes down with it."""
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
                return Residency.RESIDENT  # also with a start queued: it is up, so that job does nothing
            return Residency.STARTING if token.active == "activating" or token.job == "start" else Residency.ASLEEP
        case "activating":
            return Residency.STARTING
        case _ if engine.job in _STARTS or token.job in _STARTS:
            return Residency.STARTING
        case "failed":
            return Residency.FAILED
        case _:
            return Residency.ABSENT
