"""The result of an activation, and the record of the attempts that it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmd.control.lifecycle.swap_record import SwapSummary
from mmd.plan.swap import Action

if TYPE_CHECKING:
    from mmd.control.lifecycle.placing import SwapPlan
    from mmd.plan.launch import Launch


@dataclass(frozen=True, slots=True)
class Activation:
    """The result of an activation: why it was necessary, the models that were unloaded for it, and the seconds it took,
    in total and by phase, of the model that took longest.
    """

    model_ids: tuple[str, ...]
    why: str
    evicted: tuple[str, ...]
    seconds: float
    phases: Mapping[str, float] = field(default_factory=dict)
    launches: Mapping[str, Launch] = field(default_factory=dict)  # of the models that were started or woken
    cut: Mapping[str, int] = field(default_factory=dict)  # running responses that were cut for it, by model

    @property
    def model_id(self) -> str:
        """The model, or the first of several."""
        return self.model_ids[0]

    @property
    def was_resident(self) -> bool:
        """True if the models were resident before."""
        return not self.phases


@dataclass(frozen=True, slots=True)
class Failure:
    """The engine did not start."""

    launch: Launch
    lines: tuple[str, ...]  # the last of the engine's output
    cause: str


@dataclass(frozen=True, slots=True)
class Superseded:
    """The model lost its token to another activation, or was stopped."""

    model_id: str
    cause: str


@dataclass(frozen=True, slots=True)
class GateRefusal:
    """The gate of a token did not admit the model: the plan was out of date."""

    model_id: str
    cause: str


Problem = Failure | Superseded | GateRefusal


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to make the models resident, and how it ended."""

    plan: SwapPlan | None = None
    submitted: float = 0.0
    evicted: tuple[str, ...] = ()  # the models that were unloaded, also by earlier tries
    restarted: tuple[str, ...] = ()  # the resident models of the set that started again, also in earlier tries
    why_evicted: Mapping[str, str] = field(default_factory=dict)
    problem: Problem | None = None  # None: the models are resident

    @property
    def woken(self) -> frozenset[str]:
        actions = self.plan.actions if self.plan else {}
        return frozenset(model_id for model_id, action in actions.items() if action is Action.WAKE)

    def swap(self, model_id: str, began: float, occasion: str) -> SwapSummary:
        """Return what the record of one model's activation says."""
        why = self.plan.why.get(model_id, "") if self.plan else ""
        why = f"{occasion}: {why}" if occasion else why
        return SwapSummary(began, why, self.evicted, self.why_evicted)
