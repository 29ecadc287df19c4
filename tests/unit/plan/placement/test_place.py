"""Placement against brute force over every state of every other model, and what it says to people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmd.plan.placement.place import CannotPlace, Device, Occupant, Placement, Shape, Wanted, place
from mmd.plan.share import Share

A, B, C = "GPU-a", "GPU-b", "GPU-c"


# --- random machines


@dataclass(frozen=True, slots=True)
class Case:
    wanted: tuple[Wanted, ...]
    occupants: tuple[Occupant, ...]
    devices: tuple[Device, ...]
    evicts: bool
    by_user: bool
    one_each: bool

    def placed(self) -> Placement | CannotPlace:
        return place(
            self.wanted,
            self.occupants,
            self.devices,
            evicts=self.evicts,
            by_user=self.by_user,
            one_each=self.one_each,
        )

    @property
    def others(self) -> list[Occupant]:
        names = {one.model_id for one in self.wanted}
        return [one for one in self.occupants if one.model_id not in names]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    sizes = draw(st.lists(st.sampled_from((8, 12, 16, 24)), min_size=1, max_size=3))
    devices = tuple(Device(name, size) for name, size in zip((A, B, C), sizes, strict=False))
    occupants = _occupants(draw, {device.id: device.capacity_mib for device in devices})
    wanted = [_wanted(draw, number, devices) for number in range(draw(st.integers(1, 3)))]
    sleepers = [one for one in occupants if one.is_asleep]
    wakes = draw(st.booleans())
    if sleepers and wakes:
        one = sleepers[0]
        wanted[0] = Wanted(one.model_id, (Shape(len(one.uses), max(one.uses.values())),), at=one.uses)
    return Case(
        tuple(wanted),
        tuple(occupants),
        devices,
        evicts=draw(st.integers(0, 5)) > 0,
        by_user=draw(st.booleans()),
        one_each=draw(st.integers(0, 3)) == 0,
    )


def _occupants(draw: st.DrawFn, room: dict[str, int]) -> list[Occupant]:
    """Return models and leases that fit on the devices as they are now."""
    found = []
    for number in range(draw(st.integers(0, 5))):
        count = draw(st.integers(1, min(2, len(room))))
        names = draw(st.permutations(sorted(room)))[:count]
        uses = dict.fromkeys(names, draw(st.integers(1, 9)))
        keeps = dict.fromkeys(names, draw(st.integers(0, 1))) if draw(st.booleans()) else None
        is_lease, is_dead = draw(st.integers(0, 6)) == 0, draw(st.integers(0, 9)) == 0
        is_asleep = keeps is not None and not is_lease and draw(st.booleans())
        one = Occupant(
            f"o{number}",
            uses,
            None if is_lease else keeps,
            is_asleep=is_asleep,
            last_used=draw(st.integers(1, 5)),
            pinned=draw(st.integers(0, 4)) == 0,
            in_use=not is_asleep and draw(st.booleans()),
            is_dead=is_dead and not is_asleep and not is_lease,
            is_lease=is_lease,
            grows=draw(st.booleans()),
        )
        if all(room[device] >= size for device, size in one.holds.items()):
            for device, size in one.holds.items():
                room[device] -= size
            found.append(one)
    return found


def _wanted(draw: st.DrawFn, number: int, devices: Sequence[Device]) -> Wanted:
    size = draw(st.integers(1, 14))
    shapes = [Shape(1, size)]
    match draw(st.integers(0, 3)) if len(devices) > 1 else 0:
        case 1:
            shapes.append(Shape(2, size // 2 + 1))
        case 2:
            shapes.append(Shape(2, 1, size))
        case 3:
            shapes = [Shape(2, 1, size)]
        case _:
            pass
    usable = None
    if draw(st.integers(0, 5)) == 0:
        usable = frozenset(device.id for device in devices[:1])
    return Wanted(f"w{number}", tuple(shapes), devices=usable, grows=draw(st.booleans()))


# --- brute force


def ways(one: Wanted, devices: Sequence[str]) -> Iterator[tuple[Share, Shape | None]]:
    """Yield every share of a model; with the shape if its total may be divided in any ratio."""
    if one.at is not None:
        yield one.at, None
    for shape in one.shapes:
        for names in combinations(sorted(devices), shape.count):
            if one.devices is None or one.devices.issuperset(names):
                yield dict.fromkeys(names, shape.each_mib), shape if shape.total_mib else None


def fits(case: Case, room: Mapping[str, int], taken: set[str]) -> bool | None:
    """True if the wanted models fit; None if several of them are divided, which is not judged."""
    if min(room.values()) < 0:
        return False
    unsure = False
    for choice in product(*(list(ways(one, list(room))) for one in case.wanted)):
        used = [device for share, _ in choice for device in share]
        if case.one_each and (taken.intersection(used) or len(used) != len(set(used))):
            continue
        left = dict(room)
        for share, _ in choice:
            for device, size in share.items():
                left[device] -= size
        splits = [(share, shape) for share, shape in choice if shape is not None]
        if min(left.values()) < 0:
            continue
        if not splits:
            return True
        if len(splits) == 1:
            ((share, shape),) = splits
            if min(left[device] for device in share) >= 1 and sum(left[device] for device in share) >= shape.total_mib:
                return True
        else:
            unsure = True
    return None if unsure else False


def room_beside(case: Case, states: Mapping[str, str]) -> tuple[dict[str, int], set[str]]:
    """Return what is left beside the others in these states, and the devices that have a resident model."""
    room = {device.id: device.capacity_mib for device in case.devices}
    taken: set[str] = set()
    for one in case.others:
        match states[one.model_id]:
            case "ends":
                continue
            case "sleeps":
                share = one.keeps or {}
            case _:
                share = one.holds
                if not one.is_asleep and not one.is_lease:
                    taken.update(one.uses)
        for device, size in share.items():
            room[device] -= size
    return room, taken


def states_after(case: Case, found: Placement) -> dict[str, str]:
    return {
        one.model_id: "sleeps" if one.model_id in found.sleep else "ends" if one.model_id in found.end else "stays"
        for one in case.others
    }


def possible_states(case: Case, one: Occupant) -> list[str]:
    if one.is_dead:
        return ["ends"]
    if one.is_lease or not case.evicts or (one.pinned and not case.by_user):
        return ["stays"]
    if one.is_asleep:
        return ["stays", "ends"]
    return ["stays", *(["sleeps"] if one.keeps is not None else []), "ends"]


def importance(one: Occupant) -> tuple[object, ...]:
    return one.is_lease, one.pinned, one.in_use, one.last_used, one.model_id


def cost(case: Case, states: Mapping[str, str]) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Return whose engine ends though it could sleep, then who leaves, the most important first."""
    ordered = sorted((one for one in case.others if not one.is_dead), key=importance, reverse=True)
    ends = tuple(states[one.model_id] == "ends" and one.keeps is not None for one in ordered)
    leaves = tuple(states[one.model_id] != "stays" and not one.is_asleep for one in ordered)
    return ends, leaves


