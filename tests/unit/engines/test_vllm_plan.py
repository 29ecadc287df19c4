"""vLLM's launches: the whole command on every machine as goldens, and properties of all of them.

`MMD_UPDATE_GOLDEN=1 pytest tests/unit/engines/test_vllm_plan.py` writes the goldens again.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.errors import DoesNotFit, EngineMissing
from mmd.machine import GpuProcess, Machine, load_machine
from mmd.plan.choose import ModelSettings
from mmd.plan.engine import Installed
from mmd.plan.launch import Launch, Sleep, WakeCheck
from mmd.registry.record import Format, Model, ModelType
from tests.unit.plan.planned import (
    GIB,
    MACHINES,
    SAFETENSORS_MODELS,
    SOCKET,
    VLLM,
    VLLM_CPU,
    facts,
    machine,
    model,
    vllm_launch,
)
from tests.unit.plan.test_choose import as_text

GOLDEN = Path(__file__).parents[2] / "golden" / "vllm"
CHAT, VISION, EMBEDDING, RERANKER, CLASSIFIER, COMPLETION = SAFETENSORS_MODELS
CPU_ONLY, RTX_4090 = machine("cpu-only"), machine("rtx4090-24g")
# Without these it cannot serve, or not safely; the others are only better.
ESSENTIAL = frozenset({"--served-model-name", "--uds"})

machines = st.sampled_from([load_machine(path) for path in MACHINES])
models = st.sampled_from(SAFETENSORS_MODELS)
words = st.text(st.characters(exclude_characters="$;"), min_size=1)


def value(launch: Launch, flag: str) -> str | None:
    """What stands behind a flag on the command line, the last time it is there."""
    places = [place for place, word in enumerate(launch.argv) if word == flag]
    return launch.argv[places[-1] + 1] if places else None


def reason(launch: Launch, subject: str) -> str:
    return next(flag.reason for flag in launch.flags if flag.subject == subject)


def options(launch: Launch) -> set[str]:
    return {word for word in launch.argv if word.startswith("-")}


def with_gpus(on: Machine, *, count: int = 1, total_bytes: int = 0, free_bytes: int = 0, desktop: str = "") -> Machine:
    """Return the machine's first GPU once for each of these sizes."""
    first = on.gpus[0]
    total_bytes = total_bytes or first.total_bytes
    users = (GpuProcess(1, GIB // 8, desktop),) if desktop else ()
    gpus = (
        replace(first, index=index, total_bytes=total_bytes, free_bytes=free_bytes or total_bytes, processes=users)
        for index in range(count)
    )
    return replace(on, gpus=tuple(gpus))


def changed(wanted: Model, **its: object) -> Model:
    return replace(wanted, facts=replace(wanted.facts, **its))  # type: ignore[arg-type]


# --- the commands


@pytest.mark.parametrize("wanted", SAFETENSORS_MODELS, ids=lambda model: model.facts.type)
@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.stem)
def test_command_on_a_machine(path: Path, wanted: Model) -> None:
    text = as_text(vllm_launch(wanted, load_machine(path)))
    golden = GOLDEN / f"{path.stem}-{wanted.facts.type}.txt"
    if os.environ.get("MMD_UPDATE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, "utf-8")
    assert text == golden.read_text("utf-8")


def test_no_golden_is_left_over() -> None:
    expected = {f"{path.stem}-{wanted.facts.type}.txt" for path in MACHINES for wanted in SAFETENSORS_MODELS}
    assert {path.name for path in GOLDEN.iterdir()} == expected


@given(models, machines, st.none() | st.integers(1, 10**6), st.lists(words))
def test_every_word_has_a_reason(wanted: Model, on: Machine, context: int | None, arguments: list[str]) -> None:
    launch = vllm_launch(wanted, on, settings=ModelSettings(context=context, arguments=tuple(arguments)))
    assert launch.argv == (*VLLM.command, *(word for flag in launch.flags for word in flag.words))
    assert all(flag.reason and flag.subject for flag in launch.flags)


@given(models, machines)
def test_engine_knows_every_flag_in_full(wanted: Model, on: Machine) -> None:
    """An abbreviation works, until a version has a second option that begins so."""
    assert options(vllm_launch(wanted, on)) <= VLLM.flags


@given(models, machines, st.frozensets(st.sampled_from(sorted(VLLM.flags))))
def test_flags_that_the_engine_does_not_know_are_left_out(wanted: Model, on: Machine, known: frozenset[str]) -> None:
    known |= ESSENTIAL
    here = replace(VLLM if on.gpus else VLLM_CPU, flags=known)
    launch, full = vllm_launch(wanted, on, here), vllm_launch(wanted, on)
    assert options(launch) <= known
    for subject in {flag.subject for flag in full.flags if flag.words} - known - {"model"}:
        assert f"vLLM {here.version} does not accept it" in reason(launch, subject)


@pytest.mark.parametrize("missing", sorted(ESSENTIAL))
def test_engine_that_cannot_be_reached_privately_is_refused(missing: str) -> None:
    """Refuse it before another model is unloaded: it would end at once."""
    with pytest.raises(EngineMissing, match=missing):
        vllm_launch(CHAT, engine=replace(VLLM, flags=VLLM.flags - {missing}))


@given(models, machines, st.integers(0, 2**40))
def test_lasting_command_does_not_depend_on_what_is_free(wanted: Model, on: Machine, free: int) -> None:
    """Else a running unit would count as made from another launch as soon as anything took memory."""
    gpus = tuple(replace(gpu, free_bytes=min(free, gpu.total_bytes), processes=()) for gpu in on.gpus)
    busy = replace(on, ram_available_bytes=free, gpus=gpus)
    assert vllm_launch(wanted, busy).stable_argv == vllm_launch(wanted, on).stable_argv


@given(models, machines)
def test_nobodys_code_is_trusted_unless_asked_for(wanted: Model, on: Machine) -> None:
    assert "--trust-remote-code" not in vllm_launch(wanted, on).argv
    asked = ModelSettings(arguments=("--trust-remote-code",))
    assert "--trust-remote-code" in vllm_launch(wanted, on, settings=asked).argv


@given(models, machines)
def test_engine_listens_on_the_socket_and_nowhere_else(wanted: Model, on: Machine) -> None:
    launch = vllm_launch(wanted, on)
    assert value(launch, "--uds") == SOCKET
    assert not {"--host", "--port"} & set(launch.argv)


# --- sleep


def test_model_on_a_gpu_sleeps_with_or_without_its_weights() -> None:
    launch = vllm_launch(CHAT, RTX_4090)
    reserve_bytes = RTX_4090.ram_total_bytes // 10
    assert launch.sleep == Sleep((1, 2), CHAT.facts.weights_bytes, reserve_bytes, WakeCheck.GENERATE)
    assert "--enable-sleep-mode" in launch.argv
    assert ("VLLM_SERVER_DEV_MODE", "1") in launch.environment


def test_model_on_a_cpu_is_only_paused() -> None:
    launch = vllm_launch(CHAT, CPU_ONLY)
    assert launch.sleep == Sleep((1,), 0, 2 * GIB, WakeCheck.GENERATE)
    assert "--enable-sleep-mode" not in launch.argv, "a CPU build does not start with it"
    assert not launch.uses_gpu


@pytest.mark.parametrize(
    "engine",
    [replace(VLLM, can_sleep=False, version="0.16.0"), replace(VLLM, flags=VLLM.flags - {"--enable-sleep-mode"})],
    ids=["old", "without the flag"],
)
def test_engine_that_cannot_sleep_is_stopped(engine: Installed) -> None:
    launch = vllm_launch(CHAT, RTX_4090, engine)
    assert launch.sleep is None
    assert "--enable-sleep-mode" not in launch.argv
    assert "left out" in reason(launch, "--enable-sleep-mode")


def test_engine_that_cannot_sleep_has_no_developers_endpoints() -> None:
    names = dict(vllm_launch(CHAT, engine=replace(VLLM, can_sleep=False)).environment)
    assert "VLLM_SERVER_DEV_MODE" not in names


@pytest.mark.parametrize(
    ("wanted", "wake_check"),
    [
        (CHAT, WakeCheck.GENERATE),
        (VISION, WakeCheck.GENERATE),
        (COMPLETION, WakeCheck.GENERATE),
        (EMBEDDING, WakeCheck.EMBED),
        (RERANKER, WakeCheck.SCORE),
        (CLASSIFIER, WakeCheck.CLASSIFY),
    ],
)
def test_wake_check_is_what_the_model_answers(wanted: Model, wake_check: WakeCheck) -> None:
    sleep = vllm_launch(wanted, RTX_4090).sleep
    assert sleep
    assert sleep.wake_check is wake_check


def test_build_for_cpus_leaves_the_gpu_alone() -> None:
    launch = vllm_launch(CHAT, RTX_4090, VLLM_CPU)
    assert not launch.uses_gpu
    assert "--gpu-memory-utilization" not in launch.argv
    assert launch.sleep == Sleep((1,), 0, RTX_4090.ram_total_bytes // 10, WakeCheck.GENERATE)
    assert "CUDA_DEVICE_ORDER" not in dict(launch.environment)


# --- memory of a GPU


@given(
    st.integers(4 * GIB, 200 * GIB),
    st.lists(st.integers(0, 1000), min_size=1, max_size=4),
    st.sampled_from(["", "Xorg"]),
)
def test_share_of_the_gpu_is_free_and_in_steps(total_bytes: int, free_permille: list[int], desktop: str) -> None:
    on = with_gpus(RTX_4090, count=len(free_permille), total_bytes=total_bytes, desktop=desktop)
    gpus = zip(on.gpus, free_permille, strict=True)
    on = replace(on, gpus=tuple(replace(gpu, free_bytes=total_bytes * part // 1000) for gpu, part in gpus))
    launch = vllm_launch(changed(CHAT, weights_bytes=GIB // 2), on)
    share = value(launch, "--gpu-memory-utilization")
    assert share is not None
    headroom_bytes = GIB if desktop else 3 * GIB // 4
    hundredths = round(float(share) * 100)
    assert share == f"{hundredths / 100:.2f}"
    assert hundredths % 2 == 0
    assert 2 <= hundredths <= 92
    room = on.gpus[0].free_bytes - headroom_bytes
    assert hundredths == 2 or hundredths * total_bytes <= room * 100, "vLLM does not start where less is free"
    if hundredths < 92:
        assert (hundredths + 2) * total_bytes > room * 100, "as much as there is"


@pytest.mark.parametrize(
    ("free_bytes", "desktop", "share"),
    [
        (24 * GIB, "", "0.92"),
        (23 * GIB, "", "0.92"),
        (12 * GIB, "", "0.46"),
        (12 * GIB, "gnome-shell", "0.44"),
        (GIB // 4, "", "0.02"),  # of 0.00 vLLM says that it "should be greater than 0", and not how much is free
    ],
)
def test_share_leaves_more_to_a_desktop(free_bytes: int, desktop: str, share: str) -> None:
    on = with_gpus(RTX_4090, total_bytes=24 * GIB, free_bytes=free_bytes, desktop=desktop)
    assert value(vllm_launch(CHAT, on), "--gpu-memory-utilization") == share


def test_share_is_what_the_fuller_of_two_gpus_has() -> None:
    on = with_gpus(RTX_4090, count=2, total_bytes=24 * GIB)
    fuller = replace(on, gpus=(on.gpus[0], replace(on.gpus[1], free_bytes=12 * GIB)))
    large = changed(CHAT, weights_bytes=30 * GIB)
    assert value(vllm_launch(large, fuller), "--gpu-memory-utilization") == "0.46"
    assert value(vllm_launch(CHAT, fuller), "--gpu-memory-utilization") == "0.92", "the second has no part in it"


@pytest.mark.parametrize(
    ("weights_gib", "context_length", "is_short"), [(4, 40960, False), (9, 40960, True), (9, 2048, False)]
)
def test_keys_and_values_are_halved_only_where_they_are_short(
    weights_gib: int, context_length: int, is_short: bool
) -> None:
    on = with_gpus(RTX_4090, total_bytes=12 * GIB)
    wanted = changed(CHAT, weights_bytes=weights_gib * GIB, context_length=context_length)
    launch = vllm_launch(wanted, on)
    assert value(launch, "--kv-cache-dtype") == ("fp8" if is_short else None)


@pytest.mark.parametrize(("capability", "dtype"), [("7.5", None), ("8.6", None), ("8.9", "fp8"), ("12.0", "fp8")])
def test_keys_and_values_are_halved_only_where_the_gpu_can(capability: str, dtype: str | None) -> None:
    """vLLM's Triton backend ends on it before 8.9."""
    on = with_gpus(RTX_4090, total_bytes=12 * GIB)
    on = replace(on, gpus=(replace(on.gpus[0], compute_capability=capability),))
    launch = vllm_launch(changed(CHAT, weights_bytes=9 * GIB), on)
    assert value(launch, "--kv-cache-dtype") == dtype
    assert "tokens" in reason(launch, "--kv-cache-dtype")


def test_model_without_a_cache_has_none_halved() -> None:
    on = with_gpus(RTX_4090, total_bytes=12 * GIB)
    wanted = changed(EMBEDDING, weights_bytes=10 * GIB, kv_bytes_per_token=0)
    assert "--kv-cache-dtype" not in vllm_launch(wanted, on).argv


@pytest.mark.parametrize(
    ("available_gib", "size"),
    # Of 64 GiB a tenth is the system's, and 6 are the weights, should the model sleep; half of what is left.
    [(60, "8"), (28, "7"), (20, None), (21, "4"), (8, None), (0, None)],
)
def test_conversations_move_to_ram_where_there_is_enough(available_gib: int, size: str | None) -> None:
    on = replace(RTX_4090, ram_total_bytes=64 * GIB, ram_available_bytes=available_gib * GIB)
    launch = vllm_launch(CHAT, on)
    assert value(launch, "--kv-offloading-size") == size
    assert value(launch, "--kv-offloading-backend") == (size and "native")


@pytest.mark.parametrize("wanted", [EMBEDDING, RERANKER, CLASSIFIER])
def test_only_conversations_move_to_ram(wanted: Model) -> None:
    assert "--kv-offloading-size" not in vllm_launch(wanted, RTX_4090).argv


def test_nothing_moves_to_ram_on_a_cpu() -> None:
    assert "--kv-offloading-size" not in vllm_launch(CHAT, replace(CPU_ONLY, ram_available_bytes=10**12)).argv


@pytest.mark.parametrize(("total_gib", "count"), [(24, "16"), (25, "32")])
def test_larger_gpus_answer_more_at_a_time(total_gib: int, count: str) -> None:
    on = with_gpus(RTX_4090, total_bytes=total_gib * GIB)
    assert value(vllm_launch(CHAT, on), "--max-num-seqs") == count
    assert "--max-num-seqs" not in vllm_launch(EMBEDDING, on).argv, "its inputs are short, and many"


# --- several GPUs


@pytest.mark.parametrize(
    ("weights_gib", "gpus", "heads", "count"),
    [
        (20, 4, 32, None),
        (30, 2, 32, "2"),
        (30, 4, 32, "2"),
        (70, 4, 32, "4"),
        (30, 2, 25, None),  # its heads do not divide
        (30, 2, 0, None),
        (70, 3, 32, None),  # two are not enough, and three do not divide
        (60, 4, 6, None),  # nor four
    ],
)
def test_model_is_spread_over_gpus_only_where_one_cannot_hold_it(
    weights_gib: int, gpus: int, heads: int, count: str | None
) -> None:
    on = with_gpus(RTX_4090, count=gpus, total_bytes=24 * GIB)
    wanted = changed(CHAT, weights_bytes=weights_gib * GIB, attention_heads=heads)
    if count is None and weights_gib > 24:
        with pytest.raises(DoesNotFit):  # before another model is unloaded for it
            vllm_launch(wanted, on)
        return
    assert value(vllm_launch(wanted, on), "--tensor-parallel-size") == count


# --- memory of a CPU


@pytest.mark.parametrize(
    ("ram_gib", "kv_bytes_per_token", "context_length", "size"),
    [
        (16, 147456, 40960, "2048M"),  # an eighth
        (256, 147456, 40960, "4096M"),  # no more than that
        (16, 1024, 4096, "64M"),  # what 16 sequences fill
        (16, 10, 10, "64M"),  # no less than that
        (16, 0, 40960, "2048M"),  # unknown
    ],
)
def test_cache_in_ram_has_bounds(ram_gib: int, kv_bytes_per_token: int, context_length: int, size: str) -> None:
    wanted = changed(CHAT, weights_bytes=GIB, kv_bytes_per_token=kv_bytes_per_token, context_length=context_length)
    launch = vllm_launch(wanted, replace(CPU_ONLY, ram_total_bytes=ram_gib * GIB))
    assert value(launch, "--kv-cache-memory-bytes") == size


# --- what does not fit, or cannot be served


def test_model_for_a_gpu_has_no_use_for_ram() -> None:
    wanted = changed(CHAT, weights_bytes=13 * GIB)
    with pytest.raises(DoesNotFit, match=r"this machine has 11\.0 GiB for models"):
        vllm_launch(wanted, machine("rtx4070-12g"))
    assert vllm_launch(wanted, machine("rtx4070-12g"), VLLM_CPU)


def test_build_for_gpus_without_a_gpu_is_refused() -> None:
    with pytest.raises(EngineMissing, match="a build for NVIDIA GPUs") as caught:
        vllm_launch(CHAT, CPU_ONLY, VLLM)
    assert "mmd engine install vllm" in caught.value.hint


@pytest.mark.parametrize("quant", ["bnb-4bit", "bnb-8bit"])
@pytest.mark.parametrize(("version", "has_it"), [("0.27.1", True), ("0.28.0", False), ("0.32.0", False)])
def test_bitsandbytes_is_refused_since_it_was_dropped(quant: str, version: str, has_it: bool) -> None:
    wanted, engine = changed(CHAT, quant=quant), replace(VLLM, version=version)
    if has_it:
        assert vllm_launch(wanted, engine=engine)
        return
    with pytest.raises(EngineMissing, match="bitsandbytes"):
        vllm_launch(wanted, engine=engine)


# --- what a model is for


@pytest.mark.parametrize("wanted", [EMBEDDING, RERANKER, CLASSIFIER])
def test_model_that_generates_nothing_says_so(wanted: Model) -> None:
    assert value(vllm_launch(wanted), "--runner") == "pooling"


@pytest.mark.parametrize(
    ("architecture", "becomes"),
    [
        ("Qwen3ForCausalLM", "Qwen3ForSequenceClassification"),
        ("Qwen3VLForConditionalGeneration", "Qwen3VLForSequenceClassification"),
        ("GemmaForCausalLM", "GemmaForSequenceClassification"),
        ("Qwen2ForCausalLM", "Qwen2ForSequenceClassification"),
        ("Qwen3ForSequenceClassification", None),
        ("XLMRobertaForSequenceClassification", None),
    ],
)
def test_reranker_published_as_a_generator_is_made_to_score(architecture: str, becomes: str | None) -> None:
    settings = value(vllm_launch(changed(RERANKER, architecture=architecture)), "--hf-overrides")
    assert (json.loads(settings)["architectures"] if settings else None) == (becomes and [becomes])


def test_embedding_model_is_not_made_to_score() -> None:
    assert "--hf-overrides" not in vllm_launch(EMBEDDING).argv


def test_images_are_limited() -> None:
    limits = value(vllm_launch(VISION), "--limit-mm-per-prompt")
    assert limits
    assert json.loads(limits) == {"image": 4, "video": 0, "audio": 0}
    assert "--limit-mm-per-prompt" not in vllm_launch(CHAT).argv


# --- what the user lays down


def with_arguments(*arguments: str, engine: Installed = VLLM) -> Launch:
    return vllm_launch(CHAT, engine=engine, settings=ModelSettings(arguments=arguments))


def test_context_from_settings_is_passed_on() -> None:
    launch = vllm_launch(CHAT, settings=ModelSettings(context=4096))
    assert value(launch, "--max-model-len") == "4096"
    assert launch.context == 4096
    assert launch.argv.count("--max-model-len") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--seed", "1"),
        ("--seed=1",),
        ("--max_num_seqs", "3"),
        ("--additional-config=--x",),
        ("-tp", "2", "-O3"),
        ("--hf-overrides.rope_theta", "1"),
        ("--no-enable-prefix-caching", "--lora-modules", "a=b", "c=d"),
        ("--of-a-plugin", "1"),
    ],
    ids=" ".join,
)
def test_arguments_from_settings_come_last_and_unchanged(arguments: tuple[str, ...]) -> None:
    assert with_arguments(*arguments).argv[-len(arguments) :] == arguments


@pytest.mark.parametrize(
    ("arguments", "instead", "why"),
    [
        (("--num-scheduler-steps", "8"), (), r"dropped in 0\.10\.2"),
        (("--num-scheduler-steps=8",), (), r"dropped in 0\.10\.2"),
        (("--num_scheduler_steps", "8"), (), r"dropped in 0\.10\.2"),
        (("--swap-space", "4"), (), "--kv-offloading-size"),
        (("--disable-log-requests",), (), "dropped"),
        (("--device", "cuda"), (), "dropped"),
        (("--disable-mm-preprocessor-cache",), ("--mm-processor-cache-gb", "0"), "now --mm-processor-cache-gb 0"),
        (("--override-pooler-config", "{}"), ("--pooler-config", "{}"), "for --pooler-config"),
        (
            ("--guided-decoding-backend=xgrammar",),
            ("--structured-outputs-config", '{"backend":"xgrammar"}'),
            "for --structured-outputs-config",
        ),
        (("--guided-decoding-backend",), (), "for --structured-outputs-config"),
        (("--rope-theta", "1e6"), (), "--hf-overrides"),
        (("--limit-mm-per-prompt", "image=2,video=1"), ("--limit-mm-per-prompt", '{"image":2,"video":1}'), "in JSON"),
        (("--limit_mm_per_prompt=image=2",), ("--limit-mm-per-prompt", '{"image":2}'), "in JSON"),
        (("--task", "embed"), ("--runner", "pooling"), "--task embed"),
        (("--task=score",), ("--runner", "pooling"), "--task score"),
        (("--task", "generate"), (), "--task generate"),
        (("--task", "transcribe"), ("--task", "transcribe"), "set in"),  # its own message says most
    ],
    ids=lambda argument: " ".join(argument) if isinstance(argument, tuple) else "",
)
def test_arguments_that_were_dropped_are_translated(
    arguments: tuple[str, ...], instead: tuple[str, ...], why: str
) -> None:
    flags = with_arguments("--seed", "1", *arguments, "-O3").flags
    its = [flag for flag in flags if "set in mmd.toml" in flag.reason]
    assert [word for flag in its for word in flag.words] in (
        ["--seed", "1", "-O3", *instead],
        ["--seed", "1", *instead, "-O3"],
    )
    assert any(why in flag.reason.replace("\\", "") or why.replace("\\", "") in flag.reason for flag in its)


def test_arguments_that_this_version_still_has_are_kept() -> None:
    old = replace(VLLM, version="0.10.1", flags=VLLM.flags | {"--swap-space", "--task"})
    assert with_arguments("--swap-space", "4", "--task", "embed", engine=old).argv[-4:] == (
        *("--swap-space", "4", "--task", "embed"),
    )


# --- what the engine has refused before


def test_flag_refused_before_is_left_out_with_the_engines_words() -> None:
    refused = {"vllm 0.32.0": {"--tool-call-parser": "no such token", "--uds": "no", "--seed": "no"}}
    launch = vllm_launch(CHAT, settings=ModelSettings(arguments=("--seed", "1"), refused=refused))
    assert not {"--tool-call-parser", "--enable-auto-tool-choice"} & set(launch.argv)
    left_out = reason(launch, "--tool-call-parser")
    assert left_out.endswith("no such token; try again: mmd activate qwen3-8b --ask-again")
    assert value(launch, "--uds") == SOCKET
    assert launch.argv[-2:] == ("--seed", "1")


def test_flag_refused_by_another_version_is_tried_again() -> None:
    refused = {"vllm 0.31.0": {"--tool-call-parser": "no such token"}}
    assert "--tool-call-parser" in vllm_launch(CHAT, settings=ModelSettings(refused=refused)).argv


def test_first_start_takes_as_long_as_the_disk() -> None:
    usual = vllm_launch(CHAT)
    assert usual.ready_seconds == 660
    assert "VLLM_ENGINE_READY_TIMEOUT_S" not in dict(usual.environment), "600 is its own"
    large = changed(CHAT, weights_bytes=40 * 10**9)
    launch = vllm_launch(large, with_gpus(RTX_4090, total_bytes=80 * GIB))
    assert launch.ready_seconds == 860
    assert dict(launch.environment)["VLLM_ENGINE_READY_TIMEOUT_S"] == "800"


def test_engine_waits_as_long_as_the_settings_say() -> None:
    """It gave up after ten minutes, however long the user had wanted it to take."""
    launch = vllm_launch(CHAT, settings=ModelSettings(ready_seconds=3600))
    assert dict(launch.environment)["VLLM_ENGINE_READY_TIMEOUT_S"] == "3540"


def test_facts_of_older_registries_suffice() -> None:
    """They have neither marks nor heads."""
    old = model(facts(ModelType.CHAT, format=Format.SAFETENSORS))
    assert not {"--tool-call-parser", "--reasoning-parser", "--tensor-parallel-size"} & set(vllm_launch(old).argv)


def test_aliases_are_left_out_if_the_engine_accepts_any_name() -> None:
    """An alias that is added while the model runs must not restart the model."""
    aliases = ModelSettings(aliases=("gpt-4o", "org/name"))
    with_them, without = vllm_launch(CHAT, CPU_ONLY, settings=aliases), vllm_launch(CHAT, CPU_ONLY)
    assert with_them == without
    assert dict(without.environment)["VLLM_SKIP_MODEL_NAME_VALIDATION"] == "1"


def test_old_vllm_is_told_the_aliases() -> None:
    old = replace(VLLM_CPU, version="0.20.1+cpu")
    launch = vllm_launch(CHAT, CPU_ONLY, engine=old, settings=ModelSettings(aliases=("gpt-4o", "org/name")))
    place = launch.argv.index("--served-model-name")
    assert launch.argv[place + 1 : place + 4] == (CHAT.id, "gpt-4o", "org/name")
