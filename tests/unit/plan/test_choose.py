"""Model, machine and installed engines make a launch: the whole command as goldens, and what holds for any of them.

`MMD_UPDATE_GOLDEN=1 pytest tests/unit/plan/test_choose.py` writes the goldens; the diff is what users will see.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.engines import missing
from mmd.engines.llama import argv
from mmd.engines.llama.engine import EMBEDDED as EMBEDDED_ENGINE
from mmd.errors import DoesNotFit, EngineMissing, WrongUsage
from mmd.machine import Machine, load_machine
from mmd.plan import fit
from mmd.plan.choose import ModelSettings, choose
from mmd.plan.engine import Installed
from mmd.plan.launch import Launch
from mmd.registry.record import Format, Model, ModelType
from tests.unit.plan.planned import (
    CHAT,
    EMBEDDED,
    EMBEDDING,
    EVERY_MODEL,
    GIB,
    LLAMA_SERVER,
    MACHINES,
    SOCKET,
    VISION,
    VLLM,
    facts,
    machine,
    model,
)

CACHE = "/cache"
GOLDEN = Path(__file__).parents[2] / "golden"
# Without these it could not serve, or not the model that was asked for; the others are only better.
ESSENTIAL = {"-m", "--host", "--alias"}

machines = st.sampled_from([load_machine(path) for path in MACHINES])
models = st.sampled_from(EVERY_MODEL)


def launch_of(
    wanted: Model = CHAT,
    on: Machine | None = None,
    engine: Installed = LLAMA_SERVER,
    settings: ModelSettings | None = None,
) -> Launch:
    return choose(wanted, on or machine(), [engine], socket=SOCKET, cache=CACHE, settings=settings)


def as_text(launch: Launch) -> str:
    """As a person would want to compare it: one decision a line, its reason beneath."""
    lines = [f"# {launch.title}; needs {launch.needs_bytes / GIB:.2f} GiB, ready within {launch.ready_seconds} s"]
    lines += [f"{name}={value}" for name, value in launch.environment]
    lines += [" ".join(launch.argv)]
    lines += [f"\n{' '.join(flag.words) or f'({flag.subject})'}\n    {flag.reason}" for flag in launch.flags]
    return "\n".join(lines) + "\n"


# --- the commands


@pytest.mark.parametrize("wanted", EVERY_MODEL, ids=lambda model: model.facts.type)
@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_command_on_a_machine(path: Path, wanted: Model) -> None:
    text = as_text(launch_of(wanted, load_machine(path)))
    golden = GOLDEN / f"{path.stem}-{wanted.facts.type}.txt"
    if os.environ.get("MMD_UPDATE_GOLDEN"):
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_no_golden_is_left_over() -> None:
    expected = {f"{path.stem}-{wanted.facts.type}.txt" for path in MACHINES for wanted in EVERY_MODEL}
    assert {path.name for path in GOLDEN.glob("*.txt")} == expected


@given(models, machines, st.sampled_from([LLAMA_SERVER, EMBEDDED]))
def test_fitting_is_left_to_the_engine(wanted: Model, on: Machine, engine: Installed) -> None:
    """Any `-ngl` or `-c` on the command line switches llama.cpp's own fitting off."""
    words = launch_of(wanted, on, engine).argv
    assert not {"-ngl", "--gpu-layers", "--n-gpu-layers", "-c", "--ctx-size", "-fit", "--fit"} & set(words)


@given(
    models,
    machines,
    st.none() | st.integers(1, 10**6),
    st.lists(st.text(st.characters(exclude_characters="$;"), min_size=1)),
)
def test_every_word_has_a_reason(wanted: Model, on: Machine, context: int | None, arguments: list[str]) -> None:
    launch = launch_of(wanted, on, settings=ModelSettings(context=context, arguments=tuple(arguments)))
    assert launch.argv == (*LLAMA_SERVER.command, *(word for flag in launch.flags for word in flag.words))
    assert all(flag.reason and flag.subject for flag in launch.flags)


