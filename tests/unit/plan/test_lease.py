"""Where a lease is placed, who leaves for it, and how a refusal reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.plan.lease import LeasePair, LeaseState, is_valid_name, lease_id, lease_name, new_name
from mmd.plan.placement.lease_place import LeaseRequest, lease_occupants, place_lease, place_on_all_gpus, refusal
from mmd.plan.placement.occupancy import held, occupancy
from mmd.plan.placement.place import CannotPlace, Device, Occupant, Placement
from mmd.plan.residency import UnitState
from mmd.plan.share import RAM

BIG, SMALL = Device("GPU-big", 24000), Device("GPU-small", 16000)
CHAT = Occupant("chat", {"GPU-big": 14000}, keeps={"GPU-big": 1200}, last_used=5.0)
EMBED = Occupant("embed", {"GPU-big": 1000}, last_used=1.0)
SPEECH = Occupant("speech", {"GPU-small": 2000}, last_used=9.0)
LEASE = Occupant(lease_id("game"), {"GPU-big": 10000}, is_lease=True)


def placed(*occupants: Occupant, size_mib: int | None = None, device: str | None = None, **how: bool) -> Placement:
    found = place_lease(LeaseRequest("job", size_mib, device), occupants, [BIG, SMALL, Device(RAM, 60000)], **how)
    assert isinstance(found, Placement), found
    return found


def test_lease_evicts_no_model_when_it_fits() -> None:
    found = placed(CHAT, EMBED, SPEECH, size_mib=9000)
    assert (found.sleep, found.end) == ((), ())
    assert found.where == {"lease@job": {"GPU-big": 9000}}, "the fullest device that holds it"


def test_lease_evicts_the_least_important_model() -> None:
    found = placed(CHAT, EMBED, SPEECH, size_mib=15000)
    assert (found.sleep, found.end) == (("chat",), ()), "speech was used last, and embed is in nobody's way"
    assert found.where == {"lease@job": {"GPU-big": 15000}}


def test_whole_device_is_the_one_that_costs_least() -> None:
    assert placed(CHAT, EMBED).where == {"lease@job": {"GPU-small": 16000}}, "nothing is on it"
    assert placed().where == {"lease@job": {"GPU-big": 24000}}, "the largest of the empty ones"
    both = placed(CHAT, EMBED, SPEECH)
    assert both.where == {"lease@job": {"GPU-big": 24000}}, "speech was used last"
    assert (both.sleep, both.end) == ((), ("chat", "embed")), "all of the device: what chat keeps asleep, too"


def test_device_that_is_named_is_taken() -> None:
    assert placed(SPEECH, device="GPU-small").end == ("speech",)
    with pytest.raises(AssertionError, match="no device GPU-none"):
        placed(device="GPU-none", size_mib=1)


def test_machine_without_a_gpu_leases_its_ram() -> None:
    found = place_lease(LeaseRequest("job", 8000), [Occupant("a", {RAM: 9000})], [Device(RAM, 16000)])
    assert isinstance(found, Placement)
    assert (found.where, found.end) == ({"lease@job": {RAM: 8000}}, ("a",))
    beside = placed(size_mib=20000)
    assert beside.where == {"lease@job": {"GPU-big": 20000}}, "not the RAM of a machine with GPUs"


def test_neither_leases_nor_pins_leave_by_themselves() -> None:
    pinned = Occupant("chat", {"GPU-big": 14000}, pinned=True)
    devices = [BIG]
    refused = place_lease(LeaseRequest("job", 12000), [pinned], devices)
    assert isinstance(refused, CannotPlace)
    assert isinstance(place_lease(LeaseRequest("job", 12000), [pinned], devices, by_user=True), Placement)
    assert isinstance(place_lease(LeaseRequest("job", 20000), [LEASE], devices, by_user=True), CannotPlace)


def test_refusal_says_who_holds_what_and_how_to_free_it() -> None:
    occupants = [LEASE, CHAT]
    request = LeaseRequest("job", 20000)
    refused = place_lease(request, occupants, [BIG])
    assert isinstance(refused, CannotPlace)
    message, hint = refusal(request, refused, occupants, [BIG])
    assert message == (
        "the lease job (19.5 GiB) does not fit: 5.9 GiB more are needed; the lease game has 10000 MiB of GPU-big"
    )
    assert hint == "mmd lease end game"
    pinned = Occupant("chat", {"GPU-big": 14000}, pinned=True)
    assert refusal(request, refused, [pinned], [BIG])[1] == "mmd sleep chat   # it is pinned"


def test_refusal_names_only_what_is_in_the_way() -> None:
    """Its hint used to end a lease on another GPU, or a pinned model that the lease would have unloaded."""
    pinned = Occupant("chat", {"GPU-small": 8000}, pinned=True)
    occupants, devices = [LEASE, pinned], [BIG, SMALL]
    on_small = LeaseRequest("job", 20000, "GPU-small")
    refused = place_lease(on_small, occupants, devices)
    assert isinstance(refused, CannotPlace)
    message, hint = refusal(on_small, refused, occupants, devices)
    assert ("game" in message, hint) == (False, "mmd sleep chat   # it is pinned")
    message, hint = refusal(on_small, refused, occupants, devices, by_user=True)
    assert ("chat" in message, hint) == (False, "mmd status   # the memory of each device")


def test_game_takes_what_models_can_leave() -> None:
    pinned = Occupant("pinned", {"GPU-small": 6000}, pinned=True)
    asleep = Occupant("asleep", {"GPU-big": 9000}, keeps={"GPU-big": 800}, is_asleep=True)
    on_the_cpu = Occupant("cpu", {RAM: 3000})
    found = place_on_all_gpus(
        "games", [CHAT, EMBED, asleep, pinned, LEASE, on_the_cpu], [BIG, SMALL, Device(RAM, 9000)]
    )
    assert found is not None
    assert found.where == {"lease@games": {"GPU-big": 24000 - 10000 - 1200 - 800, "GPU-small": 10000}}
    assert (found.sleep, found.end) == (("chat",), ("embed",))
    full = Occupant(lease_id("all"), {"GPU-big": 24000}, is_lease=True)
    assert place_on_all_gpus("games", [full], [BIG]) is None


sizes = st.integers(0, 9000)
occupants = st.lists(
    st.builds(
        Occupant,
        st.sampled_from(["a", "b", "c", "d", "lease@x"]),
        st.dictionaries(st.sampled_from(["GPU-big", "GPU-small"]), sizes, min_size=1),
        st.none() | st.just({"GPU-big": 500}),
        pinned=st.booleans(),
        last_used=st.floats(0, 9),
    ),
    max_size=4,
    unique_by=lambda one: one.model_id,
)


@given(occupants, st.none() | st.integers(1, 26000), st.sampled_from([None, "GPU-big", "GPU-small"]))
def test_leases_never_take_more_than_the_device_has(
    present: list[Occupant], size_mib: int | None, device: str | None
) -> None:
    found = place_lease(LeaseRequest("job", size_mib, device), present, [BIG, SMALL])
    if isinstance(found, CannotPlace):
        return
    ((where, taken),) = found.where["lease@job"].items()
    assert device in (None, where)
    gone = {*found.sleep, *found.end}
    assert not {one.model_id for one in present if one.pinned} & gone
    rest = [
        (one.keeps or {}) if one.model_id in found.sleep else one.uses
        for one in present
        if one.model_id not in found.end
    ]
    capacity = {"GPU-big": 24000, "GPU-small": 16000}[where]
    assert taken + sum(share.get(where, 0) for share in rest) <= capacity


# --- names and states


@given(st.text(), st.lists(st.from_regex(r"lease(-\d)?", fullmatch=True)))
def test_new_names_are_valid_and_free(command: str, taken: list[str]) -> None:
    name = new_name(command, taken)
    assert is_valid_name(name)
    assert name not in taken


def test_names_come_from_the_program() -> None:
    assert new_name("/usr/bin/blender", ()) == "blender"
    assert new_name("./Train Me.sh", ["train-me.sh"]) == "train-me.sh-2"


def test_lease_ids_are_not_models() -> None:
    assert lease_name(lease_id("x")) == "x"
    assert lease_name("qwen3-8b") is None


ACTIVE, GONE = UnitState("active", "exited", loaded=True), UnitState()


@pytest.mark.parametrize(
    ("holder", "token", "state"),
    [
        (ACTIVE, ACTIVE, LeaseState.HELD),
        (UnitState(job="start"), UnitState("activating", "start", "start"), LeaseState.STARTING),
        (UnitState(job="start"), UnitState(job="start"), LeaseState.STARTING),
        (UnitState("activating"), ACTIVE, LeaseState.STARTING),
        (GONE, ACTIVE, LeaseState.ENDING),
        (GONE, UnitState("deactivating", "stop-post"), LeaseState.ENDING),
        (UnitState("active", job="stop"), ACTIVE, LeaseState.ENDING),
        (GONE, UnitState("failed", "failed"), LeaseState.ENDING),
    ],
)
def test_lease_state(holder: UnitState, token: UnitState, state: LeaseState) -> None:
    pair = LeasePair(holder, token, {"GPU-big": 1})
    assert pair.state is state
    counts = lease_occupants({"x": pair})
    assert [one.model_id for one in counts] == (["lease@x"] if state is not LeaseState.ENDING else [])
    assert all(one.is_lease for one in counts)


@pytest.mark.parametrize("active", ["inactive", "failed"])
def test_lease_whose_units_are_only_loaded_holds_nothing(active: str) -> None:
    """systemd keeps its token until `mmd-back@` has ended, and the status showed a lease that was over."""
    down = UnitState(active, loaded=True)
    over = LeasePair(down, down, {"GPU-big": 24000})
    ending = LeasePair(down, UnitState("deactivating", loaded=True), {"GPU-big": 24000})
    assert (over.is_over, ending.is_over) == (True, False)
    assert (held({}, {"job": over}), held({}, {"job": ending})) == ({}, {"GPU-big": 24000})
    assert occupancy({}, {"job": over}, [BIG], {}).leaving == {}
    assert occupancy({}, {"job": ending}, [BIG], {}).leaving == {"lease@job": {"GPU-big": 24000}}
