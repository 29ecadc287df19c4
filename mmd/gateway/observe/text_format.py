"""Prometheus's text format 0.0.4. Written here because its client library takes 10 MB of memory and 50 ms to import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from mmd.gateway.observe.counters import BOUNDS_SECONDS, Histogram

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Sequence[str]
Samples = Iterable[tuple[Labels, float]]  # label values and the sample's value
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def counter(name: str, text: str, labels: Labels, samples: Samples) -> Iterator[str]:
    return _family(name, "counter", text, labels, samples)


def gauge(name: str, text: str, labels: Labels, samples: Samples) -> Iterator[str]:
    return _family(name, "gauge", text, labels, samples)


def histogram(name: str, text: str, labels: Labels, values: Mapping[tuple[str, ...], Histogram]) -> Iterator[str]:
    """A histogram of durations, with the buckets of `counters`."""
    yield from _about(name, "histogram", text)
    bounds = (*map(str, BOUNDS_SECONDS), "+Inf")
    for each, found in values.items():
        total = 0
        for bind_tcp, total in zip(bounds, accumulate(found.counts), strict=True):
            yield f"{name}_bucket{labelled((*labels, 'le'), (*each, bind_tcp))} {total}\n"
        yield f"{name}_sum{labelled(labels, each)} {found.total_seconds}\n"
        yield f"{name}_count{labelled(labels, each)} {total}\n"


def labelled(names: Labels, values: Labels) -> str:
    """Encode labels, as in `{model="qwen3",path="other"}`; "" if there are none."""
    pairs = ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True))
    return f"{{{pairs}}}" if pairs else ""


def _family(name: str, kind: str, text: str, labels: Labels, samples: Samples) -> Iterator[str]:
    yield from _about(name, kind, text)
    for each, value in samples:
        yield f"{name}{labelled(labels, each)} {value}\n"


def _about(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
