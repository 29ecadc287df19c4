"""Which file of a repository a machine is offered."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.engines.llama.engine import LLAMA_SERVER
from mmd.engines.vllm.engine import VLLM
from mmd.machine import Gpu, Machine
from mmd.plan.recommend import Assessed, RunsOn, assess, reason
from mmd.registry.offer import Base, HubModel
from mmd.registry.record import Format, ModelType

_GIB = 1024**3
# What unsloth publishes of Qwen3-8B: 8.19 billion parameters, sizes in GB as the hub shows them.
_QWEN3_8B = {
    "UD-IQ1_S": 2.23,
    "Q2_K": 3.28,
    "Q3_K_M": 4.12,
    "IQ4_XS": 4.58,
    "Q4_0": 4.79,
    "Q4_K_M": 5.03,
    "Q4_1": 5.25,
    "Q5_K_M": 5.85,
    "Q6_K": 6.73,
    "Q8_0": 8.71,
    "BF16": 16.4,
}
_LLAMA = {Format.GGUF: LLAMA_SERVER}
_VLLM = {Format.SAFETENSORS: VLLM}
_BASE = Base(ModelType.CHAT, 8_190_000_000, 40_960)
_OFFERS = tuple(HubModel(f"Qwen3-8B-{name}.gguf", Format.GGUF, int(gb * 1e9)) for name, gb in _QWEN3_8B.items())


def machine(vram_gib: float = 0, ram_gib: float = 32, capability: str = "8.9") -> Machine:
    size_bytes = int(vram_gib * _GIB)
    gpus = (Gpu(0, "card", "GPU-0", capability, size_bytes, size_bytes, ()),) if size_bytes else ()
    return Machine(gpus, "", int(ram_gib * _GIB), int(ram_gib * _GIB), "", 8, 16)


def recommended(assessed: tuple[Assessed, ...]) -> Assessed | None:
    """The first, where that runs: then no other one does before it."""
    return assessed[0] if assessed[0].runs_on is not RunsOn.NOWHERE else None


def taken(on: Machine, offers: tuple[HubModel, ...] = _OFFERS, base: Base = _BASE) -> tuple[str, RunsOn]:
    found = recommended(assess(offers, base, on, _LLAMA))
    assert found is not None
    return found.offer.file.removeprefix("Qwen3-8B-").removesuffix(".gguf"), found.runs_on


@pytest.mark.parametrize(
    ("vram_gib", "wanted"),
    [(24, "Q8_0"), (12, "Q8_0"), (10, "Q6_K"), (8, "Q4_K_M"), (7, "IQ4_XS"), (6.7, "Q3_K_M")],
)
def test_the_largest_that_fits_with_a_context_of_use(vram_gib: float, wanted: str) -> None:
    assert taken(machine(vram_gib)) == (wanted, RunsOn.GPU)


def test_sixteen_bits_are_not_taken_where_eight_are_as_good() -> None:
    assert taken(machine(80)) == ("Q8_0", RunsOn.GPU)


def test_sixteen_bits_where_there_is_nothing_else() -> None:
    assert taken(machine(80), _OFFERS[-1:]) == ("BF16", RunsOn.GPU)


def test_a_legacy_quantisation_is_not_taken_for_its_size() -> None:
    offers = tuple(offer for offer in _OFFERS if any(name in offer.file for name in ("Q4_1", "Q4_K_M", "Q4_0")))
    assert taken(machine(24), offers) == ("Q4_K_M", RunsOn.GPU)


def test_rather_slow_than_senseless() -> None:
    """In 5 GiB only two bits fit: four, of which a part is in RAM, answer better."""
    assert taken(machine(5)) == ("Q4_K_M", RunsOn.PARTLY)


def test_on_a_cpu_every_byte_costs_time() -> None:
    assert taken(machine()) == ("Q4_K_M", RunsOn.CPU)


def test_a_small_model_is_quick_on_a_cpu_in_eight_bits() -> None:
    offers = tuple(replace(offer, weights_bytes=offer.weights_bytes // 20) for offer in _OFFERS)
    assert taken(machine(), offers, replace(_BASE, parameters=409_500_000)) == ("Q8_0", RunsOn.CPU)


def test_sizes_speak_where_the_hub_does_not_know_the_parameters() -> None:
    unknown = replace(_BASE, parameters=0)
    assert taken(machine(80), base=unknown) == ("Q8_0", RunsOn.GPU)
    assert taken(machine(), base=unknown) == ("Q4_K_M", RunsOn.CPU)


def test_nothing_is_taken_where_nothing_runs() -> None:
    assessed = assess(_OFFERS, _BASE, machine(2, 2), _LLAMA)
    assert recommended(assessed) is None
    assert "IQ1_S" in assessed[0].offer.file  # of which a message can speak
    assert reason(assessed[0], assessed) == "the smallest, and still too large"


def test_formats_that_nothing_here_serves_are_left_out() -> None:
    weights = HubModel("model.safetensors", Format.SAFETENSORS, 16 * 10**9)
    found = assess((*_OFFERS, weights), _BASE, machine(80), _VLLM)
    assert [one.offer.file for one in found] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("quant", "capability", "runs_on"),
    [
        ("", "7.0", RunsOn.NOWHERE),
        ("awq", "7.5", RunsOn.GPU),
        ("mxfp4", "7.5", RunsOn.NOWHERE),
        ("mxfp4", "8.0", RunsOn.GPU),
    ],
)
def test_vllm_asks_for_a_gpu_that_is_new_enough(quant: str, capability: str, runs_on: RunsOn) -> None:
    weights = HubModel("model.safetensors", Format.SAFETENSORS, 6 * 10**9)
    (found,) = assess((weights,), replace(_BASE, quant=quant), machine(24, capability=capability), _VLLM)
    assert found.runs_on is runs_on


def test_gpu_memory_of_others_counts_and_mmds_does_not() -> None:
    from mmd.machine import GpuProcess

    busy = machine(12)
    theirs = GpuProcess(1, 5 * _GIB, "game")
    gpu = replace(busy.gpus[0], free_bytes=7 * _GIB, processes=(theirs,))
    assert taken(replace(busy, gpus=(gpu,)))[0] == "IQ4_XS"
    ours = replace(gpu, processes=(replace(theirs, unit="mmd-model@a.service"),))
    assert taken(replace(busy, gpus=(ours,)))[0] == "Q8_0"


_offers = st.lists(
    st.builds(
        HubModel, st.sampled_from([offer.file for offer in _OFFERS]), st.just(Format.GGUF), st.integers(1, 10**11)
    ),
    min_size=1,
    max_size=8,
)
_gib = st.floats(1, 200)


@given(_offers, _gib, _gib)
def test_something_is_recommended_where_something_runs(offers: list[HubModel], vram_gib: float, ram_gib: float) -> None:
    assessed = assess(offers, _BASE, machine(vram_gib, ram_gib), _LLAMA)
    found = recommended(assessed)
    assert (found is None) == all(one.runs_on is RunsOn.NOWHERE for one in assessed)


@given(_gib, _gib)
def test_larger_gpu_gets_no_smaller_file_once_all_layers_fit(one_gib: float, other_gib: float) -> None:
    less, more = (recommended(assess(_OFFERS, _BASE, machine(gib), _LLAMA)) for gib in sorted((one_gib, other_gib)))
    if less is not None and less.runs_on is RunsOn.GPU and less.bits >= 3.4:
        assert more is not None
        assert more.offer.weights_bytes >= less.offer.weights_bytes


@given(_offers, _gib)
def test_every_choice_has_its_reason(offers: list[HubModel], vram_gib: float) -> None:
    assessed = assess(offers, _BASE, machine(vram_gib), _LLAMA)
    for one in assessed:
        assert reason(one, assessed)