@settings(deadline=None, max_examples=400)
@given(cases())
def test_placement_is_the_best_there_is(case: Case) -> None:
    """The least important leave, as few as possible; a model that fits is never refused."""
    found = case.placed()
    names = [one.model_id for one in case.others]
    best, is_judged = None, True
    for choice in product(*(possible_states(case, one) for one in case.others)):
        states = dict(zip(names, choice, strict=True))
        fit = fits(case, *room_beside(case, states))
        is_judged = is_judged and fit is not None
        if fit:
            best = min(best or cost(case, states), cost(case, states))
    if isinstance(found, CannotPlace):
        assert best is None
        assert found.short_mib > 0
        assert all(one.model_id in found.why for one in case.wanted)
    elif is_judged:
        assert cost(case, states_after(case, found)) == best


@settings(deadline=None, max_examples=400)
@given(cases())
def test_placement_keeps_the_rules(case: Case) -> None:
    found = case.placed()
    if isinstance(found, CannotPlace):
        return
    room, taken = room_beside(case, states_after(case, found))
    for share in found.where.values():
        for device, size in share.items():
            room[device] -= size
            if case.one_each:
                assert device not in taken, "it has a resident model"
                taken.add(device)
    assert min(room.values()) >= 0, "over capacity"
    assert found.where.keys() == {one.model_id for one in case.wanted}
    assert all(_is_of(one, found.where[one.model_id]) for one in case.wanted)
    leaving = {*found.sleep, *found.end}
    for one in case.others:
        if one.is_dead:
            assert one.model_id in found.end
        elif one.is_lease or not case.evicts or (one.pinned and not case.by_user):
            assert one.model_id not in leaving
        if one.model_id in found.sleep:
            assert one.keeps is not None
            assert not one.is_asleep
    assert found.why.keys() == leaving
    assert all(found.why.values())