@given(models, machines, st.frozensets(st.sampled_from(sorted(LLAMA_SERVER.flags))))
def test_flags_that_the_engine_does_not_know_are_left_out(wanted: Model, on: Machine, known: frozenset[str]) -> None:
    """An engine ends at once on a flag that it does not know: better to say which one it lacks."""
    try:
        launch = launch_of(wanted, on, replace(LLAMA_SERVER, flags=known | ESSENTIAL))
    except EngineMissing as error:
        assert not set(LLAMA_SERVER.flags) <= known | ESSENTIAL
        assert error.hint
        return
    emitted = {word for word in launch.argv if word.startswith("-")}
    assert emitted <= known | ESSENTIAL


@given(models, machines, st.sampled_from([LLAMA_SERVER, EMBEDDED]))
def test_engines_know_every_flag(wanted: Model, on: Machine, engine: Installed) -> None:
    options = [word for word in launch_of(wanted, on, engine).argv[len(engine.command) :] if word.startswith("-")]
    assert set(options) <= engine.flags


@given(models, machines, st.integers(0, 2**40), st.integers(0, 2**40))
def test_launch_does_not_depend_on_what_is_free(wanted: Model, on: Machine, free: int, available: int) -> None:
    """Else a running unit would count as made from another launch as soon as anything took memory."""
    busy = replace(
        on, ram_available_bytes=available, gpus=tuple(replace(gpu, free_bytes=free, processes=()) for gpu in on.gpus)
    )
    assert launch_of(wanted, busy) == launch_of(wanted, on)


# --- what the user lays down


def test_context_from_settings_is_passed_on() -> None:
    launch = launch_of(settings=ModelSettings(context=8192))
    assert launch.argv[launch.argv.index("-c") + 1] == "8192"
    assert launch.context == 8192
    assert not [flag for flag in launch.flags if flag.subject == "--ctx-size"], "it is not left to the engine any more"


def test_context_without_a_setting_is_left_to_the_engine() -> None:
    assert launch_of().context == 0


def test_arguments_from_settings_come_last() -> None:
    assert launch_of(settings=ModelSettings(arguments=("--seed", "1"))).argv[-2:] == ("--seed", "1")


def test_ready_seconds_from_settings_are_used() -> None:
    assert launch_of(settings=ModelSettings(ready_seconds=7)).ready_seconds == 7


def test_first_installed_engine_that_serves_the_format_is_taken() -> None:
    other = VLLM
    chosen = choose(CHAT, machine(), [other, EMBEDDED, LLAMA_SERVER], socket=SOCKET, cache=CACHE)
    assert chosen.engine == "embedded"


def test_engine_from_settings_is_used() -> None:
    launch = choose(
        CHAT,
        machine(),
        [LLAMA_SERVER, EMBEDDED],
        socket=SOCKET,
        cache=CACHE,
        settings=ModelSettings(engine="embedded"),
    )
    assert launch.argv[: len(EMBEDDED.command)] == EMBEDDED.command
    assert launch.title == "embedded 2026.10"


# --- what is refused


def test_no_engine_for_gguf() -> None:
    with pytest.raises(EngineMissing, match="no engine for GGUF") as caught:
        choose(CHAT, machine(), [], socket=SOCKET, cache=CACHE, missing=missing)
    assert caught.value.hint == f"{EMBEDDED_ENGINE.how_to_install()}   # or put llama-server on PATH"


def test_no_engine_for_safetensors() -> None:
    with pytest.raises(EngineMissing, match="vLLM"):
        wanted = model(facts(format=Format.SAFETENSORS))
        choose(wanted, machine(), [LLAMA_SERVER, EMBEDDED], socket=SOCKET, cache=CACHE, missing=missing)


def test_missing_engine_from_settings() -> None:
    with pytest.raises(EngineMissing, match=r"mmd\.toml selects embedded for qwen3-8b") as caught:
        launch_of(settings=ModelSettings(engine="embedded"))
    assert '[models."qwen3-8b"]' in caught.value.hint


@pytest.mark.parametrize("word", ["/models/$HOME.gguf", "a;b"])
def test_word_that_systemd_would_not_keep_is_refused(word: str) -> None:
    with pytest.raises(WrongUsage, match=r"contains \$ or ;"):
        launch_of(settings=ModelSettings(arguments=("--chat-template", word)))


