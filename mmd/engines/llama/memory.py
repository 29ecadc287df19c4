"""The memory of llama-server: what it takes on the GPU, in RAM, and the largest context that fits.

Facts: llama.cpp b11434. It measures before it loads, leaves 1 GiB of every GPU free, shortens a context that the user
did not set to 4096 tokens at least, and then puts layers into RAM, routed experts first (`common/fit.cpp`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt

from mmd.engines.llama.constants import LlamaConstants
from mmd.engines.llama.kv_cache import CACHE_TYPES, LlamaCache, llama_cache_bytes
from mmd.engines.llama.options import LlamaOptions, llama_options
from mmd.engines.llama.repack import repacked_bytes
from mmd.machine import Machine
from mmd.plan import fit
from mmd.plan.constants import Constants
from mmd.plan.estimate import Components
from mmd.plan.memory import DeviceBytes, MemoryModel, MemorySplit, Variant, scaled
from mmd.quantities import GIB
from mmd.registry.layout import Layers, Layout
from mmd.registry.record import Facts

_LEFT_FREE_BYTES = GIB  # of every GPU: `--fit-target`
_WEIGHTS_ERROR = 0.001  # what alignment adds
_SMALL_TYPE = "q8_0"
_PLAIN_TYPES = ("f16", "bf16", "f32")
# Copies of inputs: the next batches are prepared while several GPUs compute one after another.
_COPIES_AMONG_SEVERAL = 4


@dataclass(frozen=True, slots=True)
class LlamaMemory:
    """One model under one command line on one machine."""

    layout: Layout
    machine: Machine
    options: LlamaOptions
    projector_bytes: int
    constants: LlamaConstants
    is_amx_build: bool = True  # it uses AMX if the CPU has it

    @property
    def wanted_context(self) -> int:
        return self.options.cache.context

    def cache(self, context: int) -> LlamaCache:
        return replace(self.options.cache, context=context)

    def components(self, context: int) -> Components:
        """Return the memory on all GPUs together, as if they held every layer; in RAM without a GPU."""
        cache_bytes = llama_cache_bytes(self.layout.caches, self.cache(context))
        gpus = len(self.machine.gpus)
        constants = self.constants
        return Components(
            weights_bytes=self._weights_bytes(),
            kv_bytes=cache_bytes.kv_bytes,
            state_bytes=cache_bytes.state_bytes,
            compute_bytes=round(self._compute_bytes(context) * constants.compute_factor),
            projector_bytes=round(self.projector_bytes * constants.projector_factor),
            overhead_bytes=constants.context_bytes * gpus or constants.process_bytes,
        )

    def error_bytes(self, components: Components) -> int:
        """Errors of parts that have nothing to do with each other add up by their squares."""
        constants, gpus = self.constants, len(self.machine.gpus)
        parts = (
            components.weights_bytes * _WEIGHTS_ERROR,
            components.compute_bytes * constants.compute_error + constants.compute_error_bytes * max(1, gpus),
            components.projector_bytes * constants.projector_error,
            constants.context_error_bytes * gpus or constants.process_error_bytes,
        )
        return round(sqrt(sum(part * part for part in parts)))

    def has_bytes(self) -> int:
        """Return the bytes that are free on the GPUs, without those that the engine leaves free."""
        if not self.machine.gpus:
            return fit.budget_bytes(self.machine)
        return sum(max(0, gpu.free_bytes - _LEFT_FREE_BYTES) for gpu in self.machine.gpus)

    def min_bytes(self, context: int) -> int:
        """Return the memory without which it does not run, of GPUs and RAM together."""
        return self.components(context).total_bytes + self._aside_bytes()

    def on_devices(self, context: int, error_bytes: int) -> DeviceBytes:
        """Layers are divided whole, and the output layer like one of them: each device has room for one more."""
        components, count = self.components(context), max(1, len(self.machine.gpus))
        kept_bytes = components.kv_bytes + components.state_bytes
        divided_bytes = components.weights_bytes + kept_bytes
        movable_bytes = divided_bytes if self.machine.gpus else 0
        if count == 1:
            return DeviceBytes(components.total_bytes + error_bytes, kept_bytes, movable_bytes=movable_bytes)
        layer_bytes = divided_bytes // max(1, self.layout.layer_count)
        beside_bytes = components.compute_bytes + components.overhead_bytes + error_bytes
        each_bytes = -(-beside_bytes // count) + max(layer_bytes, self.layout.output_bytes + self.layout.copied_bytes)
        # The projector is on the first device, whichever that is.
        return DeviceBytes(
            each_bytes + components.projector_bytes, divided_bytes=divided_bytes, movable_bytes=movable_bytes
        )

    def placement(self, context: int) -> MemorySplit:
        components = self.components(context)
        fits = self.min_bytes(context) <= fit.budget_bytes(self.machine) and self._fits_aside
        if not self.machine.gpus:
            return MemorySplit(components, fits, on_gpu=0.0, ram_bytes=0)
        spilled_bytes = max(0, components.total_bytes - self.has_bytes())
        return MemorySplit(
            components, fits, on_gpu=self._share(components), ram_bytes=self._aside_bytes() + spilled_bytes
        )

    def max_context(self, trained: int) -> int:
        """Return the largest context with every layer on the GPU; the smallest useful one if the engine has to put
        layers into RAM; 0 if that does not help either.
        """
        found = fit.largest_context(trained, self.is_whole)
        least = fit.min_context(trained)
        return found or (least if self.machine.gpus and self.placement(least).fits else 0)

    def is_whole(self, context: int) -> bool:
        return self._fits_aside and self.components(context).total_bytes <= self.has_bytes()

    def with_8_bit_cache(self) -> Variant | None:
        if self.options.cache.key_type not in _PLAIN_TYPES or not self.layout.caches:
            return None
        if _head_width(self.layout) % CACHE_TYPES[_SMALL_TYPE][0]:  # the engine refuses such a width: Phi-2 has 80
            return None
        cache = replace(self.options.cache, key_type=_SMALL_TYPE, value_type=_SMALL_TYPE)
        smaller = replace(self, options=replace(self.options, cache=cache))
        return Variant(smaller, f"keys and values as {_SMALL_TYPE}", ("-ctk", _SMALL_TYPE, "-ctv", _SMALL_TYPE))

    def with_experts_in_ram(self, context: int) -> Variant | None:
        for layers in range(1, self.layout.layer_count + 1 if self.layout.routed_bytes else 1):
            tried = replace(self, options=replace(self.options, cpu_expert_layers=layers))
            if tried.is_whole(context):
                change = f"the experts of {layers} of its {self.layout.layer_count} layers in RAM"
                return Variant(tried, change, ("--n-cpu-moe", str(layers)))
        return None

    def with_weights(self, share: float) -> MemoryModel:
        return replace(self, layout=scaled(self.layout, share))

    def _weights_bytes(self) -> int:
        layout = self.layout
        if not self.machine.gpus:
            return layout.loaded_bytes + self._repacked_bytes()
        on_gpu_bytes = layout.repeating_bytes + layout.routed_bytes - self._cpu_expert_bytes()
        return on_gpu_bytes + layout.output_bytes + layout.copied_bytes

    def _repacked_bytes(self) -> int:
        if not self.options.repacks:
            return 0
        return repacked_bytes(self.layout, set(self.machine.cpu_features), is_amx_build=self.is_amx_build)

    def _aside_bytes(self) -> int:
        """Return the bytes that are in RAM although there is a GPU."""
        return self.layout.input_bytes + self._cpu_expert_bytes() if self.machine.gpus else 0

    @property
    def _fits_aside(self) -> bool:
        """True if RAM holds what the command line puts there; the engine does not move it to a GPU with room."""
        return self._aside_bytes() <= fit.ram_budget_bytes(self.machine)

    def _cpu_expert_bytes(self) -> int:
        left, total_bytes = self.options.cpu_expert_layers, 0
        for layers, size_bytes in self.layout.expert_bytes:
            total_bytes += min(left, layers) * size_bytes
            left -= min(left, layers)
        return total_bytes

    def _compute_bytes(self, context: int) -> int:
        """Return the peak of one batch: attention masks in 16 bits, and the widest layer in 32.

        Found from b11434's own reports for dense models, mixtures and windows: exact to its rounding to MiB.
        """
        batch = min(self.options.cache.batch_tokens, max(context, 1))
        cache = self.cache(context)
        keeping = [layers for layers in self.layout.caches if layers.key_width]
        seen = {(layers.window_tokens, cache.cells(layers)) for layers in keeping} or {(0, batch)}
        masks = sum(2 * batch * cells for _, cells in seen)
        gpus = max(1, len(self.machine.gpus))
        widest = 4 * batch * _widest(self.layout) or self.constants.unknown_compute_bytes
        copies = masks * (_COPIES_AMONG_SEVERAL - 1) if gpus > 1 else 0
        unpacked = max((self._unpacked_bytes(layers, context) for layers in self.layout.caches), default=0)
        return gpus * (widest + masks + copies + unpacked)

    def _unpacked_bytes(self, layers: Layers, context: int) -> int:
        """Return what flash attention (CUDA) needs to expand quantised keys and values to 16 bits, layer by layer."""
        if not self.machine.gpus:
            return 0
        cells = self.cache(context).cells(layers)
        keys = layers.key_width if self.options.cache.key_type not in _PLAIN_TYPES else 0
        values = layers.value_width if self.options.cache.value_type not in _PLAIN_TYPES else 0
        return 2 * cells * (keys + values)

    def _share(self, components: Components) -> float:
        """Return the share of the layers' weights on the GPU: a mixture's experts leave it first, else whole layers."""
        layout = self.layout
        layers_bytes = max(1, layout.repeating_bytes + layout.routed_bytes)
        kept_bytes = components.kv_bytes + components.state_bytes
        room_bytes = self.has_bytes() - components.total_bytes
        if room_bytes >= 0:
            return 1.0 - self._cpu_expert_bytes() / layers_bytes
        # The room for layers and their caches, when everything else is on the GPU.
        room_bytes += components.weights_bytes - layout.output_bytes - layout.copied_bytes + kept_bytes
        if layout.routed_bytes and room_bytes >= kept_bytes + layout.repeating_bytes:
            return min(1.0, (room_bytes - kept_bytes) / layers_bytes)
        return max(0.0, room_bytes / (layers_bytes + kept_bytes))


def llama_memory(
    facts: Facts,
    machine: Machine,
    words: Sequence[str],
    *,
    projector_bytes: int,
    on_gpu: bool,
    constants: Constants,
    is_amx_build: bool = True,
) -> LlamaMemory:
    """Return the formulas for a model under the `words` of a command line."""
    assert isinstance(constants, LlamaConstants)
    return LlamaMemory(fit.layout_of(facts), machine, llama_options(words), projector_bytes, constants, is_amx_build)


def _head_width(layout: Layout) -> int:
    """Return the width of a head's keys; 0 if it is unknown, or if keys are latent and shared by all heads."""
    is_latent = any(layers.key_width and not layers.value_width for layers in layout.caches)
    return 0 if is_latent or not layout.attention_heads else layout.attention_size // (2 * layout.attention_heads)


def _widest(layout: Layout) -> int:
    """Return the numbers per token of a batch that exist at once: in attention, or in a layer's feed-forward part."""
    hidden, used = layout.hidden_size, layout.experts_used
    experts = 3 * used * layout.expert_size
    # The output of the experts reuses the space of two of their three inner parts, unless it is larger.
    experts += used * hidden if hidden > 2 * layout.expert_size else 0
    return 5 * hidden + max(layout.attention_size, layout.feed_forward_size, experts)
