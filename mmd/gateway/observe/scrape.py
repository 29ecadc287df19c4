"""Read and parse the /metrics page of an engine."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mmd.gateway.observe.unix_http import request

# vLLM's page takes 100 KiB.
_MAX_BYTES = 4 << 20

# The engines' own metrics have a colon, as vllm:num_requests_running; the others are those of vLLM's Python process.
_ABOUT = re.compile(r"# (?:HELP|TYPE) ([a-z]+:\w+) .*")
_LABEL = re.compile(r'(\w+)(="(?:[^"\\]|\\.)*")')
_SAMPLE = re.compile(r'([a-z]+:\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? ([-+.\w]+)')


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """One process of an engine, whose counters start at zero."""

    pid: int
    started_ticks: int  # since boot, in clock ticks

    @classmethod
    def of(cls, pid: int) -> EngineProcess:
        """Raises OSError if the process has ended."""
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2]
        return cls(pid, int(after_name.split()[19]))  # proc_pid_stat(5), field 22


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of a page."""

    name: str
    labels: str  # as written, without braces; a label "model" is renamed
    value: str


@dataclass(slots=True)
class Family:
    """The lines of one metric."""

    about: list[str] = field(default_factory=list)  # HELP and TYPE lines
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """One page."""

    process: EngineProcess
    families: Mapping[str, Family]

    def total(self, names: tuple[str, ...]) -> float:
        """Return the sum of the finite samples with these names."""
        families = [self.families[name] for name in names if name in self.families]
        values = (float(sample.value) for family in families for sample in family.samples)
        return sum(value for value in values if math.isfinite(value))


async def read_metrics(address: str, *, within_seconds: float) -> EngineMetrics:
    """Read the page of an engine that is awake; a sleeping one may not respond.

    Raises OSError, TimeoutError included, and ValueError for any other response.
    """
    async with asyncio.timeout(within_seconds):
        response = await request(address, "GET", "/metrics", max_bytes=_MAX_BYTES)
    if response.status != 200:
        raise ValueError(f"status {response.status}")
    text = response.body.decode("utf-8", errors="replace")
    return EngineMetrics(EngineProcess.of(response.server_pid), _families(text))


def _families(text: str) -> dict[str, Family]:
    """Return the families by name. Drops lines that are not the engine's own or that Prometheus could not parse."""
    families: dict[str, Family] = {}
    current = ""
    for line in text.splitlines():
        if about := _ABOUT.fullmatch(line):
            current = about[1]
            families.setdefault(current, Family()).about.append(line)
        elif sample := _sample(line):
            name = current if current and sample.name.startswith(current) else sample.name
            families.setdefault(name, Family()).samples.append(sample)
    return families


def _sample(line: str) -> Sample | None:
    found = _SAMPLE.fullmatch(line)
    if found is None:
        return None
    try:
        float(found[3])
    except ValueError:
        return None
    return Sample(found[1], _LABEL.sub(_renamed, (found[2] or "").rstrip(",")), found[3])


def _renamed(label: re.Match[str]) -> str:
    """Rename an engine's own label "model" as Prometheus does: a repeated label would invalidate the whole page."""
    return f"exported_model{label[2]}" if label[1] == "model" else label[0]


def with_model_label(pages: Mapping[str, EngineMetrics]) -> Iterator[str]:
    """Merge the pages of several models: each sample gets a label "model", each family its HELP and TYPE once."""
    for name in dict.fromkeys(name for page in pages.values() for name in page.families):
        about: list[str] = []
        samples: list[str] = []
        for model_id, page in pages.items():
            if (family := page.families.get(name)) is None or not family.samples:
                continue
            about = about or family.about
            for sample in family.samples:
                labels = f'model="{model_id}",{sample.labels}'.rstrip(",")
                samples.append(f"{sample.name}{{{labels}}} {sample.value}")
        if samples:
            yield "\n".join((*about, *samples, ""))
