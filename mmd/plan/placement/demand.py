"""What one model needs on this machine: its memory as a function of its context and of the number of its devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mmd.plan.allocation import Allocation
from mmd.plan.memory import DeviceBytes, MemoryModel
from mmd.plan.placement.place import Device, Shape, Wanted
from mmd.plan.share import RAM, Share
from mmd.quantities import MIB

# A conversation of this length is rarely cut; a shorter context is better than one more GPU.
COMFORTABLE_TOKENS = 16384
_SHORT_TOKENS = 8192
_MEASURED_ERROR = 0.02  # difference between two starts of the same model

# VRAM that an engine keeps while it sleeps: CUDA's context, graphs and libraries. Reports give 1.1 to 1.2 GiB for one
# GPU (vLLM issues 28714 and 32714).
_ASLEEP_MIB = 1280


@dataclass(frozen=True, slots=True)
class Demand:
    """The memory that a model needs. Sizes are whole MiB, and include the error of the estimate."""

    model_id: str
    is_light: bool  # an embedding, reranking or classification model: it does not grow
    devices: tuple[Device, ...]  # the ones that it can use: GPUs, or the RAM
    memories: Mapping[int, MemoryModel]  # by the number of devices, fewest first
    least_tokens: int
    comfortable_tokens: int
    most_tokens: int  # beyond it more memory is of no use
    context_tokens: int  # of one conversation; tokens beyond it serve other conversations
    is_fixed: bool  # the user has set the context
    can_sleep: bool
    measured_on: int | None = None  # if a start of this very model gave the constants: its number of devices
    unknown_error_bytes: int = 0  # for facts of an older registry
    _known: dict[tuple[int, int], DeviceBytes] = field(default_factory=dict, compare=False, repr=False)

    def on(self, devices: Iterable[Device]) -> Demand:
        """Return the demand with the present capacities of its devices."""
        names = {device.id for device in self.devices}
        return replace(self, devices=tuple(device for device in devices if device.id in names))

    @property
    def on_gpu(self) -> bool:
        return all(device.id != RAM for device in self.devices)

    @property
    def spills(self) -> bool:
        """True if its engine puts into RAM what its GPUs cannot hold."""
        return any(self.parts(self.least_tokens, count).movable_bytes for count in self.memories)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Return the preferred ways to run it: on as few devices as hold a comfortable context.

        If all devices together cannot hold it, it takes them whole, and its engine puts the rest into RAM. For a light
        model, the least context is among them: it does not unload another model for a longer one.
        """
        if self.is_light:
            return tuple(dict.fromkeys((*self._whole(self.comfortable_tokens), *self.least_shapes)))
        for first in self.memories:
            for tokens in sorted({self.comfortable_tokens, self._short_tokens}, reverse=True):
                if self._fits_empty(self.shape(tokens, first)):
                    return self._from(first, tokens)
        return self._whole(self.least_tokens) or self._all_devices()

    @property
    def least_shapes(self) -> tuple[Shape, ...]:
        """Return the ways to run it with the least context, for when the preferred ones do not fit."""
        return self._whole(self.least_tokens) or self._spilled() or self._all_devices()

    @property
    def takes_all(self) -> bool:
        """True if its devices cannot hold it even without other models."""
        return not self._whole(self.least_tokens)

    @property
    def least_mib(self) -> int:
        return min(shape.size_mib for shape in self.least_shapes)

    def wanted(self, shapes: tuple[Shape, ...] | None = None, *, at: Share | None = None) -> Wanted:
        """Return the input of `place`; `at` is the share in which its engine sleeps."""
        usable = frozenset(device.id for device in self.devices)
        return Wanted(self.model_id, shapes or self.shapes, at, usable, grows=not self.is_light)

    def shape(self, tokens: int, count: int) -> Shape:
        parts = self.parts(tokens, count)
        return Shape(count, _mib(parts.each_bytes), _mib(parts.divided_bytes))

    def parts(self, tokens: int, count: int) -> DeviceBytes:
        """Return the bytes on each of `count` devices; `tokens` beyond one context are for another conversation."""
        if (known := self._known.get((tokens, count))) is None:
            known = self._known[tokens, count] = self._parts(tokens, count)
        return known

    def _parts(self, tokens: int, count: int) -> DeviceBytes:
        memory = self.memories[count]
        one, more = min(tokens, self.context_tokens), max(0, tokens - self.context_tokens)
        components = memory.components(one)
        error_bytes = memory.error_bytes(components) + self.unknown_error_bytes
        if self.measured_on == count:
            error_bytes = round(components.total_bytes * _MEASURED_ERROR)
        parts = memory.on_devices(one, error_bytes)
        if not more or parts.is_pool_fixed:
            return parts
        more_bytes = -(-memory.components(more).kv_bytes // count)
        return replace(parts, each_bytes=parts.each_bytes + more_bytes, cache_bytes=parts.cache_bytes + more_bytes)

    def keeps(self, share: Share) -> Share | None:
        """Return what it keeps of its share while it is asleep; None if it cannot sleep.

        An engine in RAM keeps its whole share.
        """
        if not self.can_sleep:
            return None
        return kept_asleep(share)

    def allocation(self, share: Share, tokens: int, *, is_alone: bool, free_mib: Mapping[str, int]) -> Allocation:
        """Return what a launch in this share is given, with a context of `tokens` if the share holds it."""
        parts = self.parts(tokens, len(share))
        each_mib, least_mib = _mib(parts.each_bytes), min(share.values())
        is_whole = least_mib >= each_mib and sum(share.values()) >= self.shape(tokens, len(share)).size_mib
        is_limited = not self.is_fixed and tokens < self.context_tokens
        beside_mib = _mib(parts.each_bytes - parts.cache_bytes)
        return Allocation(
            share,
            tokens=tokens if is_whole and is_limited else None,
            is_alone=is_alone,
            free_mib=free_mib,
            cache_mib=max(0, least_mib - beside_mib) if parts.cache_bytes else None,
            divided_mib={device: size_mib - each_mib for device, size_mib in share.items()}
            if is_whole and parts.divided_bytes
            else {},
        )

    @property
    def _short_tokens(self) -> int:
        return self.comfortable_tokens if self.is_fixed else min(self.comfortable_tokens, _SHORT_TOKENS)

    def _whole(self, tokens: int) -> tuple[Shape, ...]:
        for first in self.memories:
            if self._fits_empty(self.shape(tokens, first)):
                return self._from(first, tokens)
        return ()

    def _from(self, first: int, tokens: int) -> tuple[Shape, ...]:
        """Return the shapes for `first` devices and, if one is not enough, for more."""
        counts = (count for count in self.memories if count == first or count > first > 1)
        shapes = (self.shape(tokens, count) for count in counts)
        return tuple(shape for shape in shapes if self._fits_empty(shape))

    def _fits_empty(self, shape: Shape) -> bool:
        largest = self._largest(shape.count)
        if len(largest) < shape.count or min(largest) < shape.each_mib:
            return False
        return sum(largest) >= shape.size_mib

    def _largest(self, count: int) -> tuple[int, ...]:
        return tuple(sorted((device.capacity_mib for device in self.devices), reverse=True)[:count])

    def _all_devices(self) -> tuple[Shape, ...]:
        """Return the shape that takes whole devices, as many as the model can be spread over.

        If the engine cannot move a part into RAM, the model must fit without the error of the estimate; otherwise the
        result is a shape that does not fit.
        """
        count = max(self.memories)
        largest = self._largest(count)
        if len(largest) < count or min(largest) < 1:
            return (self.shape(self.least_tokens, count),)  # which does not fit
        parts = self.parts(self.least_tokens, count)
        if not parts.movable_bytes and _mib(self._bare_bytes(count)) > min(largest):
            return (self.shape(self.least_tokens, count),)
        if not parts.divided_bytes:
            return (Shape(count, min(largest)),)
        return (Shape(count, 1, sum(largest) - count),)

    def _bare_bytes(self, count: int) -> int:
        """Return the bytes on each device for the least context, without the error of the estimate."""
        return self.memories[count].on_devices(min(self.least_tokens, self.context_tokens), 0).each_bytes

    def _spilled(self) -> tuple[Shape, ...]:
        """Return the shapes of the part that must be on GPUs, for an engine that puts the rest into RAM."""
        return tuple(self._spilled_shapes())

    def _spilled_shapes(self) -> Iterator[Shape]:
        for count in sorted(self.memories, reverse=True):
            parts = self.parts(self.least_tokens, count)
            stays_bytes = parts.each_bytes * count + parts.divided_bytes - parts.movable_bytes
            shape = Shape(count, _mib(-(-stays_bytes // count)))
            if parts.movable_bytes and self._fits_empty(shape):
                yield shape


def kept_asleep(share: Share) -> Share:
    """Return what an engine keeps of its share while it is asleep: CUDA's context on a GPU, and all of it in RAM."""
    return {device: size_mib if device == RAM else min(size_mib, _ASLEEP_MIB) for device, size_mib in share.items()}


def _mib(size_bytes: int) -> int:
    return -(-size_bytes // MIB)
