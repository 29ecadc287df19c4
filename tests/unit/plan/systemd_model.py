"""A little model of systemd: what it makes of the pairs of a few models, one step at a time and in any order.

It knows what mmd's units say: tokens that conflict, a token bound to its engine and ordered before it, a token's stop
that is passed on to an engine that cannot sleep, a condition on the start of one that can. Times and processes it
does not know: whatever may happen next is in `runnable`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mmd.plan.residency import Pair, UnitState
from mmd.plan.swap import Start

MODELS = ("a", "b", "c")
_DOWN = ("inactive", "failed")


@dataclass
class Unit:
    active: str = "inactive"
    sub: str = "dead"
    job: str = ""
    loaded: bool = False

    def become(self, active: str, sub: str = "", job: str = "") -> None:
        self.active, self.sub, self.job = active, sub, job

    def state(self) -> UnitState:
        return UnitState(self.active, self.sub, self.job, self.loaded)


@dataclass
class Model:
    engine: Unit = field(default_factory=Unit)
    token: Unit = field(default_factory=Unit)
    names: frozenset[str] = frozenset()  # the models whose tokens its own conflicts with
    launch: int | None = None  # which one its units were made from
    is_asleep: bool = False


class SystemdModel:
    def __init__(self) -> None:
        self.sleepers: frozenset[str] = frozenset()
        self._models = {name: Model() for name in MODELS}

    # -- what mmd sees, and what is true

    def pairs(self) -> dict[str, Pair]:
        return {name: Pair(model.engine.state(), model.token.state()) for name, model in self._models.items()}

    def token(self, name: str) -> UnitState:
        return self._models[name].token.state()

    def token_is_held(self, name: str) -> bool:
        token = self._models[name].token
        return token.job == "start" or (token.active in ("active", "activating") and token.job != "stop")

    def launch_of(self, name: str) -> int | None:
        model = self._models[name]
        return model.launch if model.engine.loaded else None

    def answers(self, name: str) -> bool:
        model = self._models[name]
        is_up = (model.engine.active, model.token.active, model.is_asleep) == ("active", "active", False)
        return is_up and not model.engine.job and not model.token.job

    def will_answer(self, name: str) -> bool:
        """Its start is under way, and nothing that is queued stands against it."""
        engine, token = self._models[name].engine, self._models[name].token
        comes = token.job == "start" or token.active == "activating" or engine.job == "start" or _loads(engine)
        return comes and self.token_is_held(name) and engine.job != "stop"

    def awake(self) -> list[str]:
        """Models whose weights are on the GPU."""
        return [
            name
            for name, model in self._models.items()
            if _loads(model.engine) or (model.engine.active == "active" and not model.is_asleep)
        ]

    # -- what is asked of it

    def carry_out(self, wanted: str, step: Start, launch: int) -> None:
        model = self._models[wanted]
        if step.forget:
            self._models[wanted] = model = Model()
            self.collect_garbage()
        if model.engine.active == "failed":
            model.engine.become("inactive")
            self.collect_garbage()
        if step.has_token:
            assert model.engine.loaded and model.token.loaded, "StartUnit on what is not there"
        else:
            assert not model.token.loaded, "UnitExists: the token"
            assert model.engine.loaded == step.has_engine, "UnitExists, or no such engine"
            model.names = frozenset(step.rivals)
        if not step.has_engine:
            model.launch = launch
        model.engine.loaded = model.token.loaded = True
        self._start(wanted)

    def _start(self, wanted: str) -> None:
        """The one transaction: the rivals' stops, the token's start, its engine's start."""
        model = self._models[wanted]
        for rival in self._rivals(wanted):
            self.release(rival)
        model.token.job = "" if model.token.active == "active" else "start"
        model.engine.job = "" if model.engine.active == "active" or _loads(model.engine) else "start"

    def release(self, name: str) -> None:
        """StopUnit on a token."""
        model = self._models[name]
        model.token.job = "" if model.token.active in _DOWN else "stop"
        if name not in self.sleepers:
            self._stop_engine(model)

    def stop(self, name: str) -> None:
        """StopUnit on both."""
        self.release(name)
        self._stop_engine(self._models[name])

    def stop_engine(self, name: str) -> None:
        """StopUnit on the engine alone."""
        self._stop_engine(self._models[name])

    def _stop_engine(self, model: Model) -> None:
        model.engine.job = "" if model.engine.active in _DOWN else "stop"

    def crash(self, name: str, *, restarts: bool) -> None:
        model = self._models[name]
        if model.engine.active != "active" and not _loads(model.engine):
            return
        model.is_asleep = False
        if model.engine.job == "stop":
            self._end(name, "inactive")
        elif restarts:
            model.engine.become("activating", "auto-restart")
            if model.token.active == "activating":
                model.token.become("failed")
        else:
            self._end(name, "failed")

    def collect_garbage(self) -> None:
        """Unload what is dead and what nothing that lives refers to; systemd does before it looks at the next call."""
        kept: set[str] = set()
        found = [name for name, model in self._models.items() if model.token.active not in _DOWN or model.token.job]
        while found:
            kept.add(name := found.pop())
            found += self._models[name].names - kept
        for name, model in self._models.items():
            if name not in kept:
                model.token, model.names = Unit(), frozenset()
            if not model.token.loaded and model.engine.active == "inactive" and not model.engine.job:
                model.engine = Unit()

    # -- what happens next

    def runnable(self) -> list[tuple[str, str]]:
        return [(name, action) for name in MODELS if (action := self._next(name))]

    def _next(self, name: str) -> str:
        model = self._models[name]
        engine, token = model.engine, model.token
        if engine.job == "stop":
            return "engine stops"
        if token.active == "deactivating" or token.job == "stop":
            return "token stops"
        if token.job == "start":
            if token.active == "activating":
                return "engine wakes"
            return "token starts" if all(self._is_clear(rival) for rival in self._rivals(name)) else ""
        if engine.job == "start" or engine.sub == "auto-restart":
            return "engine starts"
        return "engine is ready" if _loads(engine) else ""

    def run(self, action: tuple[str, str]) -> None:
        name, what = action
        model = self._models[name]
        match what:
            case "engine stops":
                self._end(name, "inactive")
            case "token stops":
                self._token_stops(name)
            case "token starts" if model.engine.active == "active":
                model.token.become("activating", "start", "start")
                model.is_asleep = False
            case "token starts":
                is_bound = model.engine.job == "start" or model.engine.active == "activating"
                model.token.become("active" if is_bound else "inactive")
            case "engine wakes":
                model.token.become("active")
            case "engine starts" if name in self.sleepers and model.token.active != "active":
                model.engine.become("inactive")  # ExecCondition=
            case "engine starts":
                model.engine.become("activating", "start-post", "start")
            case "engine is ready":
                model.engine.become("active")
            case _:
                raise AssertionError(what)

    def _token_stops(self, name: str) -> None:
        """The release hook: the engine sleeps, or one that loads is ended."""
        model = self._models[name]
        comes_again = "start" if model.token.job == "start" else ""
        if model.engine.active == "active":
            model.is_asleep = True
        elif model.engine.active == "activating":
            model.engine.become("inactive", job=comes_again)
        model.token.become("inactive", job=comes_again)

    def _end(self, name: str, how: str) -> None:
        """The engine is down, and its token is bound to it."""
        model = self._models[name]
        model.engine.become(how)
        model.is_asleep = False
        if model.token.active in ("active", "activating"):
            model.token.become("inactive")

    def _rivals(self, name: str) -> list[str]:
        """Conflicts= holds both ways."""
        mine = self._models[name].names
        return [
            other
            for other, model in self._models.items()
            if other != name and model.token.loaded and (other in mine or name in model.names)
        ]

    def _is_clear(self, name: str) -> bool:
        model = self._models[name]
        is_gone = name in self.sleepers or model.engine.active in _DOWN
        return model.token.active in _DOWN and is_gone


def _loads(engine: Unit) -> bool:
    return engine.active == "activating" and engine.sub == "start-post"
