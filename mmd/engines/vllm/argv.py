"""The command line of vLLM: one decision and one reason per flag, and only flags that the installed version accepts.

Facts: vLLM 0.32, and what 0.10 to 0.33 accept (tried, or read in their source).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from mmd.engines.vllm.arguments import translated
from mmd.engines.vllm.installed import as_vllm
from mmd.engines.vllm.memory import GENERATES, MAX_UTILIZATION, memory_flags, ram_reserve_bytes, usable_gpus
from mmd.engines.vllm.options import vllm_options
from mmd.engines.vllm.parsers import reasoning_parser, tool_parser
from mmd.errors import EngineMissing
from mmd.machine import Machine
from mmd.plan.engine import Installed, ServeOptions
from mmd.plan.launch import Flag, Sleep, WakeCheck
from mmd.registry.record import Facts, Model, ModelType

_UNQUANTISED = ("bf16", "f16", "f32", "f64")  # as in `Facts.quant`
_NO_BITSANDBYTES_SINCE = (0, 28)
_ANY_NAME_SINCE = (0, 21)
# vLLM 0.32, `get_min_capability` of each; what is not quantised needs what its kernels need.
_MIN_CAPABILITIES = {"bitsandbytes": (7, 0), "mxfp4": (8, 0), "modelopt": (8, 0), "fp_quant": (10, 0)}
_MIN_CAPABILITY = (7, 5)
_IMPORT_SECONDS = 60  # before it loads; it takes ten on a fast machine
_LOAD_SECONDS = 600  # vLLM's own limit for its engine
# Without these no client could reach it, or any could; `--uds` exists since 0.10.2.
_ESSENTIAL = ("--served-model-name", "--uds")

# Rerankers published as generators, with the overrides that make vLLM compute the score from their answer words.
_RERANKERS = {
    "Qwen3ForCausalLM": {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    },
    "Qwen3VLForConditionalGeneration": {
        "architectures": ["Qwen3VLForSequenceClassification"],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    },
    "GemmaForCausalLM": {
        "architectures": ["GemmaForSequenceClassification"],
        "classifier_from_token": ["Yes"],
        "method": "no_post_processing",
    },
    "Qwen2ForCausalLM": {
        "architectures": ["Qwen2ForSequenceClassification"],
        "classifier_from_token": ["0", "1"],
        "method": "from_2_way_softmax",
    },
}


def flags(
    model: Model,
    machine: Machine,
    engine: Installed,
    options: ServeOptions,
) -> tuple[Flag, ...]:
    """Return every decision in the order of the command line; those left to the engine, or left out, come last.

    Raises EngineMissing if this vLLM cannot serve the model, or not on this machine.
    """
    _require_able(model, machine, engine)
    decided = (
        *_runner(model.facts),
        *memory_flags(model.facts, machine, _release(engine), options, on_gpu=on_gpu(machine, engine)),
        *_sleep_flags(machine, engine),
        *_vision(model.facts),
        *_parsers(model.facts, engine),
        Flag(("--disable-uvicorn-access-log",), "--disable-uvicorn-access-log", "requests do not fill the journal"),
        Flag(("--disable-fastapi-docs",), "--disable-fastapi-docs", "clients reach it through the gateway only"),
    )
    return (
        Flag((model.path,), "model", "the model", required=True),
        _names(model, options.aliases, engine),
        Flag(
            ("--uds", options.socket),
            "--uds",
            "a Unix socket in a folder that only you can open",
            required=True,
            is_address=True,
        ),
        *(flag if _takes(engine, flag) else _unknown_to(engine, flag) for flag in decided),
        *translated(options.arguments, engine),
        *_left_to_the_engine(model.facts, machine, engine),
    )


def environment(machine: Machine, engine: Installed, *, cache: str, ready_seconds: int) -> tuple[tuple[str, str], ...]:
    """Return the variables to set.

    All models of a version share a folder in `cache`: vLLM keys what it compiles by model and settings.
    """
    load_seconds = ready_seconds - _IMPORT_SECONDS
    return (
        *((("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),) if on_gpu(machine, engine) else ()),
        ("VLLM_CACHE_ROOT", cache_root(cache, engine.version)),
        # Endpoints for sleep and wake, which only the hooks can reach: the socket is in a folder of the user.
        *((("VLLM_SERVER_DEV_MODE", "1"),) if engine.can_sleep else ()),
        # The next start with the same settings uses the memory that the first one measured.
        ("VLLM_ENABLE_STARTUP_PLAN", "1"),
        # It would give up earlier than the unit.
        *((("VLLM_ENGINE_READY_TIMEOUT_S", str(load_seconds)),) if load_seconds > _LOAD_SECONDS else ()),
        # The gateway has resolved the name already, and a new alias works at once.
        ("VLLM_SKIP_MODEL_NAME_VALIDATION", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("HF_HUB_OFFLINE", "1"),
        ("NO_COLOR", "1"),
    )


def cache_root(cache: str, version: str) -> str:
    return f"{cache}/vllm/{version}"


def budget_bytes(model: Model, machine: Machine, engine: Installed) -> int:
    """Return the memory that the model may take: vLLM does not put into RAM what a GPU cannot hold."""
    if on_gpu(machine, engine):
        return int(sum(gpu.total_bytes for gpu in usable_gpus(model.facts, machine)) * MAX_UTILIZATION)
    return machine.ram_total_bytes - ram_reserve_bytes(machine)


def device_counts(model: Model, machine: Machine, engine: Installed, arguments: Sequence[str]) -> tuple[int, ...]:
    """Return the powers of two by which the attention heads can be divided, or the user's --tensor-parallel-size."""
    if not on_gpu(machine, engine):
        return ()
    if wanted := vllm_options(arguments).gpus:
        return (wanted,)
    most = len(usable_gpus(model.facts, machine))
    return tuple(1 << power for power in range(most.bit_length()))


