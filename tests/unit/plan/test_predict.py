"""What a model needs of a machine, whether that fits, and what would: on the snapshots in tests/machines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmd.codec import to_builtins
from mmd.engines import for_format
from mmd.engines.llama.constants import LlamaConstants
from mmd.engines.llama.kv_cache import CACHE_TYPES, LlamaCache, llama_cache_bytes
from mmd.engines.llama.options import llama_options
from mmd.engines.vllm.kv_cache import vllm_cache_bytes
from mmd.engines.vllm.options import VllmOptions, vllm_options
from mmd.errors import DoesNotFit
from mmd.machine import Gpu, GpuProcess, Machine
from mmd.plan import fit
from mmd.plan.choose import ModelSettings, choose
from mmd.plan.estimate import Estimate, Tier
from mmd.plan.predict import memory_of, predict
from mmd.plan.suggestions import Candidate
from mmd.registry.layout import Layers, Layout
from mmd.registry.record import Facts, Format, ModelType
from tests.unit.plan.planned import GIB, LLAMA_SERVER, SOCKET, VLLM, facts, machine, model

MIB = 1024**2


def layout(gib: float = 4.5, *, expert_gib: float = 0.0, layers: int = 36, **more: Any) -> Layout:
    """Qwen3-8B, with weights of another size; experts are in all layers."""
    given: dict[str, Any] = {
        "input_bytes": GIB // 4,
        "repeating_bytes": round(gib * GIB),
        "expert_bytes": ((layers, round(expert_gib * GIB / layers)),) if expert_gib else (),
        "output_bytes": GIB // 2,
        "copied_bytes": 0,
        "nextn_bytes": 0,
        "unloaded_bytes": 0,
        "float32_bytes": 0,
        "rotation_bytes": 0,
        "layer_count": layers,
        "hidden_size": 4096,
        "feed_forward_size": 3 * 12288,
        "experts_used": 0,
        "expert_size": 0,
        "attention_heads": 32,
        "attention_size": 8192,
        "vocabulary_size": 151936,
        "caches": (Layers(layers, 1024, 1024),),
    }
    return Layout(**given | more)


def qwen3(its: Layout | None = None, *, format: Format = Format.GGUF, context_length: int = 40960) -> Facts:
    known = its or layout()
    weights_bytes = known.loaded_bytes
    return replace(facts(format=format, weights_bytes=weights_bytes, context_length=context_length), layout=known)


def estimate(its: Facts, here: Machine | None = None, *words: str, **more: Any) -> Estimate:
    return predict(for_format(its.format), its, here or machine("rtx4090-24g"), words, model_id="qwen3-8b", **more)


# --- the numbers


def test_needs_are_the_sum_of_the_components() -> None:
    found = estimate(qwen3(), context=8192)
    parts = found.components
    assert found.needs_bytes == parts.total_bytes
    assert parts.weights_bytes == 5 * GIB  # without the embeddings
    assert parts.kv_bytes == 8192 * 147456
    assert parts.compute_bytes == 4 * 512 * (5 * 4096 + 3 * 12288) + 2 * 512 * 8192
    assert parts.overhead_bytes == LlamaConstants().context_bytes
    assert (found.fits, found.on_gpu, found.ram_bytes, found.suggestions) == (True, 1.0, GIB // 4, ())
    assert found.tier is Tier.T1


def test_without_a_gpu_everything_is_in_ram() -> None:
    found = estimate(qwen3(), machine("cpu-only"), context=8192)
    assert found.components.weights_bytes == 5 * GIB + GIB // 4
    assert (found.fits, found.on_gpu, found.ram_bytes) == (True, 0.0, 0)


def test_error_of_independent_parts_adds_up_by_squares() -> None:
    constants = LlamaConstants(context_error_bytes=300, compute_error=0.0, compute_error_bytes=400)
    found = estimate(qwen3(layout(0, output_bytes=0)), context=4096, constants=constants)
    assert found.error_bytes == 500


def test_what_was_measured_takes_the_place_of_a_default() -> None:
    found = estimate(qwen3(), context=4096, constants=LlamaConstants(context_bytes=7, compute_factor=2.0))
    usual = estimate(qwen3(), context=4096)
    assert found.components.overhead_bytes == 7
    assert found.components.compute_bytes == 2 * usual.components.compute_bytes


def test_projector_computes_too() -> None:
    assert estimate(qwen3(), context=4096, projector_bytes=GIB).components.projector_bytes == round(1.35 * GIB)


def test_context_without_a_setting_is_what_fits() -> None:
    here = machine("rtx4070-12g")
    found = estimate(qwen3(context_length=262144), here)
    assert found.context == found.max_context
    assert found.context % 256 == 0
    assert 8192 < found.context < 262144
    assert found.needs_bytes <= found.has_bytes == here.gpus[0].free_bytes - GIB
    more = estimate(qwen3(context_length=262144), here, context=found.context + 256)
    assert more.needs_bytes > more.has_bytes


def test_context_does_not_exceed_the_trained_length() -> None:
    assert estimate(qwen3(context_length=8192)).max_context == 8192
    assert estimate(qwen3(context_length=1000)).context == 1000


def test_context_on_the_command_line_counts() -> None:
    assert estimate(qwen3(), None, "-c", "5000").context == 5000
    assert estimate(qwen3(), None, "-c", "5000", "-c", "6000").context == 6000
    assert estimate(qwen3(), None, "-c", "0").context == 40960


@pytest.mark.parametrize(
    ("words", "cache", "experts"),
    [
        ((), LlamaCache(0), 0),
        (("-np", "1"), LlamaCache(0, slots=1, unified=False), 0),
        (("--parallel", "2", "-kvu"), LlamaCache(0, slots=2), 0),
        (("-np", "-1"), LlamaCache(0), 0),
        (("-ctk", "q8_0", "--cache-type-v", "q4_0"), LlamaCache(0, key_type="q8_0", value_type="q4_0"), 0),
        (("-ctk", "nonsense", "-ub"), LlamaCache(0), 0),
        (("-ub", "2048", "--swa-full", "-ncmoe", "12"), LlamaCache(0, batch_tokens=2048, full_windows=True), 12),
        (("-c", "4096", "--no-kv-unified"), LlamaCache(4096, unified=False), 0),
        (("-b", "256"), LlamaCache(0, batch_tokens=256), 0),
        (("-b", "2048", "-ub", "1024"), LlamaCache(0, batch_tokens=1024), 0),
        (("-c", "9" * 5000), LlamaCache(0), 0),
    ],
)
def test_command_line_of_llama_server(words: tuple[str, ...], cache: LlamaCache, experts: int) -> None:
    assert (llama_options(words).cache, llama_options(words).cpu_expert_layers) == (cache, experts)


def test_registry_of_an_older_version_gives_an_upper_bound() -> None:
    found = estimate(facts(weights_bytes=5 * GIB), context=4096)
    assert found.tier is Tier.T0
    assert found.components.weights_bytes == 5 * GIB
    assert found.components.kv_bytes == 4096 * 147456
    assert found.error_bytes > estimate(qwen3(), context=4096).error_bytes


def test_json_is_the_record_of_the_design() -> None:
    record = to_builtins(estimate(qwen3(layout(30)), machine("rtx4070-12g"), context=8192))
    assert list(record["components"]) == [
        "weights_bytes",
        "kv_bytes",
        "state_bytes",
        "compute_bytes",
        "projector_bytes",
        "overhead_bytes",
    ]
    assert record["needs_bytes"] == sum(record["components"].values())
    assert {"error_bytes", "tier", "fits", "context", "max_context", "suggestions", "on_gpu"} <= record.keys()
    assert record["tier"] == "header"


# --- whether it fits


def test_partly_in_ram_it_runs_and_says_how_much() -> None:
    found = estimate(qwen3(layout(20)), machine("rtx4070-12g"), context=4096)
    assert found.fits
    assert 0.3 < found.on_gpu < 0.6
    assert found.ram_bytes > 10 * GIB
    assert found.max_context == 4096  # the engine shortens it that far before it puts layers into RAM


def test_experts_are_not_put_into_ram_that_is_not_there() -> None:
    """58 GB of experts beside 12 GiB of VRAM and 31 of RAM: a smaller quantisation is what helps."""
    smaller = Candidate("Q4_K_M", 17 * GIB, same_repository=True, command="mmd pull R:Q4_K_M.gguf")
    found = estimate(qwen3(layout(2, expert_gib=54)), machine("rtx4070-12g"), context=4096, candidates=[smaller])
    assert not found.fits
    assert [one.change for one in found.suggestions] == ["Q4_K_M"]


def test_experts_that_are_kept_in_ram_need_ram() -> None:
    """80 GiB of VRAM do not help 54 GiB of experts that the command line puts into 31 of RAM."""
    here = machine("rtx4070-12g")
    large = replace(here, gpus=(replace(here.gpus[0], total_bytes=80 * GIB, free_bytes=80 * GIB),))
    its = qwen3(layout(2, expert_gib=54))
    assert estimate(its, large, context=4096).fits
    assert not estimate(its, large, "--cpu-moe", context=4096).fits


def test_keys_whose_heads_are_no_blocks_stay_as_they_are() -> None:
    """Phi-2 has heads of 80 numbers, and llama.cpp refuses to start with blocks of 32 for them."""
    phi = layout(attention_size=2 * 32 * 80, caches=(Layers(36, 32 * 80, 32 * 80),))
    found = estimate(qwen3(phi), machine("rtx4070-12g"), context=40960)
    assert found.suggestions
    assert not any("q8_0" in one.change for one in found.suggestions)
    wider = layout(attention_size=2 * 32 * 96, caches=(Layers(36, 32 * 96, 32 * 96),))
    assert any(
        "q8_0" in one.change for one in estimate(qwen3(wider), machine("rtx4070-12g"), context=40960).suggestions
    )


def test_experts_go_into_ram_before_anything_else() -> None:
    """Keys and values stay on the GPU then, while a dense model takes those of its layers along."""
    mixture = estimate(qwen3(layout(2, expert_gib=18)), machine("rtx4070-12g"), context=4096)
    assert mixture.on_gpu == pytest.approx(1 - (mixture.needs_bytes - mixture.has_bytes) / (20 * GIB))
    assert mixture.ram_bytes == GIB // 4 + mixture.needs_bytes - mixture.has_bytes


def test_what_neither_vram_nor_ram_holds_does_not_fit() -> None:
    found = estimate(qwen3(layout(50)), machine("rtx4070-12g"))
    assert (found.fits, found.max_context, found.context) == (False, 0, 4096)


def with_processes(*processes: GpuProcess) -> Gpu:
    (gpu,) = machine("rtx4090-24g").gpus
    used = sum(process.used_bytes or 0 for process in processes)
    return replace(gpu, free_bytes=gpu.total_bytes - used, processes=processes)


def test_models_of_ours_will_go_and_others_stay() -> None:
    ours = GpuProcess(1, 8 * GIB, "llama-server", "mmd-model@a.service")
    game = GpuProcess(2, 4 * GIB, "game")
    gpu = with_processes(ours, game)
    assert fit.available_bytes(gpu) == gpu.total_bytes - 4 * GIB
    here = replace(machine("rtx4090-24g"), gpus=(gpu,))
    assert estimate(qwen3(), here).has_bytes == gpu.total_bytes - 4 * GIB - GIB
    assert fit.without_our_models(fit.without_our_models(here)) == fit.without_our_models(here)
    silent = with_processes(replace(ours, used_bytes=None))
    assert fit.available_bytes(replace(silent, free_bytes=0)) == silent.total_bytes


def test_several_gpus_count_together() -> None:
    (gpu,) = machine("rtx4090-24g").gpus
    two = replace(machine("rtx4090-24g"), gpus=(gpu, replace(gpu, index=1)))
    one, both = estimate(qwen3(), context=8192), estimate(qwen3(), two, context=8192)
    assert both.has_bytes == 2 * one.has_bytes
    assert both.components.overhead_bytes == 2 * one.components.overhead_bytes
    assert both.components.compute_bytes > 2 * one.components.compute_bytes


# --- what would fit


def changes(found: Estimate) -> list[str]:
    return [suggestion.change for suggestion in found.suggestions]


CANDIDATES = (
    Candidate("Q4_K_M", 5 * GIB, same_repository=True, command="mmd pull a/b:q4"),
    Candidate("Q6_K", 8 * GIB, same_repository=True, command="mmd pull a/b:q6"),
    Candidate("Q3_K_M", 4 * GIB, same_repository=True, command="mmd pull a/b:q3"),
    Candidate("Q4_K_XL of c/d", 5 * GIB, same_repository=False, command="mmd pull c/d:q4"),
    Candidate("BF16", 30 * GIB, same_repository=True, command="mmd pull a/b:bf16"),
)


def test_suggestions_lose_least_first_and_all_fit() -> None:
    found = estimate(qwen3(layout(3, expert_gib=5)), machine("rtx4070-12g"), context=32768, candidates=CANDIDATES)
    assert changes(found) == [
        "a context of 8192 tokens",
        "keys and values as q8_0 and a context of 14336 tokens",
        "Q4_K_M",
        "Q3_K_M",
        "the experts of 25 of its 36 layers in RAM, 3.7 GiB of it",
        "Q4_K_XL of c/d",
    ]
    assert all(suggestion.needs_bytes <= found.has_bytes for suggestion in found.suggestions)


def test_suggestion_names_what_to_paste() -> None:
    found = estimate(qwen3(layout(5)), machine("rtx4070-12g"), context=32768)
    shorter, smaller = found.suggestions
    assert shorter.change.startswith("a context of ")
    assert shorter.command.startswith("${EDITOR:-nano} ~/.config/mmd/mmd.toml")
    assert '[models."qwen3-8b"] context = ' in shorter.command
    assert 'arguments = ["-ctk", "q8_0", "-ctv", "q8_0"]' in smaller.command


def test_suggested_settings_do_what_they_say() -> None:
    """Its own numbers, when they are taken at their word."""
    here, its = machine("rtx4070-12g"), qwen3(layout(3, expert_gib=8))
    found = estimate(its, here, context=8192)
    (change,) = [one for one in found.suggestions if "--n-cpu-moe" in one.command]
    layers = change.change.split()[3]
    again = estimate(its, here, "--n-cpu-moe", layers, context=8192)
    assert again.needs_bytes == change.needs_bytes <= again.has_bytes
    assert f"{again.ram_bytes / GIB:.1f} GiB of it" in change.change
    one_less = estimate(its, here, "--n-cpu-moe", str(int(layers) - 1), context=8192)
    assert one_less.needs_bytes > one_less.has_bytes


def test_where_nothing_is_whole_what_runs_at_all_is_suggested() -> None:
    found = estimate(
        qwen3(layout(50)),
        machine("rtx4070-12g"),
        context=4096,
        candidates=(Candidate("Q4_K_M", 20 * GIB, same_repository=True, command="mmd pull a/b:q4"),),
    )
    assert not found.fits
    assert changes(found) == ["Q4_K_M"]


def test_model_that_runs_from_ram_gets_no_suggestions() -> None:
    found = estimate(qwen3(layout(20)), machine("rtx4070-12g"), context=4096)
    assert (found.fits, found.suggestions) == (True, ())


# --- a launch is refused before another model is unloaded


def test_launch_that_cannot_run_says_what_could() -> None:
    wanted = model(qwen3(layout(9), context_length=262144))
    overrides = ModelSettings(context=262144)
    with pytest.raises(
        DoesNotFit, match=r"qwen3-8b needs at least 4\d\.\d GiB; .* with a context of \d+ tokens"
    ) as caught:
        choose(wanted, machine("rtx4070-12g"), [LLAMA_SERVER], socket=SOCKET, cache="/cache", settings=overrides)
    assert '[models."qwen3-8b"] context = ' in caught.value.hint


def test_launch_partly_in_ram_is_not_refused() -> None:
    wanted = model(qwen3(layout(20)))
    launch = choose(wanted, machine("rtx4070-12g"), [LLAMA_SERVER], socket=SOCKET, cache="/cache")
    assert launch.needs_bytes > 20 * GIB


def test_vllm_needs_the_gpu_for_all_of_it() -> None:
    here = machine("rtx4070-12g")
    its = qwen3(layout(20), format=Format.SAFETENSORS)
    found = estimate(its, here)
    assert (found.fits, found.max_context, found.on_gpu) == (False, 0, 1.0)
    with pytest.raises(DoesNotFit):
        choose(model(its), here, [VLLM], socket=SOCKET, cache="/cache")


def test_vllm_saves_bits_where_its_command_line_does() -> None:
    """An 8-bit cache is asked for where only a short context would fit, and counted as one."""
    its = qwen3(layout(8.3), format=Format.SAFETENSORS)
    found = estimate(its, machine("rtx4070-12g"), context=4096)
    wide = estimate(qwen3(layout(3), format=Format.SAFETENSORS), machine("rtx4070-12g"), context=4096)
    assert 2 * found.components.kv_bytes == wide.components.kv_bytes


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), VllmOptions()),
        (("--max-num-seqs", "16", "--max_num_seqs=256"), VllmOptions(sequences=256)),
        (("-tp", "2"), VllmOptions(gpus=2)),
        (("--tensor-parallel-size=4",), VllmOptions(gpus=4)),
        (("--gpu-memory-utilization", "0.5"), VllmOptions(utilization=0.5)),
        (("--kv-cache-memory-bytes", "512M"), VllmOptions(pool_bytes=512 * MIB)),
        (("--kv-cache-memory-bytes=2g",), VllmOptions(pool_bytes=2 * 10**9)),
        (("--kv-cache-dtype", "fp8_e4m3", "--kv-cache-dtype", "auto"), VllmOptions(small_numbers=False)),
        # the engine's to refuse
        (("--max-num-seqs", "-1", "-tp", "two", "--gpu-memory-utilization", "9", "--kv-cache-memory-bytes"),
         VllmOptions()),
        (("--max-num-seqs", "9" * 5000), VllmOptions()),
    ],
)  # fmt: skip
def test_command_line_of_vllm(words: tuple[str, ...], expected: VllmOptions) -> None:
    assert vllm_options(words) == expected


def test_vllm_memory_grows_with_sequences_and_bits() -> None:
    its = qwen3(layout(3), format=Format.SAFETENSORS)
    few, many = (estimate(its, None, "--max-num-seqs", count, context=4096) for count in ("16", "256"))
    logits = 38.3 * layout(3).vocabulary_size
    assert many.components.compute_bytes - few.components.compute_bytes == pytest.approx(240 * logits, rel=0.001)
    small = estimate(its, None, "--kv-cache-dtype=fp8", context=4096)
    assert 2 * small.components.kv_bytes == few.components.kv_bytes


def test_vllm_has_what_its_command_line_gives_it() -> None:
    its = qwen3(layout(3), format=Format.SAFETENSORS)
    half = estimate(its, None, "--gpu-memory-utilization", "0.3")
    assert half.max_context < estimate(its).max_context
    pool = estimate(its, None, "--kv-cache-memory-bytes", "1179648K")
    assert pool.max_context == 8192


def test_vllm_over_as_many_gpus_as_its_command_line_says() -> None:
    here = machine("rtx4090-24g")
    two = replace(here, gpus=here.gpus * 2)
    its = qwen3(layout(3), format=Format.SAFETENSORS)
    alone, spread = (estimate(its, two, *words, context=4096) for words in ((), ("-tp", "2")))
    assert spread.components.overhead_bytes > 2 * alone.components.overhead_bytes
    assert spread.components.kv_bytes == alone.components.kv_bytes


def test_vllm_on_the_cpu_has_a_pool_of_fixed_size() -> None:
    its = qwen3(layout(1), format=Format.SAFETENSORS)
    found = estimate(its, machine("cpu-only"))
    assert found.fits
    assert found.max_context * 147456 <= machine("cpu-only").ram_total_bytes // 8 < (found.max_context + 512) * 147456


def test_vllm_keeps_32_bit_weights_in_16() -> None:
    its = layout(1, input_bytes=0, output_bytes=0, float32_bytes=GIB)
    found = estimate(qwen3(its, format=Format.SAFETENSORS), context=4096)
    assert found.components.weights_bytes == GIB // 2


def test_model_that_only_reads_draws_no_words() -> None:
    its = replace(qwen3(format=Format.SAFETENSORS), type=ModelType.EMBEDDING)
    assert estimate(its).components.compute_bytes == 2 * 2048 * 4096


def test_vllm_fills_groups_of_layers_up() -> None:
    """Gemma 3: 52 layers with a window and 10 without share a pool in groups of ten."""
    groups = (Layers(52, 1024, 1024, 1024), Layers(10, 1024, 1024))
    kept = vllm_cache_bytes(groups, 32768, number_bytes=2, sequences=1, in_flight=2048)
    window_blocks = -(-(1023 + 2048) // 16) + 1
    assert kept.kv_bytes == 4096 * (60 * 16 * window_blocks + 10 * 32768)


def test_vllm_makes_blocks_as_large_as_a_state() -> None:
    groups = (Layers(3, state_numbers=100_000), Layers(1, 512, 512))
    kept = vllm_cache_bytes(groups, 1000, number_bytes=2, sequences=2, in_flight=2048)
    block_tokens = 16 * -(-400_000 // (1024 * 2 * 16))
    assert kept.kv_bytes == -(-1000 // block_tokens) * block_tokens * 2048
    assert kept.state_bytes == 3 * 2 * block_tokens * 2048


# --- more is never less

WIDTHS = st.sampled_from([0, 64, 576, 1024, 4096])
GROUPS = st.lists(
    st.builds(
        Layers,
        count=st.integers(1, 80),
        key_width=WIDTHS,
        value_width=WIDTHS,
        window_tokens=st.sampled_from([0, 0, 128, 4096]),
        tokens_per_cell=st.sampled_from([1, 1, 4]),
        per_slot=st.booleans(),
        convolution_numbers=st.sampled_from([0, 30720]),
        state_numbers=st.sampled_from([0, 786432]),
    ),
    max_size=4,
)
CONTEXTS = st.integers(1, 1 << 20)


@given(GROUPS, CONTEXTS, CONTEXTS, st.integers(1, 16), st.sampled_from(["rtx4090-24g", "cpu-only"]))
@settings(max_examples=150, deadline=None)
def test_needs_grow_with_the_context(groups: list[Layers], one: int, other: int, slots: int, name: str) -> None:
    its = qwen3(layout(caches=tuple(groups)))
    memory = memory_of(for_format(its.format), its, machine(name), ("-np", str(slots), "-kvu"))
    less, more = sorted((one, other))
    assert memory.components(less).total_bytes <= memory.components(more).total_bytes


@given(GROUPS, CONTEXTS, st.integers(1, 32), st.integers(1, 32))
@settings(max_examples=150, deadline=None)
def test_caches_grow_with_the_slots(groups: list[Layers], context: int, one: int, other: int) -> None:
    few, many = (llama_cache_bytes(groups, LlamaCache(context, slots=slots)) for slots in sorted((one, other)))
    assert few.kv_bytes <= many.kv_bytes
    assert few.state_bytes <= many.state_bytes


BITS = sorted(CACHE_TYPES, key=lambda name: CACHE_TYPES[name][1] / CACHE_TYPES[name][0])


@given(GROUPS, CONTEXTS, st.integers(0, len(BITS) - 1), st.integers(0, len(BITS) - 1))
@settings(max_examples=150, deadline=None)
def test_caches_grow_with_the_bits(groups: list[Layers], context: int, one: int, other: int) -> None:
    few, many = sorted((one, other))
    fewer = LlamaCache(context, key_type=BITS[few], value_type=BITS[few])
    more = LlamaCache(context, key_type=BITS[many], value_type=BITS[many])
    assert llama_cache_bytes(groups, fewer).kv_bytes <= llama_cache_bytes(groups, more).kv_bytes


@given(GROUPS, CONTEXTS, CONTEXTS, st.sampled_from([1, 2]), st.sampled_from(["rtx4090-24g", "cpu-only"]))
@settings(max_examples=150, deadline=None)
def test_vllm_needs_grow_with_the_context(groups: list[Layers], one: int, other: int, bits: int, name: str) -> None:
    its = qwen3(layout(caches=tuple(groups)), format=Format.SAFETENSORS)
    memory = memory_of(for_format(its.format), its, machine(name), ("--kv-cache-dtype", "fp8") if bits == 1 else ())
    less, more = sorted((one, other))
    assert memory.components(less).total_bytes <= memory.components(more).total_bytes


@given(st.floats(0, 60), st.floats(0, 60))
@settings(max_examples=100, deadline=None)
def test_largest_context_shrinks_with_the_weights(one: float, other: float) -> None:
    light, heavy = (
        estimate(qwen3(layout(gib), context_length=131072), machine("rtx4070-12g")) for gib in sorted((one, other))
    )
    assert light.max_context >= heavy.max_context
    assert light.on_gpu >= heavy.on_gpu


@given(st.integers(0, 1 << 20), st.integers(0, 1 << 20))
@settings(max_examples=200, deadline=None)
def test_largest_context_is_the_largest(trained: int, limit: int) -> None:
    found = fit.largest_context(trained, lambda context: context <= limit)
    most = trained or fit.MAX_CONTEXT_TOKENS
    if found:
        assert fit.min_context(trained) <= found <= min(limit, most)
        assert found == most or found + 256 > limit
    else:
        assert limit < fit.min_context(trained)
