"""The memory of vLLM: what it uses outside its pool for keys and values, and what a context uses of the pool.

Facts: vLLM 0.32 (`gpu_worker.py`, `kv_cache_interface.py`) and published starts; the shares are in
`VllmConstants`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

from mmd.engines.vllm.constants import VllmConstants
from mmd.engines.vllm.kv_cache import vllm_cache_bytes
from mmd.plan import fit
from mmd.plan.estimate import Components
from mmd.plan.memory import CacheBytes, DeviceBytes, MemoryModel, MemorySplit, Variant, scaled
from mmd.quantities import GIB
from mmd.registry.layout import Layout

_MXFP4_HIDDEN_PAD = 256  # its kernels pad experts to this width: those of gpt-oss grow by a fifteenth
_WEIGHTS_ERROR = 0.005
_NUMBER_BYTES = 2
_SPARE_TOKENS = 256  # of the pool: a block that vLLM keeps for itself, in groups with large blocks
# Tokens of a batch: the engine's own default, by the GPU's size.
_BATCH_TOKENS = 2048
_LARGE_BATCH_TOKENS = 8192
_LARGE_BATCH_GPU_BYTES = 70 * GIB


@dataclass(frozen=True, slots=True)
class VllmMemory:
    """One model with a share of some GPUs, or of the RAM."""

    layout: Layout
    quant: str
    gpus: int  # 0 for the CPU
    gpu_bytes: int  # of the smallest; 0 for the CPU
    share_bytes: int  # of all these, or of the RAM
    pool_bytes: int | None  # for keys and values; None if they may fill the rest of the share
    sequences: int  # requests at a time
    takes_small_numbers: bool  # it can store keys and values in 8 bits
    constants: VllmConstants
    small_numbers: bool = False
    fills_share: bool = False  # the user has set its share, and its pool fills it
    wanted_context: int = 0  # that the command line asks for; 0 if the engine decides

    def components(self, context: int) -> Components:
        """Return the memory of all GPUs together."""
        kept = self.kept(context)
        return Components(
            weights_bytes=self._weights_bytes(),
            kv_bytes=kept.kv_bytes,
            state_bytes=kept.state_bytes,
            compute_bytes=self._activation_bytes() * max(1, self.gpus),
            projector_bytes=0,  # is among the weights
            overhead_bytes=self.outside_bytes() + self._inside_bytes(),
        )

    def error_bytes(self, components: Components) -> int:
        """Errors of parts that have nothing to do with each other add up by their squares."""
        constants = self.constants
        parts = (
            components.weights_bytes * _WEIGHTS_ERROR,
            components.compute_bytes * constants.compute_error + constants.compute_error_bytes,
            constants.context_error_bytes * self.gpus,
            constants.graphs_error_bytes * self.gpus or constants.process_error_bytes,
        )
        return round(sqrt(sum(part * part for part in parts)))

    def has_bytes(self) -> int:
        """Return the share plus CUDA's context, which is not part of it."""
        return self.share_bytes + self.outside_bytes()

    def min_bytes(self, context: int) -> int:
        """Return the memory without which it does not run, of the share."""
        return self.components(context).total_bytes - self.outside_bytes()

    def placement(self, context: int) -> MemorySplit:
        return MemorySplit(
            self.components(context),
            fits=self.is_whole(context),
            on_gpu=1.0 if self.gpus else 0.0,
            ram_bytes=0,
        )

    def on_devices(self, context: int, error_bytes: int) -> DeviceBytes:
        components, count = self.components(context + _SPARE_TOKENS), max(1, self.gpus)
        kept_bytes = components.kv_bytes + components.state_bytes
        cache_bytes = kept_bytes if self.pool_bytes is None else self.pool_bytes
        needs_bytes = components.total_bytes - kept_bytes + cache_bytes + error_bytes
        if self.fills_share:
            cache_bytes += max(0, self.has_bytes() - needs_bytes)
            needs_bytes = max(self.has_bytes(), needs_bytes)
        is_fixed = self.fills_share or self.pool_bytes is not None
        return DeviceBytes(-(-needs_bytes // count), cache_bytes // count, is_pool_fixed=is_fixed)

    def is_whole(self, context: int) -> bool:
        """True if it fits: vLLM does not put into RAM what a GPU cannot hold."""
        components = self.components(context)
        pool_bytes = components.kv_bytes + components.state_bytes
        if self.pool_bytes is not None and pool_bytes > self.pool_bytes:
            return False
        return components.total_bytes <= self.has_bytes()

    def max_context(self, trained: int) -> int:
        return fit.largest_context(trained, self.is_whole)

    def room_tokens(self, most: int) -> int:
        """Return how many tokens fit, up to `most`, even if too few to be useful."""
        per_token = self.components(most).kv_bytes / max(1, most)
        left_bytes = self.has_bytes() - self.components(0).total_bytes
        return min(most, int(max(0, left_bytes) / per_token)) if per_token else most

    def with_8_bit_cache(self) -> Variant | None:
        if self.small_numbers or not self.takes_small_numbers or not self.layout.caches:
            return None
        smaller = replace(self, small_numbers=True)
        return Variant(smaller, "keys and values as fp8", ("--kv-cache-dtype", "fp8"))

    def with_experts_in_ram(self, context: int) -> Variant | None:
        return None

    def with_weights(self, share: float) -> MemoryModel:
        return replace(self, layout=scaled(self.layout, share))

    def kept(self, context: int) -> CacheBytes:
        """Return the bytes of a context. Each GPU has a copy of latent keys; other keys are divided among the GPUs."""
        groups = self.layout.caches
        kept = vllm_cache_bytes(
            groups,
            context,
            number_bytes=1 if self.small_numbers else _NUMBER_BYTES,
            sequences=self.sequences,
            in_flight=self._batch_tokens(),
        )
        is_latent = any(layers.key_width and not layers.value_width for layers in groups)
        return CacheBytes(kept.kv_bytes * (max(1, self.gpus) if is_latent else 1), kept.state_bytes)

    def outside_bytes(self) -> int:
        """Return what the GPUs lose before vLLM takes its share: CUDA's context."""
        return self.constants.context_bytes * self.gpus

    def _weights_bytes(self) -> int:
        """Return the bytes of the weights, exact: Qwen3-8B has 15.256 GiB in its files and a table of 10 MiB, and vLLM
        logs 15.27 GiB.
        """
        layout, hidden = self.layout, self.layout.hidden_size
        loaded_bytes = layout.loaded_bytes - layout.float32_bytes // 2 + layout.rotation_bytes
        if "mxfp4" in self.quant and hidden:
            padded = -(-hidden // _MXFP4_HIDDEN_PAD) * _MXFP4_HIDDEN_PAD
            loaded_bytes += round(layout.routed_bytes * (padded / hidden - 1))
        return loaded_bytes

    def _activation_bytes(self) -> int:
        """Return the peak of vLLM's trial run: the sampler and a batch of tokens."""
        if not self.layout.hidden_size:
            return self.constants.unknown_compute_bytes
        logits = self.sequences * self.layout.vocabulary_size
        constants = self.constants
        return round(logits * constants.activation_bytes_per_logit * constants.compute_factor) + (
            _NUMBER_BYTES * self._batch_tokens() * self.layout.hidden_size
        )

    def _inside_bytes(self) -> int:
        """Return the bytes of graphs and libraries, inside the share; on the CPU those of the process."""
        constants = self.constants
        if not self.gpus:
            return constants.process_bytes
        beside = constants.non_torch_among_several_bytes if self.gpus > 1 else constants.non_torch_bytes
        return (constants.graphs_bytes + beside) * self.gpus

    def _batch_tokens(self) -> int:
        return _LARGE_BATCH_TOKENS if self.gpu_bytes >= _LARGE_BATCH_GPU_BYTES else _BATCH_TOKENS