def test_model_that_does_not_fit_is_refused_with_both_sizes() -> None:
    with pytest.raises(DoesNotFit) as caught:
        launch_of(model(facts(weights_bytes=500 * GIB)))
    # 500 GiB, 4096 tokens of 144 KiB, and a quarter for compute; 12 GiB of VRAM and nine tenths of 31.2 GiB.
    assert "qwen3-8b needs at least 500.8 GiB" in caught.value.message
    assert "40.1 GiB" in caught.value.message


def test_missing_engine_is_said_before_memory() -> None:
    with pytest.raises(EngineMissing):
        choose(model(facts(weights_bytes=500 * GIB)), machine(), [], socket=SOCKET, cache=CACHE)


# --- what it needs, and what there is


def test_min_bytes_count_weights_projector_context_and_compute() -> None:
    its = facts(weights_bytes=GIB, context_length=40960, kv_bytes_per_token=1024)
    assert fit.min_bytes(its, projector_bytes=100) == GIB + 100 + 4096 * 1024 + GIB // 4


def test_least_bytes_of_a_shorter_context() -> None:
    assert fit.min_bytes(facts(weights_bytes=0, context_length=512, kv_bytes_per_token=10)) == 5120 + GIB // 4


def test_least_bytes_of_a_model_that_does_not_tell_its_context() -> None:
    assert fit.min_bytes(facts(weights_bytes=0, context_length=0, kv_bytes_per_token=10)) == 40960 + GIB // 4


def test_budget_is_all_vram_and_most_of_the_ram() -> None:
    here = machine("rtx4070-12g")
    assert fit.budget_bytes(here) == here.gpus[0].total_bytes + here.ram_total_bytes - here.ram_total_bytes // 10


def test_budget_without_gpu_is_most_of_the_ram() -> None:
    here = machine("cpu-only")
    assert fit.budget_bytes(here) == here.ram_total_bytes - max(GIB, here.ram_total_bytes // 10)


def test_budget_is_never_negative() -> None:
    assert fit.budget_bytes(replace(machine("cpu-only"), ram_total_bytes=GIB // 2)) == 0


def test_model_fits_to_the_byte() -> None:
    here = machine("cpu-only")
    exact = fit.budget_bytes(here) - fit.min_bytes(facts(weights_bytes=0))
    assert launch_of(model(facts(weights_bytes=exact)), here).needs_bytes == fit.budget_bytes(here)
    with pytest.raises(DoesNotFit):
        launch_of(model(facts(weights_bytes=exact + 1)), here)


# --- single decisions of llama.cpp


@pytest.mark.parametrize(("trained", "batch"), [(512, "512"), (0, "2048"), (8192, "8192"), (131072, "8192")])
def test_batch_of_an_embedding_model_holds_a_whole_input(trained: int, batch: str) -> None:
    wanted = replace(EMBEDDING, facts=replace(EMBEDDING.facts, context_length=trained))
    argv = launch_of(wanted).argv
    assert (argv[argv.index("-b") + 1], argv[argv.index("-ub") + 1]) == (batch, batch)


def test_vision_model_without_its_projector_is_served_as_chat() -> None:
    assert "--mmproj" not in launch_of(replace(VISION, projector=None)).argv


def test_completion_model_gets_no_word_about_templates() -> None:
    subjects = {flag.subject for flag in launch_of(model(facts(ModelType.COMPLETION))).flags}
    assert "--jinja" not in subjects


def test_environment_numbers_gpus_as_nvml_does() -> None:
    assert argv.environment(machine("rtx4070-12g")) == (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),)
    assert argv.environment(machine("cpu-only")) == ()


@pytest.mark.parametrize(("weights_bytes", "seconds"), [(0, 600), (30 * GIB, 644), (200 * GIB, 4294)])
def test_ready_seconds_grow_with_the_weights(weights_bytes: int, seconds: int) -> None:
    assert argv.ready_seconds(model(facts(weights_bytes=weights_bytes))) == seconds
