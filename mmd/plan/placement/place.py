"""Decide on which devices models are placed, and which other models are unloaded for them, the leavers.

The first question is whether the wanted models fit beside those that stay. The search is depth-first and exact, since
few models are wanted and machines have few devices. The second question is which models leave. If a set of leavers
makes room, every larger set does, too. So all may leave at first; then each model stays, the most important first, if
the wanted models still fit. This finds the best set with one test per model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import combinations

from mmd.plan.share import Share, less
from mmd.quantities import MIB, size_text


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU, or the RAM for models that run on the CPU."""

    id: str
    capacity_mib: int  # total, less the memory of other programs and the margin


def capacities(devices: Iterable[Device]) -> dict[str, int]:
    """Return the capacity of each device in MiB."""
    return {device.id: device.capacity_mib for device in devices}


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to run a model: on `count` devices with `each_mib` on each.

    In addition, `total_mib` is divided among them in any ratio (llama.cpp's layers).
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
    at: Share | None = None  # where it sleeps: it wakes there, with this size; elsewhere its engine is started
    devices: frozenset[str] | None = None  # the only devices that it can use; None: any
    grows: bool = False  # it takes what its device has left, so it avoids devices of other growing models


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
    is_dead: bool = False  # its engine has failed, and its token is still active: it leaves first
    is_lease: bool = False  # nothing unloads it
    grows: bool = False  # as in `Wanted`

    @property
    def holds(self) -> Share:
        """Return what it holds now."""
        return (self.keeps or {}) if self.is_asleep else self.uses

    def may_leave(self, *, evicts: bool = True, by_user: bool = False) -> bool:
        return self.is_dead or (evicts and not self.is_lease and (by_user or not self.pinned))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the wanted models are placed, and which models leave for them."""

    where: Mapping[str, Share]
    sleep: tuple[str, ...]  # leavers that are put to sleep
    end: tuple[str, ...]  # leavers that are stopped: they cannot sleep, or what they keep asleep is needed, too
    why: Mapping[str, str] = field(default_factory=dict)  # leaver -> reason


@dataclass(frozen=True, slots=True)
class CannotPlace:
    """Why the wanted models do not fit, even if all models leave that may leave."""

    why: str  # what they need, what the devices have, and what stays, with sizes
    short_mib: int  # the least that is needed in addition


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
    one_each: bool = False,
) -> Placement | CannotPlace:
    """Place the wanted models. If `evicts` is false, no model leaves; `by_user` unloads pinned models, too.

    With `one_each` a device has one resident model, beside leases and models that sleep.
    """
    names = {one.model_id for one in wanted}
    others = sorted((one for one in occupants if one.model_id not in names), key=_importance)
    ordered = sorted(devices, key=lambda device: device.id)
    search = _Search(sorted(wanted, key=_largest_first), others, ordered, one_each)
    fixed = {one.model_id for one in others if not one.may_leave(evicts=evicts, by_user=by_user)}
    movable = [one for one in others if one.model_id not in fixed]
    states = {one.model_id: _State.STAYS if one.model_id in fixed else _State.ENDS for one in others}
    where = search.fits(states)
    if where is None:
        return search.refusal(states)
    # First, let engines that can sleep keep their sleep memory if possible. Then, let each model stay if possible.
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
    leaving = (one for one in others if one.model_id in (*sleep, *end))
    why = {one.model_id: _reason(one, states[one.model_id], one_each=one_each) for one in leaving}
    return Placement(where, sleep, end, why)


def _importance(one: Occupant) -> tuple[bool, bool, bool, bool, float, str]:
    return (not one.is_dead, one.is_lease, one.pinned, one.in_use, one.last_used, one.model_id)


def _largest_first(wanted: Wanted) -> tuple[int, str]:
    return -max(shape.total_mib or shape.count * shape.each_mib for shape in wanted.shapes), wanted.model_id


def _reason(one: Occupant, state: _State, *, one_each: bool) -> str:
    """Return why a model leaves: the end of "X was unloaded for Y: …"."""
    if one.is_dead:
        return "its engine has failed"
    kept_mib = sum((one.keeps or {}).values())
    if one.is_asleep:
        return f"the {_size(kept_mib)} that it keeps asleep are needed"
    if one_each:
        return "a device has one model at a time"
    frees_mib = sum(one.uses.values()) - (kept_mib if state is _State.SLEEPS else 0)
    if one.pinned:
        return f"its {_size(frees_mib)} are needed; it is pinned, but you asked for the other one"
    if one.in_use:
        return f"in use, but without its {_size(frees_mib)} the memory of idle models is not enough"
    return f"the least recently used whose memory is enough: {_size(frees_mib)}"


@dataclass(frozen=True, slots=True)
class _Search:
    wanted: Sequence[Wanted]
    others: Sequence[Occupant]
    devices: Sequence[Device]
    one_each: bool

    def fits(self, states: _States) -> dict[str, Share] | None:
        """Return where the wanted models fit if the others are in these states; None if they do not."""
        room = self._room(states)
        if min(room.values(), default=0) < 0:
            return None
        if self.one_each:
            taken = self._resident_on(states)
            room = {device: size_mib for device, size_mib in room.items() if device not in taken}
        return _put(self.wanted, room, {}, (), one_each=self.one_each, grown_on=self._resident_on(states, grown=True))

    def refusal(self, states: _States) -> CannotPlace:
        usable = {device.id for device in self.devices if any(_can_use(one, device.id) for one in self.wanted)}
        room = {device: max(0, size_mib) for device, size_mib in self._room(states).items() if device in usable}
        staying = [one for one in self.others if states[one.model_id] is _State.STAYS]
        if self.one_each:
            taken = self._resident_on(states)
            room = {device: size_mib for device, size_mib in room.items() if device not in taken}
        if self.one_each and len(self.wanted) > len(room):
            return _one_each_refusal(self.wanted, room, [one for one in staying if _is_resident(one, _State.STAYS)])
        return _refusal(self.wanted, room, staying)

    def _resident_on(self, states: _States, *, grown: bool = False) -> frozenset[str]:
        """Return the devices of models that stay resident; with `grown` only of those that grow."""
        staying = (one for one in self.others if _is_resident(one, states[one.model_id]))
        return frozenset(device for one in staying if one.grows or not grown for device in one.uses)

    def _room(self, states: _States) -> dict[str, int]:
        return less(capacities(self.devices), *(_taken(one, states[one.model_id]) for one in self.others))


def _taken(one: Occupant, state: _State) -> Share:
    if state is _State.ENDS:
        return {}
    return (one.keeps or {}) if state is _State.SLEEPS or one.is_asleep else one.uses


def _refusal(wanted: Sequence[Wanted], room: Mapping[str, int], staying: Iterable[Occupant]) -> CannotPlace:
    """Say what the models need, what their devices have left (`room`), and what stays there."""
    needs = sorted((one.model_id, min(shape.size_mib for shape in one.shapes)) for one in wanted)
    needs_mib, has_mib = sum(size_mib for _, size_mib in needs), sum(room.values())
    if len(needs) == 1:
        need = f"{needs[0][0]} needs {_size(needs_mib)}"
    else:
        parts = " + ".join(f"{_size(size_mib)} for {model_id}" for model_id, size_mib in needs)
        need = f"{' and '.join(model_id for model_id, _ in needs)} need {_size(needs_mib)} ({parts})"
    has = " and ".join(f"{_size(size_mib)} of {device}" for device, size_mib in sorted(room.items())) or "no device"
    held = [(sum(size_mib for device, size_mib in one.holds.items() if device in room), one) for one in staying]
    stay = "".join(
        f"; {_stays(one)} holds {_size(size_mib)}"
        for size_mib, one in sorted(held, key=lambda pair: (-pair[0], pair[1].model_id))
        if size_mib
    )
    short_mib = max(needs_mib - has_mib, *(_short_mib(one, room) for one in wanted), 1)
    return CannotPlace(f"{need}, and models can have {has}{stay}", short_mib)


def _one_each_refusal(wanted: Sequence[Wanted], room: Mapping[str, int], staying: Sequence[Occupant]) -> CannotPlace:
    """Say which devices the models can have, and what stays on the others."""
    names = " and ".join(sorted(one.model_id for one in wanted))
    devices = ", ".join(sorted(room)) or "no device"
    why = f'{names}: with residency = "one" each model needs a device to itself, and there is {devices}'
    if staying:
        why += f" beside {', '.join(sorted(one.model_id for one in staying))}"
    return CannotPlace(why, max(1, sum(min(shape.size_mib for shape in one.shapes) for one in wanted)))


def _short_mib(wanted: Wanted, room: Mapping[str, int]) -> int:
    """Return the MiB that one model alone lacks, in its best shape."""
    largest = sorted((size_mib for device, size_mib in room.items() if _can_use(wanted, device)), reverse=True)
    short = []
    for shape in wanted.shapes:
        has = [*largest, *([0] * shape.count)][: shape.count]
        each_short_mib = sum(max(0, shape.each_mib - size_mib) for size_mib in has)
        short.append(max(each_short_mib, shape.size_mib - sum(has)))
    return min(short)


def _stays(one: Occupant) -> str:
    _, is_lease, lease = one.model_id.partition("@")  # as in plan/lease.py
    if is_lease:
        return f"the lease {lease}"
    return f"{one.model_id}, which is pinned," if one.pinned else one.model_id


def _size(size_mib: int) -> str:
    return size_text(size_mib * MIB)


def _can_use(wanted: Wanted, device: str) -> bool:
    return wanted.devices is None or device in wanted.devices


def _is_resident(one: Occupant, state: _State) -> bool:
    return state is _State.STAYS and not one.is_asleep and not one.is_lease


Split = tuple[str, Shape, tuple[str, ...]]  # a model whose total is divided among these devices


def _put(
    wanted: Sequence[Wanted],
    room: Mapping[str, int],
    where: Mapping[str, Share],
    splits: tuple[Split, ...],
    *,
    one_each: bool = False,
    grown_on: frozenset[str] = frozenset(),
) -> dict[str, Share] | None:
    """Place the models depth-first. Candidates are in order of preference, so the first result is the preferred one.
    Totals that may have any ratio are divided last.
    """
    if not wanted:
        return divide_splits(splits, room, where)
    first, *rest = wanted
    used = {device for use in where.values() for device in use} if one_each else set()
    for use, shape in _candidates(first, room, grown_on if first.grows else frozenset()):
        left = {device: size_mib - use.get(device, 0) for device, size_mib in room.items()}
        if min(left.values(), default=0) < 0 or not use.keys() <= room.keys() - used:
            continue
        more = (*splits, (first.model_id, shape, tuple(use))) if shape else splits
        if any(sum(max(0, left[device]) for device in among) < one.total_mib for _, one, among in more):
            continue
        grown = grown_on | use.keys() if first.grows else grown_on
        found = _put(rest, left, {**where, first.model_id: dict(use)}, more, one_each=one_each, grown_on=grown)
        if found is not None:
            return found
    return None


def _candidates(
    wanted: Wanted, room: Mapping[str, int], avoided: frozenset[str]
) -> Iterator[tuple[Share, Shape | None]]:
    """Yield the shares that a model may get; with a shape if its total is still to be divided."""
    if wanted.at is not None:
        yield wanted.at, None  # a wake is faster than a start
    usable = room.keys() if wanted.devices is None else wanted.devices & room.keys()

    def preference(ids: tuple[str, ...]) -> tuple[int, int, tuple[str, ...]]:
        # Choose the fullest devices that hold it, so that the largest free space is left for a large model.
        return len(avoided.intersection(ids)), sum(room[one] for one in ids), ids

    fullest = sorted(usable, key=lambda device: (room[device], device))
    for shape in wanted.shapes:
        for devices in sorted(combinations(fullest, shape.count), key=preference):
            yield dict.fromkeys(devices, shape.each_mib), shape if shape.total_mib else None


def divide_splits(
    splits: tuple[Split, ...], room: Mapping[str, int], where: Mapping[str, Share]
) -> dict[str, Share] | None:
    """Return `where` with the divided totals added to the shares of split models; None if they do not fit."""
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
