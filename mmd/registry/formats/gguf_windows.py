"""Find the layers of a GGUF with sliding-window attention, and their window sizes.

Source: llama.cpp b11434, `load_swa_pattern` and the architectures that call it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmd.registry.formats.gguf import GgufHeader


@dataclass(frozen=True, slots=True)
class _Pattern:
    """One of every `period` layers has full attention: the last one, or the first if `dense_first`."""

    period: int
    dense_first: bool = False
    missing_tokens: int = 0  # the window if the file names none
    fixed_tokens: int = 0  # the window, whatever the file says


_PATTERNS = {
    "afmoe": _Pattern(4),
    "cohere2": _Pattern(4),
    "cohere2moe": _Pattern(4, dense_first=True),
    "exaone-moe": _Pattern(4, missing_tokens=128),
    "exaone4": _Pattern(4, missing_tokens=4096),
    "gemma2": _Pattern(2, missing_tokens=4096),
    "gemma3": _Pattern(6),
    "gemma3n": _Pattern(5),
    "gpt-oss": _Pattern(2),
    "laguna": _Pattern(4, dense_first=True),
    "llama4": _Pattern(4, missing_tokens=8192, fixed_tokens=8192),  # chunked attention, same size as windows
    "mellum": _Pattern(4),
    "muse-glimmer": _Pattern(4),
    "olmo2": _Pattern(4),
    "plamo3": _Pattern(8),
    "smallthinker": _Pattern(4, dense_first=True, fixed_tokens=4096),
}
# These list their windowed layers in the file. llama.cpp ignores a window in files of other architectures.
_LISTED = frozenset({"dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"})
_EVERY_ATTENTION_LAYER = frozenset({"lfm2", "lfm2moe"})
_EXAONE4_WINDOWED_LAYERS = 64  # the 32B; the 1.2B has no windows


def windows(header: GgufHeader, count: int) -> tuple[int, ...]:
    """Return the window of each of the first `count` layers in tokens, 0 for full attention."""
    architecture = header.architecture
    given = header.integer(f"{architecture}.attention.sliding_window")
    if architecture in _EVERY_ATTENTION_LAYER:
        return (given or 0,) * count
    if architecture in _LISTED:
        return _listed(header, given or 0, count) or (0,) * count
    pattern = _PATTERNS.get(architecture)
    window = _window(pattern, given) if pattern else 0
    if pattern is None or not window or (architecture == "exaone4" and count != _EXAONE4_WINDOWED_LAYERS):
        return (0,) * count
    return _listed(header, window, count) or tuple(
        window if _is_windowed(pattern, layer, _period(header, pattern)) else 0 for layer in range(count)
    )


def _window(pattern: _Pattern, given: int | None) -> int:
    if given is None:
        return pattern.missing_tokens
    return pattern.fixed_tokens or given if given else 0


def _period(header: GgufHeader, pattern: _Pattern) -> int:
    key = f"{header.architecture}.attention.sliding_window_pattern"
    return pattern.period if header.metadata.get(key) is None else header.integer(key) or 0


def _is_windowed(pattern: _Pattern, layer: int, period: int) -> bool:
    if period == 0:
        return True
    return layer % period != 0 if pattern.dense_first else layer % period < period - 1


def _listed(header: GgufHeader, window: int, count: int) -> tuple[int, ...] | None:
    listed = header.metadata.get(f"{header.architecture}.attention.sliding_window_pattern")
    if not isinstance(listed, tuple):
        return None
    return tuple(window if layer < len(listed) and listed[layer] else 0 for layer in range(count))
