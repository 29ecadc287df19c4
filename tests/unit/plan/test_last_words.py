"""What an engine's last lines say. The texts in tests/last_words are what vLLM 0.32.0 wrote when it was provoked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmd.engines.llama.log import LOG_STYLE as LLAMA_STYLE
from mmd.engines.vllm.log import LOG_STYLE as VLLM_STYLE
from mmd.plan.choose import ModelSettings, choose
from mmd.plan.last_words import Refusal, cause_line, refused
from mmd.plan.launch import Flag, Launch
from mmd.registry.record import Format
from tests.unit.plan.planned import CHAT, GIB, LLAMA_SERVER, facts, machine, model, vllm_launch

FOLDER = Path(__file__).parents[2] / "last_words"

LLAMA = [
    "build: 11434",
    "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
    "srv    load_model: failed to load model, 'a.gguf'",
    "llama_server: exiting due to model loading error",
    "goodbye",
]
FREE = (
    "ValueError: Free memory on device cuda:0 (9.1/11.99 GiB) on startup is less than desired GPU memory utilization "
    "(0.92, 11.03 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)


def said_by_vllm(name: str) -> list[str]:
    return (FOLDER / f"{name}.txt").read_text().splitlines()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (LLAMA, LLAMA[1]),
        (["  one ", " two  "], "two"),
        (["Cannot open it", "bye"], "Cannot open it"),
        ([], ""),
        (["0.00.007.173 E failed to open it"], "failed to open it"),
        (["WARNING 11-21 05:42:00 [a.py:2] failed to raise the limit", "bye"], "bye"),
    ],
    ids=["the_cause_comes_first", "the_last_of_all", "case_is_no_matter", "nothing_was_said", "no_stamp", "no_warning"],
)
def test_cause_line(lines: list[str], told: str) -> None:
    assert cause_line(lines, LLAMA_STYLE, VLLM_STYLE) == told


def test_line_of_a_hook_does_not_count_as_cause() -> None:
    """The hook that waits for the driver runs in the engine's unit, and said the last word."""
    assert cause_line(["main: model loaded", "GPU free after 0.003 s"], LLAMA_STYLE) == "main: model loaded"
    assert cause_line(["GPU still in use after 4.000 s"], LLAMA_STYLE) == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unknown-argument", "vllm: error: unrecognized arguments: --num-scheduler-steps 10"),
        ("unknown-parser", "invalid tool call parser: foo (chose from {"),
        ("sleep-mode-on-cpu", "Sleep mode is not supported on current platform."),
        ("no-memory-for-cache", "No available memory for the cache blocks."),
        ("parser-without-its-token", "Llama3JsonToolParser could not locate the bot token"),
    ],
)
def test_cause_in_what_vllm_says_at_length(name: str, told: str) -> None:
    line = cause_line(said_by_vllm(name), VLLM_STYLE)
    assert line.startswith(told)
    assert len(line) <= 300


def launch(*flags: Flag) -> Launch:
    words = tuple(word for flag in flags for word in flag.words)
    return replace(
        choose(CHAT, machine(), [LLAMA_SERVER], socket="/s", cache="/cache"),
        argv=("vllm", "serve", *words),
        flags=flags,
    )


PARSER = Flag(("--tool-call-parser", "foo"), "--tool-call-parser", "its template")
UTILISATION = Flag(
    ("--gpu-memory-utilization", "0.9"), "--gpu-memory-utilization", "free now", measured=True, required=True
)
STEPS = Flag(("--num-scheduler-steps", "10"), "--num-scheduler-steps", "a guess")
CACHE = Flag(("--kv-cache-dtype", "fp8"), "--kv-cache-dtype", "memory is short")
SLEEP_MODE = Flag(("--enable-sleep-mode",), "--enable-sleep-mode", "so that it can sleep")


@pytest.mark.parametrize(
    ("lines", "subject"),
    [
        (said_by_vllm("unknown-argument"), "--num-scheduler-steps"),
        (said_by_vllm("unknown-parser"), "--tool-call-parser"),
        (said_by_vllm("parser-without-its-token"), "--tool-call-parser"),
        (["ValueError: kv_cache_dtype fp8 is not supported by FLASH_ATTN"], "--kv-cache-dtype"),
        (["vllm serve: error: argument --kv-cache-dtype: invalid choice: 'fp8'"], "--kv-cache-dtype"),
        (["error: invalid argument: --num-scheduler-steps"], "--num-scheduler-steps"),
    ],
)
def test_refused_flag_is_found_in_what_the_engine_said(lines: list[str], subject: str) -> None:
    refusal = refused(lines, launch(UTILISATION, PARSER, STEPS, CACHE, SLEEP_MODE).flags, VLLM_STYLE)
    assert refusal is not None
    assert refusal.subjects == (subject,)


@pytest.mark.parametrize("name", ["no-memory-for-cache", "sleep-mode-on-cpu"])
def test_other_deaths_refuse_nothing(name: str) -> None:
    assert refused(said_by_vllm(name), launch(UTILISATION, PARSER, STEPS, CACHE).flags, VLLM_STYLE) is None
    assert refused(LLAMA, launch(PARSER).flags, VLLM_STYLE) is None


