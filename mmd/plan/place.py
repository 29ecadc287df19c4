"""Decide on which devices models are placed, and which other models must leave for them.

Two questions, answered apart: whether the wanted models fit beside those that stay (depth-first and exact: few are
wanted, and machines have few devices), and who leaves. If one set of leavers makes room, every larger set does, so
sparing the most important model first, as long as the rest still fits, gives the best set with one test per model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations

from mmd.plan.share import Share


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or the RAM for models that run on the CPU."""

    id: str
    capacity_mib: int  # total, less the memory of other programs and the margin


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to run a model: on `count` devices with `each_mib` on each.

    With `total_mib`, that much is divided among them in any ratio, in addition to `each_mib` (llama.cpp's layers).
    """

    count: int
    each_mib: int
    total_mib: int = 0

    @property
    def size_mib(self) -> int:
        return self.count * self.each_mib + self.total_mib


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model to place."""

    model_id: str
    shapes: tuple[Shape, ...]  # preferred first
    at: Share | None = None  # where it sleeps: it wakes there, with this size; elsewhere its engine starts anew
    devices: frozenset[str] | None = None  # it can use these only; None: any


@dataclass(frozen=True, slots=True)
class Occupant:
    """A model or a lease that holds memory now."""

    model_id: str
    uses: Share  # while it is resident, or about to be
    keeps: Share | None = None  # while it is asleep; None if it cannot sleep
    is_asleep: bool = False  # now: `keeps` counts, not `uses`
    last_used: float = 0.0  # seconds on any clock
    pinned: bool = False  # only a user's command unloads it
    in_use: bool = False  # it is answering requests
    is_dead: bool = False  # its engine has failed, and its token is still held: it leaves first
    is_lease: bool = False  # nothing unloads it


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the wanted models are placed, and who leaves for them."""

    where: Mapping[str, Share]
    sleep: tuple[str, ...]  # these leave and sleep
    end: tuple[str, ...]  # their engines end: they cannot sleep, or what they keep asleep is needed, too
    why: Mapping[str, str] = field(default_factory=dict)  # the reason for each that leaves


@dataclass(frozen=True, slots=True)
class CannotPlace:
    """Why the wanted models do not fit, whoever of the others leaves."""

    why: str
    short_mib: int


class _State(StrEnum):
    STAYS = "stays"
    SLEEPS = "sleeps"
    ENDS = "ends"


_States = Mapping[str, _State]


def place(
    wanted: Sequence[Wanted],
    occupants: Sequence[Occupant],
    devices: Sequence[Device],
    *,
    evicts: bool = True,
    by_user: bool = False,
) -> Placement | CannotPlace:
    """Place the wanted models. If `evicts` is false, no model leaves; `by_user` unloads pinned models, too."""
    names = {one.model_id for one in wanted}
    others = sorted((one for one in occupants if one.model_id not in names), key=_importance)
    search = _Search(sorted(wanted, key=_largest_first), others, sorted(devices, key=lambda device: device.id))
    fixed = {one.model_id for one in others if not one.is_dead and not _may_leave(one, evicts=evicts, by_user=by_user)}
    movable = [one for one in others if one.model_id not in fixed]
    states = {one.model_id: _State.STAYS if one.model_id in fixed else _State.ENDS for one in others}
    where = search.fits(states)
    if where is None:
        return search.refusal(states)
    # An engine that can sleep ends only if what it keeps is needed. Then: no model leaves without need.
    sleepers = [one for one in reversed(movable) if one.keeps is not None and not one.is_dead]
    stayers = [one for one in reversed(movable) if not one.is_asleep and not one.is_dead]
    for candidates, state in ((sleepers, _State.SLEEPS), (stayers, _State.STAYS)):
        for one in candidates:
            spared = {**states, one.model_id: state}
            if (found := search.fits(spared)) is not None:
                states, where = spared, found
    sleep = tuple(
        sorted(one.model_id for one in movable if states[one.model_id] is _State.SLEEPS and not one.is_asleep)
    )
    end = tuple(sorted(one.model_id for one in movable if states[one.model_id] is _State.ENDS))
    why = {one.model_id: _reason(one, states[one.model_id]) for one in others if one.model_id in (*sleep, *end)}
    return Placement(where, sleep, end, why)


def _may_leave(one: Occupant, *, evicts: bool, by_user: bool) -> bool:
    return evicts and not one.is_lease and (by_user or not one.pinned)


def _importance(one: Occupant) -> tuple[bool, bool, bool, bool, float, str]:
    return (not one.is_dead, one.is_lease, one.pinned, one.in_use, one.last_used, one.model_id)


def _largest_first(wanted: Wanted) -> tuple[int, str]:
    return -max(shape.total_mib or shape.count * shape.each_mib for shape in wanted.shapes), wanted.model_id


def _reason(one: Occupant, state: _State) -> str:
    if one.is_dead:
        return "its engine has failed"
    use = "in use" if one.in_use else "the least recently used whose memory is enough"
    if state is _State.ENDS and one.keeps is not None:
        return f"{use}; what it keeps asleep is needed, too"
    return use


@dataclass(frozen=True, slots=True)
class _Search:
    wanted: Sequence[Wanted]
    others: Sequence[Occupant]
    devices: Sequence[Device]

    def fits(self, states: _States) -> dict[str, Share] | None:
        """Return where the wanted models fit if the others are in these states; None if they do not."""
        room = self._room(states)
        return None if min(room.values(), default=0) < 0 else _put(self.wanted, room, {}, ())

    def refusal(self, states: _States) -> CannotPlace:
        needs_mib = sum(min(shape.size_mib for shape in one.shapes) for one in self.wanted)
        has_mib = sum(max(0, left_mib) for left_mib in self._room(states).values())
        staying = sorted(
            one.model_id for one in self.others if states[one.model_id] is _State.STAYS and not one.is_asleep
        )
        beside = f" beside {', '.join(staying)}" if staying else ""
        names = ", ".join(sorted(one.model_id for one in self.wanted))
        return CannotPlace(
            f"{names}: {needs_mib} MiB are needed, {has_mib} MiB can be had{beside}", max(0, needs_mib - has_mib)
        )

    def _room(self, states: _States) -> dict[str, int]:
        room = {device.id: device.capacity_mib for device in self.devices}
        for one in self.others:
            for device, size_mib in _taken(one, states[one.model_id]).items():
                if device in room:
                    room[device] -= size_mib
        return room


def _taken(one: Occupant, state: _State) -> Share:
    if state is _State.ENDS:
        return {}
    return (one.keeps or {}) if state is _State.SLEEPS or one.is_asleep else one.uses


_Split = tuple[str, Shape, tuple[str, ...]]  # a model whose total is divided among these devices


def _put(
    wanted: Sequence[Wanted], room: Mapping[str, int], where: Mapping[str, Share], splits: tuple[_Split, ...]
) -> dict[str, Share] | None:
    """Place the models depth-first. Candidates are in order of preference, so the first result is the preferred one;
    what can be divided in any ratio is divided last.
    """
    if not wanted:
        return _divide_all(splits, room, where)
    first, *rest = wanted
    for use, shape in _candidates(first, room):
        left = {device: size_mib - use.get(device, 0) for device, size_mib in room.items()}
        if min(left.values()) < 0 or not use.keys() <= room.keys():
            continue
        more = (*splits, (first.model_id, shape, tuple(use))) if shape else splits
        if any(sum(max(0, left[device]) for device in among) < one.total_mib for _, one, among in more):
            continue
        found = _put(rest, left, {**where, first.model_id: dict(use)}, more)
        if found is not None:
            return found
    return None


def _candidates(wanted: Wanted, room: Mapping[str, int]) -> Iterator[tuple[Share, Shape | None]]:
    """Yield the shares that a model may get; with a shape if its total is still to be divided."""
    if wanted.at is not None:
        yield wanted.at, None  # a wake is faster than a start
    for shape in wanted.shapes:
        # The fullest devices that hold it, so that the largest hole is left for a large model.
        usable = room if wanted.devices is None else wanted.devices & room.keys()
        fullest = sorted(usable, key=lambda device: (room[device], device))
        among = sorted(combinations(fullest, shape.count), key=lambda ids: (sum(room[one] for one in ids), ids))
        for devices in among:
            yield dict.fromkeys(devices, shape.each_mib), shape if shape.total_mib else None


def _divide_all(
    splits: tuple[_Split, ...], room: Mapping[str, int], where: Mapping[str, Share]
) -> dict[str, Share] | None:
    placed, left = dict(where), dict(room)
    for model_id, shape, devices in sorted(splits, key=lambda split: (len(split[2]), split[0])):
        free = {device: left[device] for device in devices}
        if sum(free.values()) < shape.total_mib or min(free.values()) < 1:
            return None
        parts = _divide(shape.total_mib, free)
        for device, size_mib in parts.items():
            left[device] -= size_mib
        placed[model_id] = {device: size_mib + shape.each_mib for device, size_mib in parts.items()}
    return placed


def _divide(total_mib: int, free: Mapping[str, int]) -> dict[str, int]:
    """Divide in proportion to what is free, as llama.cpp divides layers; the devices with most room get the rest."""
    whole = sum(free.values())
    use = {device: total_mib * size_mib // whole for device, size_mib in free.items()}
    rest = total_mib - sum(use.values())
    for device in sorted(free, key=lambda one: (use[one] - free[one], one)):
        step = min(rest, free[device] - use[device])
        use[device] += step
        rest -= step
    return use
