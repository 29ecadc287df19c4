"""The command line of llama.cpp's server: one decision and one reason per flag.

Guides of 2024 write `-ngl 999 --flash-attn`. The engine's defaults do better today: it fits layers and context to the
memory that is free when it loads, and a fixed `-ngl` or `-c` switches that off. Facts: llama.cpp b11434.
"""

from __future__ import annotations

from collections.abc import Sequence, Set

from mmd.errors import EngineMissing
from mmd.machine import Machine
from mmd.plan import fit
from mmd.plan.engine import Installed, ServeOptions
from mmd.plan.launch import Flag
from mmd.quantities import MIB
from mmd.registry.record import Model, ModelType

# A larger batch of tokens gains nothing for embeddings and costs compute buffer.
_MAX_BATCH_TOKENS = 8192
# Requests that the HTTP side takes at once. The default pool has a thread per CPU core: streams would wait for one
# another before they reach the model.
_HTTP_THREADS = 128
# The engine's own default for its prompt cache in RAM; mmd limits it to a sixteenth of the RAM.
_MAX_PROMPT_CACHE_MIB = 8192
_REPACK_SWITCHES = frozenset({"--repack", "-nr", "--no-repack"})
# An AMX build says so of deepseek2 (b11434): its AMX buffers accept attention weights with which the CPU backend then
# cannot multiply, so the scheduler finds no backend for that node (`ggml-backend.cpp`).
_NO_BACKEND = "GGML_ASSERT(*cur_backend_id != -1)"
# Types that continue a prompt, and so gain from a cached one.
_GENERATES = (ModelType.CHAT, ModelType.VISION, ModelType.COMPLETION)


def flags(
    model: Model,
    machine: Machine,
    engine: Installed,
    options: ServeOptions,
) -> tuple[Flag, ...]:
    """Return every decision in the order of the command line; those left to the engine come last, without words.

    `options.aliases` are not needed: the engine answers to any name. Raises EngineMissing if it is too old for the
    model's type.
    """
    for flag in _type_flags(model):
        if flag.subject not in engine.flags:
            raise EngineMissing(
                f"{engine.title} does not accept {flag.subject}, which {model.id} needs: {flag.reason}",
                hint=f"{engine.command[0]} --version   # a newer version accepts it",
            )
    context, arguments = options.context, options.arguments
    share_flags = _share_flags(machine, options)
    decided = (*_context_flag(context), *share_flags, *_service_flags(model, machine))
    return (
        Flag(("-m", model.path), "-m", "the model", required=True),
        Flag(
            ("--host", options.socket),
            "--host",
            "a Unix socket in a folder that only you can open",
            required=True,
            is_address=True,
        ),
        Flag(("--alias", model.id), "--alias", "the name that it answers to", required=True, is_address=True),
        *_type_flags(model),
        *(flag if flag.subject in engine.flags else _unknown_to(engine, flag) for flag in decided),
        *((Flag(arguments, arguments[0], "set in mmd.toml", required=True),) if arguments else ()),
        *_left_to_the_engine(model, machine, context, {flag.subject for flag in share_flags}),
        *_repack_flag(engine, arguments),
    )


def _unknown_to(engine: Installed, flag: Flag) -> Flag:
    return Flag((), flag.subject, f"left out: {engine.title} does not accept it ({flag.reason})")


def environment(machine: Machine) -> tuple[tuple[str, str], ...]:
    """Return the variables to set: devices are numbered as by NVML, so that mmd reads the GPU that the engine uses."""
    return (("CUDA_DEVICE_ORDER", "PCI_BUS_ID"),) if machine.gpus else ()


def budget_bytes(model: Model, machine: Machine, engine: Installed) -> int:
    return fit.budget_bytes(machine)


def breakdown_words(flags: Sequence[Flag], context: int) -> tuple[str, ...]:
    """Return the command line for which llama-server reports its memory: without addresses, and without the projector,
    which the report does not contain.
    """
    asked = (flag for flag in flags if not flag.is_address and flag.subject != "--mmproj")
    return (*(word for flag in asked for word in flag.words), "-c", str(context))


def device_counts(machine: Machine) -> tuple[int, ...]:
    """Return any number of GPUs: layers can be divided among them in any ratio."""
    return tuple(range(1, len(machine.gpus) + 1))


def on_gpu(machine: Machine, engine: Installed) -> bool:
    return bool(machine.gpus)