def on_gpu(machine: Machine, engine: Installed) -> bool:
    return bool(machine.gpus) and as_vllm(engine).platform != "cpu"


def ready_seconds(model: Model) -> int:
    """Return the seconds that a load may take.

    Eleven minutes, because vLLM gives its engine ten; or as long as a disk of 50 MB/s needs for the weights.
    """
    return _IMPORT_SECONDS + max(_LOAD_SECONDS, model.facts.weights_bytes // 50_000_000)


def sleep(model: Model, machine: Machine, engine: Installed) -> Sleep | None:
    """Return how it sleeps; None if it has to be stopped instead."""
    if not engine.can_sleep:
        return None
    reserve_bytes = ram_reserve_bytes(machine)
    if not on_gpu(machine, engine):
        # Sleep only pauses it: its weights stay in RAM.
        return Sleep((1,), 0, reserve_bytes, _wake_check(model.facts))
    if "--enable-sleep-mode" not in engine.flags:
        return None
    return Sleep((1, 2), model.facts.weights_bytes, reserve_bytes, _wake_check(model.facts))


def min_capability(quant: str) -> tuple[int, ...]:
    return _MIN_CAPABILITIES.get(quant, _MIN_CAPABILITY)


def _wake_check(facts: Facts) -> WakeCheck:
    match facts.type:
        case ModelType.EMBEDDING:
            return WakeCheck.EMBED
        case ModelType.RERANKER:
            return WakeCheck.SCORE
        case ModelType.CLASSIFIER:
            return WakeCheck.CLASSIFY
        case _:
            return WakeCheck.GENERATE


def _require_able(model: Model, machine: Machine, engine: Installed) -> None:
    for option in _ESSENTIAL:
        if option not in engine.flags:
            raise EngineMissing(
                f"vLLM {engine.version} does not accept {option}, which mmd needs",
                hint="mmd engine install vllm   # a newer version accepts it",
            )
    if not machine.gpus and as_vllm(engine).platform == "cuda":
        raise EngineMissing(
            f"{engine.command[0]} is a build for NVIDIA GPUs, and NVIDIA's driver reports no GPU",
            hint="mmd engine install vllm   # the build for this machine's CPU; or see: nvidia-smi",
        )
    if model.facts.quant.startswith("bnb-") and _release(engine) >= _NO_BITSANDBYTES_SINCE:
        raise EngineMissing(
            f"{model.id} is quantised with bitsandbytes, which vLLM {engine.version} has dropped (0.27 was the last)",
            hint="mmd engine install vllm --version 0.27.1   # or take an AWQ, GPTQ or FP8 quantisation of it",
        )


def _names(model: Model, aliases: tuple[str, ...], engine: Installed) -> Flag:
    """Return the names that it answers to; the first one, the id, is the name in its responses."""
    option = "--served-model-name"
    if _release(engine) >= _ANY_NAME_SINCE:
        return Flag((option, model.id), option, "the name that it answers to", required=True, is_address=True)
    reason = f"the names that it answers to: {engine.version} refuses all others"
    return Flag((option, model.id, *aliases), option, reason, required=True, is_address=True)


def _runner(facts: Facts) -> tuple[Flag, ...]:
    if facts.type in GENERATES:
        return ()
    pooling = Flag(("--runner", "pooling"), "--runner", f"a model for {facts.type} generates no text", required=True)
    overrides = _RERANKERS.get(facts.architecture) if facts.type is ModelType.RERANKER else None
    if overrides is None:
        return (pooling,)
    as_scores = Flag(
        ("--hf-overrides", json.dumps(overrides, separators=(",", ":"))),
        "--hf-overrides",
        "it was published as a generator: its score is computed from its answer words",
        required=True,
    )
    return pooling, as_scores


def _sleep_flags(machine: Machine, engine: Installed) -> tuple[Flag, ...]:
    reason = "it can release the GPU and keep its process"
    if not on_gpu(machine, engine):
        return (Flag((), "--enable-sleep-mode", "left out: a CPU build refuses it; asleep, the weights stay in RAM"),)
    if not engine.can_sleep:
        why = f"left out: asleep, {engine.version} keeps its memory or crashes (0.17 does not); it is stopped instead"
        return (Flag((), "--enable-sleep-mode", why),)
    return (Flag(("--enable-sleep-mode",), "--enable-sleep-mode", reason, required=True),)


def _vision(facts: Facts) -> tuple[Flag, ...]:
    if facts.type is not ModelType.VISION:
        return ()
    limits = json.dumps({"image": 4, "video": 0, "audio": 0}, separators=(",", ":"))
    return (
        Flag(
            ("--limit-mm-per-prompt", limits),
            "--limit-mm-per-prompt",
            "four images per prompt: vLLM reserves VRAM for all that are allowed, by default 999 of each kind",
        ),
        Flag(
            ("--mm-processor-cache-gb", "1"),
            "--mm-processor-cache-gb",
            "GiB of RAM for prepared images, instead of 4",
        ),
    )


def _parsers(facts: Facts, engine: Installed) -> tuple[Flag, ...]:
    if facts.type not in (ModelType.CHAT, ModelType.VISION):
        return ()
    tool, reasoning = tool_parser(facts, as_vllm(engine)), reasoning_parser(facts, as_vllm(engine))
    uncertain = "left out: its chat template does not identify one for certain"
    return (
        Flag(
            ("--enable-auto-tool-choice", "--tool-call-parser", tool) if tool else (),
            "--tool-call-parser",
            "the format of tool calls in its chat template" if tool else uncertain,
        ),
        Flag(
            ("--reasoning-parser", reasoning) if reasoning else (),
            "--reasoning-parser",
            "its chat template makes it write reasoning"
            if reasoning
            else f"{uncertain}, and a wrong one empties replies",
        ),
    )


def _takes(engine: Installed, flag: Flag) -> bool:
    return all(word in engine.flags for word in flag.words if word.startswith("--"))


def _unknown_to(engine: Installed, flag: Flag) -> Flag:
    return Flag((), flag.subject, f"left out: vLLM {engine.version} does not accept it ({flag.reason})")


def _release(engine: Installed) -> tuple[int, ...]:
    return tuple(int(part) for part in engine.version.split(".") if part.isdecimal())


def _left_to_the_engine(facts: Facts, machine: Machine, engine: Installed) -> tuple[Flag, ...]:
    left = [
        Flag((), "--dtype", "left to the engine: the type of the weights"),
        Flag((), "--trust-remote-code", "left out: it runs code from the model's folder; mmd.toml can set it"),
    ]
    if facts.quant not in _UNQUANTISED:
        why = f"left to the engine: the files say {facts.quant}; naming it can force slow kernels"
        left.insert(0, Flag((), "--quantization", why))
    if facts.type in GENERATES:
        left += [
            Flag((), "--async-scheduling", "left to the engine: on since 0.14, replaces --num-scheduler-steps"),
            Flag((), "--enable-chunked-prefill", "left to the engine: on, like prefix caching"),
        ]
    if on_gpu(machine, engine):
        left.append(Flag((), "--attention-backend", "left to the engine: the best one for this GPU"))
    return tuple(left)
