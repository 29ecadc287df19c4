"""What a model needs of each device, and the flags with which it is started in exactly that."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.errors import DoesNotFit, EngineMissing
from mmd.machine import Machine
from mmd.plan.allocation import Allocation
from mmd.plan.choose import ModelSettings, choose
from mmd.plan.engine import Installed
from mmd.plan.launch import Launch
from mmd.plan.needs import demand_of
from mmd.plan.placement.demand import Demand
from mmd.plan.placement.devices import devices_of
from mmd.plan.placement.place import Device, Placement, Shape, place
from mmd.registry.record import Format, Model
from tests.unit.plan.planned import (
    EMBEDDED,
    EMBEDDING,
    GIB,
    LLAMA_SERVER,
    RERANKER,
    SOCKET,
    VLLM,
    VLLM_CPU,
    machine,
    model,
)
from tests.unit.plan.test_predict import layout, qwen3

MIB = 1024**2
RTX_4090, RTX_4070, CPU_ONLY = machine("rtx4090-24g"), machine("rtx4070-12g"), machine("cpu-only")
CHAT = model(qwen3(), id="qwen3-8b")
LARGE = model(qwen3(layout(30)), id="qwen3-32b")
VLLM_CHAT = model(replace(qwen3(format=Format.SAFETENSORS), attention_heads=32), id="qwen3-8b-awq")
VLLM_LARGE = model(replace(qwen3(layout(30), format=Format.SAFETENSORS), attention_heads=32), id="qwen3-32b-awq")
GPU = "GPU-b7a9d3f2"


def with_gpus(*sizes_gib: float, on: Machine = RTX_4090) -> Machine:
    """Return a machine with empty GPUs of these sizes."""
    gpus = (
        replace(
            on.gpus[0],
            index=index,
            uuid=f"GPU-{index}{index}000000-8e44-4c0a-a2f6-91d3c5e74090",
            total_bytes=int(size_gib * GIB),
            free_bytes=int(size_gib * GIB),
            processes=(),
        )
        for index, size_gib in enumerate(sizes_gib)
    )
    return replace(on, gpus=tuple(gpus))


def demand(wanted: Model = CHAT, on: Machine = RTX_4090, settings: ModelSettings | None = None, **more: Any) -> Demand:
    engine = engine_of(wanted, on)
    return demand_of(wanted, on, [engine], devices_of(on, {}), settings=settings, **more)


def engine_of(wanted: Model, on: Machine) -> Installed:
    if wanted.facts.format is Format.GGUF:
        return LLAMA_SERVER
    return VLLM if on.gpus else VLLM_CPU


def launch_in(
    allocation: Allocation, wanted: Model = CHAT, on: Machine = RTX_4090, settings: ModelSettings | None = None
) -> Launch:
    return choose(
        wanted, on, [engine_of(wanted, on)], socket=SOCKET, cache="/c", settings=settings, allocation=allocation
    )


def beside(size_mib: int, *, free_mib: int = 20000, tokens: int = 16384, wanted: Model = CHAT) -> Allocation:
    """Return an allocation beside other models on the one GPU."""
    return demand(wanted).allocation({GPU: size_mib}, tokens, is_alone=False, free_mib={GPU: free_mib})


def value(launch: Launch, flag: str) -> str | None:
    places = [place for place, word in enumerate(launch.argv) if word == flag]
    return launch.argv[places[-1] + 1] if places else None


# --- sizes


def test_size_is_the_sum_of_the_estimates_parts() -> None:
    memory = demand().memories[1]
    components = memory.components(16384)
    expected = components.total_bytes + memory.error_bytes(components)
    assert demand().shape(16384, 1) == Shape(1, -(-expected // MIB))


@pytest.mark.parametrize("wanted", [CHAT, VLLM_CHAT, EMBEDDING, RERANKER])
def test_size_grows_with_the_context(wanted: Model) -> None:
    one = demand(wanted)
    sizes = [one.shape(tokens, 1).size_mib for tokens in range(one.least_tokens, 3 * one.most_tokens, 4096)]
    assert sizes == sorted(sizes)
    assert one.shapes[0].size_mib >= one.least_shapes[0].size_mib


def test_comfortable_context_has_a_limit() -> None:
    one = demand()
    assert (one.least_tokens, one.comfortable_tokens, one.most_tokens) == (4096, 16384, 40960)
    assert one.shapes == (one.shape(16384, 1),)


def test_pool_of_vllm_is_useful_for_two_conversations() -> None:
    one = demand(VLLM_CHAT)
    assert one.most_tokens == 2 * 40960
    more_mib = one.shape(81920, 1).size_mib - one.shape(40960, 1).size_mib
    assert more_mib == pytest.approx(40960 * 147456 / MIB, abs=2)


def test_context_of_the_user_is_neither_shortened_nor_extended() -> None:
    one = demand(settings=ModelSettings(context=30000))
    assert (one.least_tokens, one.comfortable_tokens, one.most_tokens, one.is_fixed) == (30000, 30000, 30000, True)
    assert one.shapes == one.least_shapes


def test_context_in_the_users_arguments_counts() -> None:
    assert demand(settings=ModelSettings(arguments=("-c", "30000"))).least_tokens == 30000


def test_light_model_needs_one_input_and_no_more() -> None:
    one = demand(RERANKER)
    assert one.is_light
    assert one.comfortable_tokens == one.most_tokens == 8192
    assert demand(EMBEDDING).most_tokens == 2048
    assert not demand().is_light


def test_measured_start_replaces_the_error_by_two_percent() -> None:
    measured, formula = demand(measured_on=1), demand()
    components = measured.memories[1].components(16384)
    assert measured.shape(16384, 1).size_mib == -(-round(components.total_bytes * 1.02) // MIB)
    assert measured.shape(16384, 1).size_mib < formula.shape(16384, 1).size_mib
    on = with_gpus(24, 24)
    assert demand(on=on, measured_on=1).shape(16384, 2) == demand(on=on).shape(16384, 2), "not measured on two"


def test_share_of_the_gpu_that_the_user_sets_is_the_demand() -> None:
    one = demand(VLLM_CHAT, settings=ModelSettings(arguments=("--gpu-memory-utilization", "0.5")))
    half_mib = RTX_4090.gpus[0].total_bytes // 2 // MIB
    assert one.shapes[0].size_mib == one.shape(81920, 1).size_mib
    assert one.shapes[0].size_mib == pytest.approx(half_mib + 460, abs=2)


def test_model_without_an_engine_is_refused() -> None:
    with pytest.raises(EngineMissing):
        demand_of(VLLM_CHAT, RTX_4090, [LLAMA_SERVER], devices_of(RTX_4090, {}))


def test_model_that_never_fits_is_refused() -> None:
    with pytest.raises(DoesNotFit, match="needs at least 31"):
        demand(VLLM_LARGE)


# --- devices


def test_model_on_the_cpu_takes_ram() -> None:
    one = demand(on=CPU_ONLY)
    assert {device.id for device in one.devices} == {"ram"}
    assert one.wanted().devices == {"ram"}


def test_engine_without_a_gpu_build_takes_ram() -> None:
    one = demand_of(VLLM_CHAT, RTX_4090, [VLLM_CPU], devices_of(RTX_4090, {}))
    assert {device.id for device in one.devices} == {"ram"}


def test_embedded_llama_takes_ram_beside_a_gpu() -> None:
    """Its wheels are built for CPUs: the GPU was reserved for it, and its weights were in RAM."""
    one = demand_of(CHAT, RTX_4090, [EMBEDDED], devices_of(RTX_4090, {}))
    assert one.wanted().devices == {"ram"}
    launch = choose(CHAT, RTX_4090, [EMBEDDED], socket=SOCKET, cache="/c")
    assert not launch.uses_gpu
    assert launch.environment == ()


def test_model_on_a_gpu_does_not_take_ram() -> None:
    placed = place([demand().wanted()], [], devices_of(RTX_4090, {}))
    assert isinstance(placed, Placement)
    assert placed.where.keys() == {"qwen3-8b"}
    assert placed.where["qwen3-8b"].keys() == {GPU}


def test_gpu_too_old_for_the_engine_is_not_used() -> None:
    on = with_gpus(24, 24)
    old = replace(on.gpus[0], compute_capability="6.1")
    one = demand(VLLM_CHAT, replace(on, gpus=(old, on.gpus[1])))
    assert [device.id for device in one.devices] == ["GPU-11000000"]
    assert max(one.memories) == 1


@pytest.mark.parametrize(("sizes", "counts"), [((24,), [1]), ((24, 24), [2]), ((24, 24, 24), [2, 3])])
def test_layers_are_divided_if_one_gpu_cannot_hold_them(sizes: tuple[float, ...], counts: list[int]) -> None:
    one = demand(LARGE, with_gpus(*sizes))
    assert [shape.count for shape in one.shapes] == counts
    assert all(shape.total_mib > 30 * 1024 for shape in one.shapes if shape.count > 1 and len(sizes) > 1)


def test_tensor_parallel_counts_divide_the_heads() -> None:
    assert [shape.count for shape in demand(VLLM_LARGE, with_gpus(24, 24, 24, 24)).shapes] == [2, 4]
    assert [shape.count for shape in demand(VLLM_CHAT, with_gpus(24, 24)).shapes] == [1]
    fixed = demand(VLLM_CHAT, with_gpus(24, 24), ModelSettings(arguments=("-tp", "2")))
    assert [shape.count for shape in fixed.shapes] == [2]


def test_model_larger_than_the_gpus_takes_them_whole() -> None:
    one = demand(LARGE)
    (device, _ram) = devices_of(RTX_4090, {})
    assert one.shapes == (Shape(1, device.capacity_mib),)
    assert one.least_shapes[0].size_mib < 2048, "the rest may be in RAM"
    two = demand(model(qwen3(layout(60)), id="huge"), with_gpus(24, 12))
    (shape,) = two.shapes
    assert shape.size_mib == sum(device.capacity_mib for device in two.devices)


def test_only_the_error_of_an_estimate_may_exceed_a_gpu() -> None:
    """With less than its weights free, a model of vLLM took the whole GPU, and others left for a start that failed."""
    one = demand(VLLM_CHAT)
    needs_mib = one.shape(one.least_tokens, 1).size_mib
    for capacity_mib, is_tried in ((needs_mib - 100, True), (needs_mib - 2000, False)):
        (shape,) = replace(one, devices=(Device(GPU, capacity_mib),)).shapes
        assert shape == Shape(1, capacity_mib if is_tried else needs_mib)


def test_sleeping_model_keeps_a_context_on_each_gpu() -> None:
    assert demand(VLLM_CHAT).keeps({"GPU-a": 9000, "GPU-b": 1000}) == {"GPU-a": 1280, "GPU-b": 1000}
    assert demand(VLLM_CHAT, CPU_ONLY).keeps({"ram": 9000}) == {"ram": 9000}
    assert demand().keeps({GPU: 9000}) is None


# --- llama.cpp in a share


def test_llama_beside_others_is_limited_twice() -> None:
    launch = launch_in(beside(9000))
    assert value(launch, "-c") == "16384"
    assert value(launch, "--fit-target") == "11000"
    assert launch.share == {GPU: 9000}
    assert launch.keeps is None
    assert launch.uses_gpu


def test_llama_alone_is_left_to_itself() -> None:
    alone = demand().allocation({GPU: 23856}, 40960, is_alone=True, free_mib={GPU: 24000})
    launch, before = launch_in(alone), choose(CHAT, RTX_4090, [LLAMA_SERVER], socket=SOCKET, cache="/c")
    assert launch.argv == before.argv
    assert launch.environment == before.environment


def test_whole_trained_context_needs_no_limit() -> None:
    launch = launch_in(beside(15000, tokens=40960))
    assert value(launch, "-c") is None
    assert value(launch, "--fit-target") == "5000"


def test_context_of_the_user_stays_the_users() -> None:
    settings = ModelSettings(context=30000)
    given = demand(settings=settings).allocation({GPU: 12000}, 30000, is_alone=False, free_mib={GPU: 20000})
    launch = launch_in(given, settings=settings)
    assert launch.argv.count("-c") == 1
    assert value(launch, "-c") == "30000"


def test_layers_are_cut_in_proportion_to_the_room() -> None:
    on = with_gpus(24, 24)
    one = demand(LARGE, on)
    share = {"GPU-00000000": 14000, "GPU-11000000": one.shapes[0].size_mib - 14000}
    given = one.allocation(share, 16384, is_alone=False, free_mib={"GPU-00000000": 15000, "GPU-11000000": 24000})
    launch = launch_in(given, LARGE, on)
    each_mib = one.shapes[0].each_mib
    assert value(launch, "--tensor-split") == f"{14000 - each_mib},{share['GPU-11000000'] - each_mib}"
    assert value(launch, "--fit-target") == f"1000,{24000 - share['GPU-11000000']}"
    assert value(launch, "-c") == "16384"
    assert dict(launch.environment)["CUDA_VISIBLE_DEVICES"] == ",".join(gpu.uuid for gpu in on.gpus)


def test_llama_on_the_cpu_beside_others_gets_its_context() -> None:
    given = demand(on=CPU_ONLY).allocation({"ram": 8100}, 16384, is_alone=False, free_mib={})
    launch = launch_in(given, on=CPU_ONLY)
    assert value(launch, "-c") == "16384"
    assert value(launch, "--fit-target") is None
    assert not launch.uses_gpu


# --- vLLM in a share


@given(st.integers(10500, 23856), st.sampled_from([4096, 16384, 40960, 81920]))
def test_vllm_beside_others_gets_pool_and_utilization(size_mib: int, tokens: int) -> None:
    one = demand(VLLM_CHAT)
    given = one.allocation({GPU: size_mib}, tokens, is_alone=False, free_mib={GPU: 23856})
    launch = launch_in(given, VLLM_CHAT)
    utilization, pool = value(launch, "--gpu-memory-utilization"), value(launch, "--kv-cache-memory-bytes")
    assert utilization
    assert pool
    total_mib = RTX_4090.gpus[0].total_bytes / MIB
    assert 0 < float(utilization) <= size_mib / total_mib, "vLLM does not start if less is free"
    parts = one.parts(tokens, 1)
    without_pool_mib = (parts.each_bytes - parts.cache_bytes) / MIB
    assert without_pool_mib + int(pool.removesuffix("M")) <= size_mib + 64
    if size_mib >= parts.each_bytes / MIB:
        assert int(pool.removesuffix("M")) >= parts.cache_bytes // MIB, "the context fits into the pool"


def test_vllm_alone_takes_what_is_free() -> None:
    alone = demand(VLLM_CHAT).allocation({GPU: 23856}, 81920, is_alone=True, free_mib={GPU: 24111})
    launch = launch_in(alone, VLLM_CHAT)
    before = choose(VLLM_CHAT, RTX_4090, [VLLM], socket=SOCKET, cache="/c")
    assert launch.argv == before.argv
    assert launch.environment == before.environment


def test_vllm_uses_all_gpus_of_its_share() -> None:
    on = with_gpus(24, 24, 24)
    share = {"GPU-00000000": 20000, "GPU-22000000": 20000}
    free = dict.fromkeys(share, 24000)
    given = demand(VLLM_LARGE, on).allocation(share, 4096, is_alone=False, free_mib=free)
    launch = launch_in(given, VLLM_LARGE, on)
    assert value(launch, "--tensor-parallel-size") == "2"
    assert dict(launch.environment)["CUDA_VISIBLE_DEVICES"] == f"{on.gpus[0].uuid},{on.gpus[2].uuid}"
    assert launch.keeps == {"GPU-00000000": 1280, "GPU-22000000": 1280}


def test_one_of_two_gpus_needs_no_tensor_parallel() -> None:
    on = with_gpus(24, 24)
    given = demand(VLLM_CHAT, on).allocation({"GPU-11000000": 12000}, 4096, is_alone=False, free_mib={})
    launch = launch_in(given, VLLM_CHAT, on)
    assert value(launch, "--tensor-parallel-size") is None
    assert dict(launch.environment)["CUDA_VISIBLE_DEVICES"] == on.gpus[1].uuid


def test_pool_of_a_cpu_build_does_not_depend_on_neighbours() -> None:
    given = demand(VLLM_CHAT, CPU_ONLY).allocation({"ram": 10000}, 4096, is_alone=False, free_mib={})
    launch = launch_in(given, VLLM_CHAT, CPU_ONLY)
    before = choose(VLLM_CHAT, CPU_ONLY, [VLLM_CPU], socket=SOCKET, cache="/c")
    assert launch.stable_argv == before.stable_argv


# --- stability


@pytest.mark.parametrize("wanted", [CHAT, VLLM_CHAT])
@given(size_mib=st.integers(11000, 23856), free_mib=st.integers(11000, 24000), is_alone=st.booleans())
def test_another_share_does_not_restart_an_engine(wanted: Model, size_mib: int, free_mib: int, is_alone: bool) -> None:
    given = demand(wanted).allocation({GPU: size_mib}, 8192, is_alone=is_alone, free_mib={GPU: free_mib})
    launch = launch_in(given, wanted)
    before = choose(wanted, RTX_4090, [engine_of(wanted, RTX_4090)], socket=SOCKET, cache="/c")
    assert launch.stable_argv == before.stable_argv
    assert launch.environment == before.environment


@pytest.mark.parametrize("wanted", [CHAT, VLLM_CHAT])
@pytest.mark.parametrize("share", [{"GPU-99999999": 9000}, {GPU: 9000, "GPU-99999999": 9000}, {"ram": 9000}, {}])
def test_share_of_a_missing_device_is_planned_again(wanted: Model, share: dict[str, int]) -> None:
    """After a GPU has failed, the units of models that were on it still name it."""
    launch = launch_in(Allocation(share), wanted)
    assert launch.share.keys() == {GPU}
    assert launch.argv == choose(wanted, RTX_4090, [engine_of(wanted, RTX_4090)], socket=SOCKET, cache="/c").argv
    on_cpu = launch_in(Allocation({GPU: 9000}), wanted, CPU_ONLY)
    assert on_cpu.share.keys() == {"ram"}