def ready_seconds(model: Model) -> int:
    """Return the seconds that a load may take: ten minutes, or as long as a disk of 50 MB/s needs for the weights."""
    return max(600, model.facts.weights_bytes // 50_000_000)


def _type_flags(model: Model) -> tuple[Flag, ...]:
    batch = str(min(model.facts.context_length or 2048, _MAX_BATCH_TOKENS))
    whole = (
        Flag(("-b", batch), "-b", "a batch holds the longest input that the model accepts"),
        Flag(("-ub", batch), "-ub", "an input is embedded in one batch; with the default of 512, longer ones fail"),
    )
    match model.facts.type:
        case ModelType.EMBEDDING:
            return (Flag(("--embedding",), "--embedding", "it is an embedding model", required=True), *whole)
        case ModelType.RERANKER:
            return (Flag(("--rerank",), "--rerank", "it is a reranking model", required=True), *whole)
        case ModelType.VISION if model.projector:
            return (Flag(("--mmproj", model.projector), "--mmproj", "its projector, for images", required=True),)
        case _:
            return ()


def _context_flag(context: int | None) -> tuple[Flag, ...]:
    return () if context is None else (Flag(("-c", str(context)), "-c", "set in mmd.toml", required=True),)


def _share_flags(machine: Machine, options: ServeOptions) -> tuple[Flag, ...]:
    """Return the flags that keep the engine to its share; none if it may take all that is free."""
    given = options.allocation
    if given is None or given.is_alone:
        return ()
    found = []
    if options.context is None and given.tokens is not None:
        reason = "the context for which it has memory beside other models"
        found.append(Flag(("-c", str(given.tokens)), "-c", reason, measured=True))
    devices = [device for gpu in machine.gpus if (device := given.device_of(gpu)) is not None]
    if devices:
        left_mib = (max(0, given.free_mib.get(one, given.share[one]) - given.share[one]) for one in devices)
        words = ("--fit-target", ",".join(str(size_mib) for size_mib in left_mib))
        found.append(Flag(words, "--fit-target", "MiB that it leaves free: all but its share", measured=True))
    if len(devices) > 1 and given.divided_mib:
        parts = ",".join(str(given.divided_mib.get(one, 0)) for one in devices)
        reason = "one GPU cannot hold it: its layers in proportion to the room on each"
        found.append(Flag(("--tensor-split", parts), "--tensor-split", reason, measured=True))
    return tuple(found)


def _service_flags(model: Model, machine: Machine) -> tuple[Flag, ...]:
    cache_mib = min(_MAX_PROMPT_CACHE_MIB, machine.ram_total_bytes // 16 // MIB)
    prompt_cache = Flag(
        ("--cache-ram", str(cache_mib)),
        "--cache-ram",
        f"RAM for cached prompts: a sixteenth of the RAM, at most {_MAX_PROMPT_CACHE_MIB} MiB",
    )
    return (
        *((prompt_cache,) if model.facts.type in _GENERATES else ()),
        Flag(("--threads-http", str(_HTTP_THREADS)), "--threads-http", "a thread for each of many streams"),
        Flag(("--metrics",), "--metrics", "serves counters for mmd's metrics"),
        Flag(("--no-webui",), "--no-webui", "clients reach it through the gateway only"),
    )


def _left_to_the_engine(model: Model, machine: Machine, context: int | None, limited: Set[str]) -> tuple[Flag, ...]:
    layers = "as many as fit on the GPU; a number would switch that off" if machine.gpus else "no GPU was found"
    left = [
        Flag((), "--gpu-layers", f"left to the engine: {layers}"),
        Flag((), "--fit", "left to the engine: on, it measures the free memory when it loads"),
        Flag((), "--flash-attn", "left to the engine: auto, on if the device supports it"),
        Flag((), "--parallel", "left to the engine: four slots share one cache, and each may use all of it"),
        Flag((), "--load-mode", "left to the engine: mmap, so that a model is loaded again from the page cache"),
    ]
    if context is None and "-c" not in limited:
        trained = model.facts.context_length
        upto = f"the model's {trained} tokens" if trained else "what the model was trained for"
        left.append(Flag((), "--ctx-size", f"left to the engine: {upto}, less if memory is short"))
    if model.facts.chat_template:
        left.append(Flag((), "--jinja", "left to the engine: on, tool calls and reasoning follow the model's template"))
    return tuple(left)


def _repack_flag(engine: Installed, arguments: tuple[str, ...]) -> tuple[Flag, ...]:
    """Return the decision that a refusal turns into --no-repack; none if the user has decided."""
    if "--no-repack" not in engine.flags or _REPACK_SWITCHES & set(arguments):
        return ()
    reason = "left to the engine: on, it lays out weights in RAM for this CPU"
    return (Flag((), "--repack", reason, refused_by=_NO_BACKEND, instead=("--no-repack",)),)