@pytest.mark.parametrize(
    "advice",
    [
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 16 dummy requests. Please try "
        "lowering `max_num_seqs` or `gpu_memory_utilization` when initializing the engine.",
        "ValueError: To serve at least one request with the models's max seq len (2048), 0.50 GiB KV cache is needed. "
        "Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
    ],
)
def test_flag_in_an_advice_is_not_refused(advice: str) -> None:
    """Without it the engine would take more of what is short already, from then on."""
    length = Flag(("--max-model-len", "auto"), "--max-model-len", "what fits")
    sequences = Flag(("--max-num-seqs", "16"), "--max-num-seqs", "one person's")
    assert refused([advice], launch(length, sequences).flags, VLLM_STYLE) is None


def test_less_memory_than_measured_asks_for_another_try() -> None:
    assert refused(["INFO x", FREE], launch(UTILISATION, PARSER).flags, VLLM_STYLE) == Refusal((), FREE)


@pytest.mark.parametrize(
    "said",
    [
        "RuntimeError: CUDA out of memory occurred when warming up sampler with 16 dummy requests. Please try lowering "
        "`max_num_seqs` or `gpu_memory_utilization` when initializing the engine.",
        "ValueError: Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token. Try "
        "increasing `gpu_memory_utilization`.",
    ],
)
def test_memory_that_runs_out_refuses_nothing(said: str) -> None:
    """What saves memory was dropped for good, because vLLM speaks of it then: the next start wanted more."""
    planned = vllm_launch(model(facts(format=Format.SAFETENSORS)), machine("rtx4070-12g"))
    assert refused([said], planned.flags, VLLM_STYLE) is None


def test_smaller_cache_can_be_refused_though_it_was_measured() -> None:
    on = machine("rtx4070-12g")
    short = vllm_launch(model(facts(format=Format.SAFETENSORS, weights_bytes=9 * GIB)), on)
    said = "ValueError: kv_cache_dtype fp8 is not supported by FLASH_ATTN"
    assert refused([said], short.flags, VLLM_STYLE) == Refusal(("--kv-cache-dtype",), said)
    assert refused(["ValueError: --gpu-memory-utilization is not for you"], short.flags, VLLM_STYLE) is None


def test_users_own_flag_is_not_dropped() -> None:
    """They asked for it, and the message says what is wrong with it."""
    assert refused(said_by_vllm("unknown-argument"), launch(replace(STEPS, required=True)).flags, VLLM_STYLE) is None


def test_flag_is_not_taken_for_another_that_begins_like_it() -> None:
    short = Flag(("--kv-cache", "x"), "--kv-cache", "")
    assert refused(["ValueError: --kv-cache-dtype is wrong"], launch(short).flags, VLLM_STYLE) is None
    assert refused(["error: unrecognized arguments: --kv-cache-dtype fp8"], launch(short).flags, VLLM_STYLE) is None


def test_line_that_only_mentions_a_flag_refuses_nothing() -> None:
    lines = ["non-default args: --kv-cache-dtype fp8", "Using kv_cache_dtype fp8"]
    assert refused(lines, launch(CACHE).flags, VLLM_STYLE) is None


ASSERTION = "/build/ggml/src/ggml-backend.cpp:1434: GGML_ASSERT(*cur_backend_id != -1) failed"


def test_failed_assertion_refuses_repacking() -> None:
    """deepseek2 on a CPU with AMX: the line names no flag."""
    first = choose(CHAT, machine(), [LLAMA_SERVER], socket="/s", cache="/cache")
    lines = ["load_model: fitting", ASSERTION, "#16 0x00007fe64e6d4909 in llama_server(int, char**) ()"]
    assert refused(lines, first.flags, LLAMA_STYLE) == Refusal(("--repack",), ASSERTION)
    settings = ModelSettings(refused={first.title: {"--repack": ASSERTION}})
    later = choose(CHAT, machine(), [LLAMA_SERVER], socket="/s", cache="/cache", settings=settings)
    assert later.argv == (*first.argv, "--no-repack")
    assert refused(lines, later.flags, LLAMA_STYLE) is None, "it died of something else"
    reason = next(flag.reason for flag in later.flags if flag.subject == "--repack")
    assert reason.startswith(f"the engine failed without it before: {ASSERTION}")
    assert reason.endswith(f"mmd activate {CHAT.id} --ask-again")


@pytest.mark.parametrize("words", [("--repack",), ("-nr",), ("--threads", "2", "--no-repack")])
def test_repacking_that_the_user_set_is_not_changed(words: tuple[str, ...]) -> None:
    settings = ModelSettings(arguments=words, refused={LLAMA_SERVER.title: {"--repack": ASSERTION}})
    planned = choose(CHAT, machine(), [LLAMA_SERVER], socket="/s", cache="/cache", settings=settings)
    assert planned.argv[-len(words) :] == words
    assert refused([ASSERTION], planned.flags, LLAMA_STYLE) is None
