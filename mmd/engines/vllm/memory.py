"""The flags for vLLM's memory: its share of the GPU, its context, and the RAM it may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmd.engines.vllm.constants import VllmConstants
from mmd.engines.vllm.footprint import VllmMemory
from mmd.engines.vllm.options import vllm_options
from mmd.machine import Gpu, Machine
from mmd.plan import fit
from mmd.plan.allocation import Allocation
from mmd.plan.constants import Constants
from mmd.plan.engine import ServeOptions
from mmd.plan.launch import Flag
from mmd.plan.placement.devices import has_desktop
from mmd.quantities import GIB, MIB
from mmd.registry.record import Facts, ModelType

# vLLM refuses to start if less than its share is free after it has made its CUDA context, which takes 0.3 to 0.5 GiB.
# A desktop may take more at any moment.
_HEADROOM_BYTES = 3 * GIB // 4
_DESKTOP_HEADROOM_BYTES = GIB
MAX_UTILIZATION = 0.92  # the engine's own default since 0.20
# Its start-up plan is used again only with the same share, so a few MiB more or less must not change it.
_UTILIZATION_STEPS = 50
_SHARE_STEPS = 1000  # beside other models: with the pool's size given, vLLM has no start-up plan to keep

# Enough for one person. The default of 256 costs about 1.2 GiB of VRAM with a large vocabulary, and more graphs.
_SEQUENCES = 16
_MANY_SEQUENCES = 32
_LARGE_GPU_BYTES = 24 * GIB
_MAX_CPU_CACHE_BYTES = 4 * GIB
_MIN_CACHE_BYTES = 64 * MIB
# A shorter context ends conversations early; half as many bits per key and value lose less.
_SHORT_CONTEXT_TOKENS = 8192
_FP8_CAPABILITY = (8, 9)  # Ada, Hopper and newer; vLLM's Triton backend refuses it before

_FITS_ITS_LENGTH_SINCE = (0, 14)
# Before it, an engine that is killed leaves its file in /dev/shm behind, and the RAM with it.
_OFFLOADS_SINCE = (0, 30)
_MIN_OFFLOAD_GIB = 4
_MAX_OFFLOAD_GIB = 8

GENERATES = (ModelType.CHAT, ModelType.VISION, ModelType.COMPLETION)


def ram_reserve_bytes(machine: Machine) -> int:
    """Return the RAM that models leave to the rest of the machine."""
    return max(2 * GIB, machine.ram_total_bytes // 10)


def memory_flags(
    facts: Facts, machine: Machine, release: tuple[int, ...], options: ServeOptions, *, on_gpu: bool
) -> tuple[Flag, ...]:
    """Return the flags for a vLLM of this release; `machine` is as it will be when the resident model is unloaded.

    They are required: when memory runs out, vLLM names context and sequences, but without these flags it takes more.
    """
    allocation = options.allocation
    length = _length(facts, release, options.context)
    sequences = _sequences_flag(facts, _sequences(machine.gpus if on_gpu else ()))
    if not on_gpu:
        return (_cpu_cache_flag(facts, machine), length, *sequences)
    gpus = machine.gpus if allocation else _gpus_for(facts, machine)
    if allocation is None or allocation.is_alone:
        share, small_cache = _free_share_flags(gpus), _small_cache(facts, gpus)
    else:
        pool_bytes = _pool_bytes(facts, gpus, allocation)
        share, small_cache = _share_flags(gpus, pool_bytes), _small_cache(facts, gpus, pool_bytes, allocation.tokens)
    return (*share, length, *sequences, *small_cache, *_several_gpus(gpus), *_offload(facts, machine, release))


def _free_share_flags(gpus: tuple[Gpu, ...]) -> tuple[Flag, ...]:
    return (
        Flag(
            ("--gpu-memory-utilization", f"{_utilization(gpus):.2f}"),
            "--gpu-memory-utilization",
            "the share that is free now; vLLM does not start if less is free",
            measured=True,
            required=True,
        ),
    )


def _share_flags(gpus: tuple[Gpu, ...], pool_bytes: int) -> tuple[Flag, ...]:
    """Return both flags that vLLM needs beside other models: `gpus` have its share free.

    The first alone does not stop it from refusing a start where less than its default utilisation is free. With the
    second alone, it measures what its neighbours take or release meanwhile as its own.
    """
    context_bytes = VllmConstants().context_bytes + VllmConstants().context_error_bytes
    share = min((gpu.free_bytes - context_bytes) * _SHARE_STEPS // gpu.total_bytes for gpu in gpus)
    return (
        Flag(
            ("--kv-cache-memory-bytes", f"{pool_bytes // MIB}M"),
            "--kv-cache-memory-bytes",
            "for keys and values: what weights and computing leave of its share",
            measured=True,
            required=True,
        ),
        Flag(
            ("--gpu-memory-utilization", f"{max(1, share) / _SHARE_STEPS:.3f}"),
            "--gpu-memory-utilization",
            "its share, beside other models; vLLM does not start if less is free",
            measured=True,
            required=True,
        ),
    )


def _pool_bytes(facts: Facts, gpus: tuple[Gpu, ...], allocation: Allocation) -> int:
    """Return the size of the pool on each GPU, at least what a cache in RAM has."""
    if allocation.cache_mib is not None:
        return max(_MIN_CACHE_BYTES, allocation.cache_mib * MIB)
    memory = _on_gpus(facts, gpus, VllmConstants())
    parts = memory.on_devices(0, memory.error_bytes(memory.components(0)))
    return max(_MIN_CACHE_BYTES, min(gpu.free_bytes for gpu in gpus) - parts.each_bytes + parts.cache_bytes)


def vllm_memory(
    facts: Facts,
    machine: Machine,
    words: Sequence[str],
    *,
    projector_bytes: int,
    on_gpu: bool,
    constants: Constants,
) -> VllmMemory:
    """Return the formulas for these flags, with the values in `words` where they differ."""
    assert isinstance(constants, VllmConstants)
    laid_down = vllm_options(words)
    gpus = _gpus_for(facts, machine) if on_gpu and machine.gpus else ()
    memory = _on_gpus(facts, gpus, constants) if gpus else _on_cpu(facts, machine, constants)
    small = laid_down.small_numbers
    if gpus and laid_down.gpus:
        gpus = machine.gpus[: laid_down.gpus]
        memory = _on_gpus(facts, gpus, constants)
    if gpus and laid_down.utilization:
        share_bytes = int(sum(gpu.total_bytes for gpu in gpus) * laid_down.utilization)
        memory = replace(memory, share_bytes=share_bytes, fills_share=laid_down.pool_bytes is None)
    return replace(
        memory,
        pool_bytes=memory.pool_bytes if laid_down.pool_bytes is None else laid_down.pool_bytes * max(1, len(gpus)),
        sequences=laid_down.sequences if laid_down.sequences and memory.sequences else memory.sequences,
        wanted_context=laid_down.context or 0,
        small_numbers=bool(_words(_small_cache(facts, gpus))) if small is None and gpus else bool(small),
    )


def _on_cpu(facts: Facts, machine: Machine, constants: VllmConstants) -> VllmMemory:
    return VllmMemory(
        layout=fit.layout_of(facts),
        quant=facts.quant,
        gpus=0,
        gpu_bytes=0,
        share_bytes=machine.ram_total_bytes - ram_reserve_bytes(machine),
        pool_bytes=_cpu_cache_bytes(facts, machine),
        sequences=_conversations(facts, ()),
        takes_small_numbers=False,
        constants=constants,
    )


def _on_gpus(facts: Facts, gpus: tuple[Gpu, ...], constants: VllmConstants) -> VllmMemory:
    """Return the formulas with keys and values in 16 bits."""
    return VllmMemory(
        layout=fit.layout_of(facts),
        quant=facts.quant,
        gpus=len(gpus),
        gpu_bytes=min(gpu.total_bytes for gpu in gpus),
        share_bytes=int(sum(gpu.total_bytes for gpu in gpus) * _utilization(gpus)),
        pool_bytes=None,
        sequences=_conversations(facts, gpus),
        takes_small_numbers=min(_capability(gpu) for gpu in gpus) >= _FP8_CAPABILITY,
        constants=constants,
    )


def _words(flags: tuple[Flag, ...]) -> tuple[str, ...]:
    return tuple(word for flag in flags for word in flag.words)


def _length(facts: Facts, release: tuple[int, ...], context: int | None) -> Flag:
    name = "--max-model-len"
    if context is not None:
        return Flag((name, str(context)), name, "set in mmd.toml", required=True)
    if release < _FITS_ITS_LENGTH_SINCE:
        return Flag((), name, "left out: vLLM chooses what fits only since 0.14; mmd.toml can set a context")
    return Flag((name, "auto"), name, f"as much of its {facts.context_length} tokens as fits", required=True)


def usable_gpus(facts: Facts, machine: Machine) -> tuple[Gpu, ...]:
    """Return the GPUs that a model can be spread over: a power of two, by which its attention heads are divisible."""
    count = 1
    while count * 2 <= len(machine.gpus) and facts.attention_heads and facts.attention_heads % (count * 2) == 0:
        count *= 2
    return machine.gpus[:count]


def _utilization(gpus: tuple[Gpu, ...]) -> float:
    """Return the free share of the fullest GPU, rounded down to steps of 0.02."""
    return min(MAX_UTILIZATION, *(_steps(gpu) / _UTILIZATION_STEPS for gpu in gpus))


def _steps(gpu: Gpu) -> int:
    """Return at least 1: vLLM reports a share of 0 as a typing error, and one that is not free with the free amount."""
    headroom_bytes = _DESKTOP_HEADROOM_BYTES if has_desktop(gpu) else _HEADROOM_BYTES
    return max(1, (gpu.free_bytes - headroom_bytes) * _UTILIZATION_STEPS // gpu.total_bytes)


def _sequences(gpus: tuple[Gpu, ...]) -> int:
    is_large = bool(gpus) and min(gpu.total_bytes for gpu in gpus) > _LARGE_GPU_BYTES
    return _MANY_SEQUENCES if is_large else _SEQUENCES


def _conversations(facts: Facts, gpus: tuple[Gpu, ...]) -> int:
    """Return the number of requests at a time; 0 for a model that does not sample words."""
    return _sequences(gpus) if facts.type in GENERATES else 0


def _sequences_flag(facts: Facts, count: int) -> tuple[Flag, ...]:
    if facts.type not in GENERATES:
        return ()
    reason = "requests at a time, enough for one person; more cost VRAM and start-up time"
    return (Flag(("--max-num-seqs", str(count)), "--max-num-seqs", reason, required=True),)


def _cpu_cache_flag(facts: Facts, machine: Machine) -> Flag:
    """Return the size of the pool; without it vLLM takes nine tenths of the RAM."""
    return Flag(
        ("--kv-cache-memory-bytes", f"{_cpu_cache_bytes(facts, machine) // MIB}M"),
        "--kv-cache-memory-bytes",
        "an eighth of the RAM, or what its sequences can fill; vLLM would take nearly all of the RAM",
        required=True,
    )


def _cpu_cache_bytes(facts: Facts, machine: Machine) -> int:
    most = _SEQUENCES * facts.context_length * facts.kv_bytes_per_token
    room = min(_MAX_CPU_CACHE_BYTES, machine.ram_total_bytes // 8)
    return max(_MIN_CACHE_BYTES, min(most or room, room))


def _small_cache(
    facts: Facts, gpus: tuple[Gpu, ...], pool_bytes: int | None = None, tokens: int | None = None
) -> tuple[Flag, ...]:
    """Decide on 8 bits for keys and values: if a context that is not short, or these `tokens`, would not fit.

    `pool_bytes` is the pool on each GPU; None if it is what the free memory leaves.
    """
    if not facts.kv_bytes_per_token:
        return ()
    memory = _on_gpus(facts, gpus, VllmConstants())
    if pool_bytes is not None:
        share_bytes = memory.components(0).total_bytes + pool_bytes * len(gpus) - memory.outside_bytes()
        memory = replace(memory, pool_bytes=pool_bytes * len(gpus), share_bytes=share_bytes)
    trained = facts.context_length or _SHORT_CONTEXT_TOKENS
    wanted = min(trained, max(_SHORT_CONTEXT_TOKENS, tokens or 0))
    if memory.is_whole(wanted):
        return ()
    tokens = memory.room_tokens(wanted)
    if not memory.takes_small_numbers:
        reason = f"left to the engine: only about {tokens} tokens fit, but this GPU has no 8-bit floats"
        return (Flag((), "--kv-cache-dtype", reason),)
    reason = f"half the bits for keys and values, twice the context: only about {tokens} tokens would fit otherwise"
    return (Flag(("--kv-cache-dtype", "fp8"), "--kv-cache-dtype", reason, measured=True),)


def _capability(gpu: Gpu) -> tuple[int, ...]:
    return tuple(int(number) for number in gpu.compute_capability.split("."))


def _gpus_for(facts: Facts, machine: Machine) -> tuple[Gpu, ...]:
    """Return the first GPU if the model fits on it; else as many of those that it can be spread over as it needs."""
    gpus = usable_gpus(facts, machine)
    count = 1
    while count < len(gpus) and not _has_room(facts, gpus[:count]):
        count *= 2
    return gpus[:count]


def _has_room(facts: Facts, gpus: tuple[Gpu, ...]) -> bool:
    """True if the model fits on these GPUs when no other program uses them."""
    memory = _on_gpus(facts, gpus, VllmConstants())
    without_our_models = replace(memory, share_bytes=int(sum(gpu.total_bytes for gpu in gpus) * MAX_UTILIZATION))
    return without_our_models.is_whole(fit.min_context(facts.context_length))


def _several_gpus(gpus: tuple[Gpu, ...]) -> tuple[Flag, ...]:
    if len(gpus) == 1:
        return ()
    count = str(len(gpus))
    return (Flag(("--tensor-parallel-size", count), "--tensor-parallel-size", "one GPU cannot hold it", required=True),)


def _offload(facts: Facts, machine: Machine, release: tuple[int, ...]) -> tuple[Flag, ...]:
    """Return the flag for keys and values in RAM.

    vLLM allocates them at once and keeps them while it sleeps, so the RAM for sleep at level 1 is subtracted first.
    """
    if facts.type not in GENERATES or not facts.kv_bytes_per_token or release < _OFFLOADS_SINCE:
        return ()
    left_gib = (machine.ram_available_bytes - facts.weights_bytes - ram_reserve_bytes(machine)) // GIB
    # They are in /dev/shm, which has half of the RAM for all programs.
    size_gib = min(left_gib // 2, machine.ram_total_bytes // 4 // GIB, _MAX_OFFLOAD_GIB)
    if size_gib < _MIN_OFFLOAD_GIB:
        return ()
    reason = "GiB of RAM for conversations that do not fit on the GPU: half of what the weights leave"
    words = ("--kv-offloading-size", str(size_gib), "--kv-offloading-backend", "native")
    return (Flag(words, "--kv-offloading-size", reason, measured=True),)