def _is_of(one: Wanted, share: Share) -> bool:
    if one.at is not None and share == one.at:
        return True
    if one.devices is not None and not one.devices.issuperset(share):
        return False
    return any(_has_shape(share, shape) for shape in one.shapes)


def _has_shape(share: Share, shape: Shape) -> bool:
    if len(share) != shape.count or min(share.values()) < shape.each_mib:
        return False
    return sum(share.values()) == shape.size_mib and bool(shape.total_mib or len(set(share.values())) == 1)


@settings(deadline=None)
@given(cases(), st.randoms())
def test_order_of_the_input_does_not_matter(case: Case, random: Random) -> None:
    other = replace(
        case,
        wanted=tuple(random.sample(case.wanted, len(case.wanted))),
        occupants=tuple(random.sample(case.occupants, len(case.occupants))),
        devices=tuple(random.sample(case.devices, len(case.devices))),
    )
    assert other.placed() == case.placed()


# --- single decisions


def one_gpu(size_mib: int, *occupants: Occupant, capacity_mib: int = 24000, **more: bool) -> Placement | CannotPlace:
    return place([Wanted("new", (Shape(1, size_mib),))], occupants, [Device(A, capacity_mib)], **more)


def leavers(found: Placement | CannotPlace) -> tuple[tuple[str, ...], tuple[str, ...]]:
    assert isinstance(found, Placement), found
    return found.sleep, found.end


def test_what_fits_beside_others_unloads_nothing() -> None:
    assert leavers(one_gpu(10000, Occupant("old", {A: 14000}))) == ((), ())


def test_least_recently_used_leaves_first() -> None:
    old, new = Occupant("old", {A: 10000}, last_used=1), Occupant("recent", {A: 10000}, last_used=2)
    assert leavers(one_gpu(10000, old, new)) == ((), ("old",))


def test_smaller_model_stays_if_a_less_important_one_is_enough() -> None:
    embed = Occupant("embed", {A: 1000}, last_used=1)
    chat = Occupant("chat", {A: 14000}, last_used=2)
    assert leavers(one_gpu(14000, embed, chat)) == ((), ("chat",)), "without chat it fits, without embed it does not"


def test_model_in_use_leaves_last() -> None:
    busy, idle = Occupant("busy", {A: 10000}, last_used=1, in_use=True), Occupant("idle", {A: 10000}, last_used=9)
    assert leavers(one_gpu(10000, busy, idle)) == ((), ("idle",))


def test_dead_model_leaves_even_where_no_other_may() -> None:
    dead = Occupant("dead", {A: 20000}, is_dead=True)
    assert leavers(one_gpu(10000, dead, evicts=False)) == ((), ("dead",))


def test_engine_ends_only_if_what_it_keeps_is_needed() -> None:
    old = Occupant("old", {A: 14000}, {A: 1280})
    assert leavers(one_gpu(20000, old)) == (("old",), ())
    assert leavers(one_gpu(23000, old)) == ((), ("old",))


def test_least_recently_used_sleeper_ends_first() -> None:
    sleepers = [
        Occupant(name, {A: 14000}, {A: 1280}, is_asleep=True, last_used=used) for name, used in (("a", 2), ("b", 1))
    ]
    assert leavers(one_gpu(22000, *sleepers)) == ((), ("b",))


def test_sleeper_of_another_device_is_left_alone() -> None:
    asleep = Occupant("asleep", {B: 14000}, {B: 1280}, is_asleep=True)
    found = place([Wanted("new", (Shape(1, 20000),))], [asleep], [Device(A, 24000), Device(B, 24000)])
    assert leavers(found) == ((), ())
    assert isinstance(found, Placement)
    assert found.where == {"new": {B: 20000}}, "the fullest device that holds it"


def test_strict_rule_lets_a_sleeper_and_a_lease_stay() -> None:
    asleep = Occupant("asleep", {A: 14000}, {A: 1280}, is_asleep=True)
    lease = Occupant("lease@job", {A: 2000}, is_lease=True)
    light = Occupant("light", {A: 1000})
    assert leavers(one_gpu(10000, asleep, lease, light, one_each=True)) == ((), ("light",))


def test_strict_rule_gives_each_wanted_model_a_device() -> None:
    wanted = [Wanted("a", (Shape(1, 1000),)), Wanted("b", (Shape(1, 1000),))]
    found = place(wanted, [], [Device(A, 24000), Device(B, 24000)], one_each=True)
    assert isinstance(found, Placement)
    assert {*found.where["a"], *found.where["b"]} == {A, B}
    assert isinstance(place(wanted, [], [Device(A, 24000)], one_each=True), CannotPlace)


