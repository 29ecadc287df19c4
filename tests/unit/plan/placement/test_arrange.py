"""Models on recorded and made-up machines: where they are placed, who leaves, and what each gets of its device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mmd.machine import Machine
from mmd.plan.choose import ModelSettings
from mmd.plan.placement.arrange import Arrangement, arrange
from mmd.plan.placement.devices import devices_of
from mmd.plan.placement.place import CannotPlace, Occupant
from mmd.registry.record import Format, Model, ModelType
from tests.unit.plan.placement.test_demand import CPU_ONLY, RTX_4070, demand, with_gpus
from tests.unit.plan.planned import model
from tests.unit.plan.test_predict import layout, qwen3

A, B = "GPU-00000000", "GPU-11000000"
CHAT = model(qwen3(layout(9)), id="chat")
OTHER = model(qwen3(layout(9)), id="other")
LARGE = model(qwen3(layout(30)), id="large")
LONG = model(qwen3(layout(4), context_length=4096 * 100), id="long")
VLLM_CHAT = model(replace(qwen3(format=Format.SAFETENSORS), attention_heads=32), id="vllm-chat")
VLLM_OTHER = replace(VLLM_CHAT, id="vllm-other")
SMALL = layout(0.4, layers=28, hidden_size=1024, feed_forward_size=3 * 3072, attention_size=4096, output_bytes=0)
EMBED = model(replace(qwen3(SMALL), type=ModelType.EMBEDDING), id="embed")
RERANK = model(replace(qwen3(SMALL), type=ModelType.RERANKER), id="rerank")


def arranged(
    on: Machine,
    *wanted: Model,
    occupants: Sequence[Occupant] = (),
    light: Sequence[Model] = (),
    settings: ModelSettings | None = None,
    **more: object,
) -> Arrangement:
    found = arrange(
        [demand(one, on, settings) for one in wanted],
        occupants,
        devices_of(on, {}),
        light=[demand(one, on) for one in light],
        **more,  # type: ignore[arg-type]
    )
    assert isinstance(found, Arrangement), found
    return found


def held(found: Arrangement, on: Machine, *more: Model, last_used: float = 0.0) -> tuple[Occupant, ...]:
    """Return the placed models as occupants."""
    return tuple(
        Occupant(one, share, demand(next(m for m in more if m.id == one), on).keeps(share), last_used=last_used)
        for one, share in found.placement.where.items()
    )


def capacity(on: Machine) -> dict[str, int]:
    return {device.id: device.capacity_mib for device in devices_of(on, {})}


# --- one model


def test_heavy_model_grows_into_the_whole_device() -> None:
    on = with_gpus(16)
    found = arranged(on, CHAT)
    assert found.placement.where["chat"] == {A: capacity(on)[A]}
    assert found.allocations["chat"].is_alone


def test_growth_ends_at_what_is_useful() -> None:
    on = with_gpus(80)
    allocation = arranged(on, CHAT).allocations["chat"]
    assert allocation.share == {A: demand(CHAT, on).shape(40960, 1).size_mib}
    assert allocation.tokens is None, "the engine's own default is the trained context"
    assert not allocation.is_alone


def test_two_heavy_models_do_not_fit_on_one_device() -> None:
    on = with_gpus(24)
    first = held(arranged(on, CHAT), on, CHAT)
    found = arranged(on, OTHER, occupants=first)
    assert found.placement.end == ("chat",)


def test_two_heavy_models_get_a_device_each() -> None:
    on = with_gpus(24, 24)
    first = held(arranged(on, CHAT), on, CHAT)
    found = arranged(on, OTHER, occupants=first)
    assert found.placement.sleep == found.placement.end == ()
    assert found.placement.where["other"].keys() == {B}


def test_context_of_the_user_does_not_grow() -> None:
    on = with_gpus(24)
    fixed = ModelSettings(context=8192)
    found = arranged(on, CHAT, settings=fixed)
    assert found.placement.where["chat"] == {A: demand(CHAT, on, fixed).shape(8192, 1).size_mib}


# --- light models


def test_light_model_lies_beside_a_grown_one() -> None:
    on = with_gpus(24)
    first = arranged(on, CHAT, light=[EMBED])
    found = arranged(on, EMBED, occupants=held(first, on, CHAT))
    assert found.placement.sleep == found.placement.end == ()
    assert found.placement.where["embed"] == {A: demand(EMBED, on).shape(8192, 1).size_mib}


def test_no_registered_light_model_needs_no_room() -> None:
    on = with_gpus(16)
    assert arranged(on, CHAT, light=[]).placement.where["chat"][A] == capacity(on)[A]


def test_light_room_is_at_most_15_percent() -> None:
    on = with_gpus(16)
    light = [replace(EMBED, id=f"embed-{number}") for number in range(9)]
    left_mib = capacity(on)[A] - arranged(on, CHAT, light=light).placement.where["chat"][A]
    least_mib = demand(EMBED, on).least_mib
    assert left_mib == capacity(on)[A] * 15 // 100 // least_mib * least_mib


def test_resident_light_model_needs_no_room_of_its_own() -> None:
    on = with_gpus(16)
    embed = Occupant("embed", {A: 2000})
    found = arranged(on, CHAT, occupants=[embed], light=[EMBED])
    assert found.placement.where["chat"][A] == capacity(on)[A] - 2000


def test_light_model_gets_no_room_if_a_heavy_one_has_none_left() -> None:
    on = with_gpus(12)
    found = arranged(on, model(qwen3(layout(9.7)), id="tight"), light=[EMBED])
    assert found.placement.where["tight"][A] == capacity(on)[A]


def test_empty_second_device_has_the_light_room() -> None:
    on = with_gpus(16, 16)
    assert arranged(on, CHAT, light=[EMBED, RERANK]).placement.where["chat"][A] == capacity(on)[A]


def test_strict_rule_leaves_no_room_and_evicts_light_models() -> None:
    on = with_gpus(24)
    found = arranged(on, CHAT, occupants=[Occupant("embed", {A: 2000})], light=[EMBED], one_each=True)
    assert found.placement.end == ("embed",)
    assert found.placement.where["chat"] == {A: capacity(on)[A]}
    assert found.allocations["chat"].is_alone


# --- sets


def test_set_shares_tokens_and_the_embedder_gets_what_it_can_use() -> None:
    on = with_gpus(18)
    found = arranged(on, CHAT, EMBED)
    assert found.allocations["embed"].share == {A: demand(EMBED, on).shape(8192, 1).size_mib}
    used_mib = sum(one.share[A] for one in found.allocations.values())
    assert used_mib == capacity(on)[A]
    assert not found.allocations["chat"].is_alone


def test_equal_models_get_equal_contexts() -> None:
    on = with_gpus(16)
    small, twin = model(qwen3(layout(3)), id="a"), model(qwen3(layout(3)), id="b")
    found = arranged(on, small, twin)
    tokens = {one: given.tokens for one, given in found.allocations.items()}
    assert abs((tokens["a"] or 0) - (tokens["b"] or 0)) <= 256
    assert (tokens["a"] or 0) > 4096


def test_set_that_only_just_fits_gets_the_least_context() -> None:
    on = with_gpus(12.2)
    small, twin = model(qwen3(layout(3)), id="a"), model(qwen3(layout(3)), id="b")
    found = arranged(on, small, twin)
    assert all(4096 <= (one.tokens or 0) < 16384 for one in found.allocations.values())


def test_set_that_cannot_fit_is_refused() -> None:
    on = with_gpus(16)
    found = arrange([demand(CHAT, on), demand(OTHER, on)], [], devices_of(on, {}))
    assert isinstance(found, CannotPlace)
    assert found.short_mib > 0


def test_engines_that_fit_themselves_load_after_the_others() -> None:
    on = with_gpus(48)
    found = arranged(on, CHAT, VLLM_CHAT, EMBED)
    assert list(found.allocations) == ["vllm-chat", "chat", "embed"]
    free = [one.free_mib[A] for one in found.allocations.values()]
    shares = [one.share[A] for one in found.allocations.values()]
    assert free == [capacity(on)[A], free[0] - shares[0], free[1] - shares[1]]


def test_free_device_of_a_set_is_grown_into() -> None:
    on = with_gpus(12, 24)
    found = arranged(on, CHAT, LONG)
    assert len({device for share in found.placement.where.values() for device in share}) == 2
    assert found.placement.where["chat"] == {B: demand(CHAT, on).shape(40960, 1).size_mib}
    assert found.placement.where["long"] == {A: capacity(on)[A]}


# --- models larger than a device


def test_layers_are_divided_by_room() -> None:
    on = with_gpus(24, 24)
    found = arranged(on, LARGE, occupants=[Occupant("embed", {A: 4000})])
    share = found.placement.where["large"]
    assert found.placement.end == ()
    assert sum(share.values()) == demand(LARGE, on).shape(40960, 2).size_mib, "it uses all of its trained context"
    parts = found.allocations["large"].divided_mib
    assert share[A] / share[B] == pytest.approx((capacity(on)[A] - 4000) / capacity(on)[B], abs=0.05)
    assert sum(parts.values()) == demand(LARGE, on).shape(40960, 2).total_mib


def test_model_from_ram_empties_the_devices() -> None:
    on = RTX_4070
    others = [Occupant("chat", {"GPU-6d1f2a0e": 6000}), Occupant("embed", {"GPU-6d1f2a0e": 1000}, last_used=9)]
    found = arranged(on, LARGE, occupants=others)
    assert found.placement.end == ("chat", "embed")
    assert found.placement.where["large"] == {"GPU-6d1f2a0e": capacity(on)["GPU-6d1f2a0e"]}
    assert found.allocations["large"].tokens is None


def test_model_from_ram_lies_beside_a_lease() -> None:
    on = RTX_4070
    others = [
        Occupant("lease@job", {"GPU-6d1f2a0e": 3000}, is_lease=True),
        Occupant("chat", {"GPU-6d1f2a0e": 6000}),
    ]
    found = arranged(on, LARGE, occupants=others)
    assert found.placement.end == ("chat",)
    assert found.placement.where["large"] == {"GPU-6d1f2a0e": capacity(on)["GPU-6d1f2a0e"] - 3000}


def test_model_from_ram_leaves_its_set_room() -> None:
    found = arranged(RTX_4070, LARGE, EMBED, occupants=[Occupant("chat", {"GPU-6d1f2a0e": 6000})])
    assert found.placement.end == ("chat",)
    used_mib = sum(share["GPU-6d1f2a0e"] for share in found.placement.where.values())
    assert used_mib == capacity(RTX_4070)["GPU-6d1f2a0e"]


def test_model_is_not_run_from_ram_because_others_are_resident() -> None:
    on = RTX_4070
    chat = Occupant("chat", {"GPU-6d1f2a0e": 6000})
    for wanted in (LARGE, OTHER):
        found = arrange([demand(wanted, on)], [chat], devices_of(on, {}), evicts=False)
        assert isinstance(found, CannotPlace), wanted.id


def test_tensor_parallel_model_takes_two_devices() -> None:
    on = with_gpus(24, 24)
    large = model(replace(qwen3(layout(30), format=Format.SAFETENSORS), attention_heads=32), id="vllm-large")
    found = arranged(on, large, light=[EMBED])
    share = found.placement.where["vllm-large"]
    assert share.keys() == {A, B}
    assert min(capacity(on)[device] - share[device] for device in share) >= 0


# --- sleepers


def test_sleeper_wakes_where_it_lies() -> None:
    on = with_gpus(24, 24)
    asleep = Occupant("vllm-chat", {B: 12000}, {B: 1280}, is_asleep=True)
    found = arranged(on, VLLM_CHAT, occupants=[asleep], at={"vllm-chat": {B: 12000}})
    assert found.placement.where["vllm-chat"] == {B: 12000}
    assert found.allocations["vllm-chat"].share == {B: 12000}


def test_grown_model_leaves_what_sleepers_keep() -> None:
    on = with_gpus(24)
    asleep = Occupant("vllm-other", {A: 20000}, {A: 1280}, is_asleep=True)
    found = arranged(on, CHAT, occupants=[asleep])
    assert found.placement.where["chat"][A] <= capacity(on)[A] - 1280


# --- machines without a GPU


def test_models_lie_side_by_side_in_ram() -> None:
    first = arranged(CPU_ONLY, model(qwen3(layout(3)), id="a"), light=[EMBED])
    found = arranged(CPU_ONLY, EMBED, occupants=held(first, CPU_ONLY, model(qwen3(layout(3)), id="a")))
    assert found.placement.end == ()
    assert found.placement.where["embed"].keys() == {"ram"}


# --- what always holds

_MODELS = (CHAT, OTHER, LONG, VLLM_CHAT, EMBED, RERANK)
_MACHINES = tuple(with_gpus(*sizes) for sizes in ((12,), (24,), (24, 24), (24, 12), (8,), (16, 16, 48)))


@hypothesis_settings(deadline=None)
@given(
    st.sampled_from(_MACHINES),
    st.lists(st.sampled_from(_MODELS), min_size=1, max_size=4, unique_by=lambda one: one.id),
    st.lists(st.integers(500, 15000), max_size=3),
    st.booleans(),
)
def test_devices_are_never_over_committed(on: Machine, wanted: list[Model], sizes: list[int], one_each: bool) -> None:
    devices = devices_of(on, {})
    others = [
        Occupant(f"o{number}", {devices[number % len(on.gpus)].id: size_mib}) for number, size_mib in enumerate(sizes)
    ]
    found = arrange([demand(one, on) for one in wanted], others, devices, light=[demand(EMBED, on)], one_each=one_each)
    if isinstance(found, CannotPlace):
        return
    left = capacity(on)
    shares = [one.uses for one in others if one.model_id not in found.placement.end]
    for share in (*shares, *found.placement.where.values()):
        for device, size_mib in share.items():
            left[device] -= size_mib
    if sum(sizes) <= 15000:  # the others fit to begin with
        assert min(left.values()) >= 0
    for one in wanted:
        given = found.allocations[one.id]
        assert given.share == found.placement.where[one.id]
        if given.tokens is not None:
            its = demand(one, on)
            assert its.least_tokens <= given.tokens <= its.most_tokens
            assert its.shape(given.tokens, len(given.share)).size_mib <= sum(given.share.values())


@hypothesis_settings(deadline=None)
@given(st.integers(12, 40), st.integers(0, 8))
def test_more_room_is_never_less_context(size_gib: int, more_gib: int) -> None:
    def tokens(gib: int) -> dict[str, int]:
        on = with_gpus(gib)
        found = arrange([demand(one, on) for one in (model(qwen3(layout(3)), id="a"), LONG)], [], devices_of(on, {}))
        if isinstance(found, CannotPlace):
            return {"a": 0, "long": 0}
        return {one: given.tokens or 10**9 for one, given in found.allocations.items()}

    less, more = tokens(size_gib), tokens(size_gib + more_gib)
    assert all(more[one] >= less[one] for one in less)