def test_growing_models_of_a_set_avoid_each_other() -> None:
    wanted = [Wanted(name, (Shape(1, 1000),), grows=name != "light") for name in ("a", "b", "light")]
    found = place(wanted, [], [Device(A, 24000), Device(B, 24000)])
    assert isinstance(found, Placement)
    assert found.where["a"].keys() != found.where["b"].keys()


def test_growing_model_avoids_one_that_has_grown() -> None:
    devices = [Device(A, 24000), Device(B, 24000)]
    first = Occupant("first", {A: 10000}, grows=True)
    for grows, device in ((True, B), (False, A)):
        found = place([Wanted("new", (Shape(1, 10000),), grows=grows)], [first], devices)
        assert isinstance(found, Placement)
        assert found.where["new"] == {device: 10000}


# --- messages


@pytest.mark.parametrize(
    ("one", "size_mib", "why"),
    [
        (Occupant("old", {A: 10240}), 20000, "the least recently used whose memory is enough: 10.0 GiB"),
        (
            Occupant("old", {A: 10240}, in_use=True),
            20000,
            "in use, but without its 10.0 GiB the memory of idle models is not enough",
        ),
        (
            Occupant("old", {A: 10240}, {A: 1024}),
            20000,
            "the least recently used whose memory is enough: 9.0 GiB",
        ),
        (
            Occupant("old", {A: 10240}, pinned=True),
            20000,
            "its 10.0 GiB are needed; it is pinned, but you asked for the other one",
        ),
        (Occupant("old", {A: 10240}, is_dead=True), 1000, "its engine has failed"),
        (
            Occupant("old", {A: 10240}, {A: 1280}, is_asleep=True),
            23500,
            "the 1.2 GiB that it keeps asleep are needed",
        ),
    ],
    ids=["idle", "in use", "sleeps", "pinned", "dead", "asleep"],
)
def test_reason_of_each_that_leaves(one: Occupant, size_mib: int, why: str) -> None:
    found = one_gpu(size_mib, one, by_user=True)
    assert isinstance(found, Placement)
    assert found.why == {"old": why}


def test_refusal_has_the_sizes_by_part() -> None:
    lease = Occupant("lease@job", {A: 4096}, is_lease=True)
    pinned = Occupant("bge-m3", {A: 2048}, pinned=True)
    found = one_gpu(20480, lease, pinned, capacity_mib=24 * 1024)
    assert found == CannotPlace(
        "new needs 20.0 GiB, and models can have 18.0 GiB of GPU-a; the lease job holds 4.0 GiB; "
        "bge-m3, which is pinned, holds 2.0 GiB",
        2048,
    )


def test_refusal_of_a_set_names_each_part() -> None:
    wanted = [Wanted("chat", (Shape(1, 20480),)), Wanted("embed", (Shape(1, 2048),))]
    found = place(wanted, [], [Device(A, 20480)])
    assert found == CannotPlace(
        "chat and embed need 22.0 GiB (20.0 GiB for chat + 2.0 GiB for embed), and models can have 20.0 GiB of GPU-a",
        2048,
    )


def test_refusal_counts_only_devices_that_the_model_can_use() -> None:
    wanted = Wanted("new", (Shape(1, 10240),), devices=frozenset({A}))
    found = place([wanted], [], [Device(A, 8192), Device("ram", 65536)])
    assert found == CannotPlace("new needs 10.0 GiB, and models can have 8.0 GiB of GPU-a", 2048)


def test_refusal_under_the_strict_rule_names_the_rule() -> None:
    wanted = [Wanted("chat", (Shape(1, 20480),)), Wanted("embed", (Shape(1, 2048),))]
    found = place(wanted, [], [Device(A, 24000)], one_each=True)
    assert isinstance(found, CannotPlace)
    assert found.why == (
        'chat and embed: with residency = "one" each model needs a device to itself, and there is GPU-a'
    )
    pinned = place(wanted[1:], [Occupant("pin", {A: 1000}, pinned=True)], [Device(A, 24000)], one_each=True)
    assert isinstance(pinned, CannotPlace)
    assert "there is no device" in pinned.why


def test_refusal_of_one_model_is_not_about_the_sum_of_devices() -> None:
    found = place([Wanted("new", (Shape(1, 14336),))], [], [Device(A, 10240), Device(B, 12288)])
    assert isinstance(found, CannotPlace)
    assert found.short_mib == 2048
    assert found.why.endswith("models can have 10.0 GiB of GPU-a and 12.0 GiB of GPU-b")
