"""What an engine says of itself on its /metrics."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httptools

# vLLM's page takes 100 KiB.
_MOST_BYTES = 4 << 20
_REQUEST = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

# The engines' own names have a colon, as vllm:num_requests_running; the others are of the Python that runs vLLM.
_ABOUT = re.compile(r"# (?:HELP|TYPE) ([a-z]+:\w+) .*")
_LABEL = re.compile(r'(\w+)(="(?:[^"\\]|\\.)*")')
_SAMPLE = re.compile(r'([a-z]+:\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)*)\})? ([-+.\w]+)')

# As clients are told in "usage": tokens of a prompt that were found in the cache are tokens of the prompt. llama.cpp
# counts them apart.
TOKENS_IN = ("vllm:prompt_tokens_total", "llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total")
TOKENS_OUT = ("vllm:generation_tokens_total", "llamacpp:tokens_predicted_total")


@dataclass(frozen=True, slots=True)
class EngineProcess:
    """Which run of an engine it was: its counters begin with it."""

    pid: int
    started_ticks: int  # after the machine's boot

    @classmethod
    def of(cls, pid: int) -> EngineProcess:
        """Raises OSError where it has ended."""
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", errors="replace").rpartition(")")[2]
        return cls(pid, int(after_name.split()[19]))  # proc_pid_stat(5), field 22


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    labels: str  # as they were written, without the braces, but for one named "model"
    value: str


@dataclass(slots=True)
class Family:
    about: list[str] = field(default_factory=list)  # its HELP and TYPE lines
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    process: EngineProcess
    families: Mapping[str, Family]

    def total(self, names: tuple[str, ...]) -> float:
        """The sum of the samples of these names, but for those that are no numbers."""
        families = [self.families[name] for name in names if name in self.families]
        values = (float(sample.value) for family in families for sample in family.samples)
        return sum(value for value in values if math.isfinite(value))


async def read_metrics(address: str, *, within_seconds: float) -> EngineMetrics:
    """Of an engine that is awake: one that sleeps may not answer. Raises OSError (TimeoutError is one), and ValueError
    where it answers something else.
    """
    async with asyncio.timeout(within_seconds):
        reader, writer = await asyncio.open_unix_connection(address)
        try:
            process = EngineProcess.of(_peer_pid(writer.get_extra_info("socket")))
            writer.write(_REQUEST)
            text = await _body(reader)
        finally:
            writer.close()
    return EngineMetrics(process, _families(text))


def _peer_pid(connection: socket.socket) -> int:
    credentials = struct.Struct("3i")  # struct ucred
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    return int(credentials.unpack(raw)[0])


async def _body(reader: asyncio.StreamReader) -> str:
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    while not answer.is_complete:
        data = await reader.read(1 << 16)
        if not data:
            raise ConnectionResetError("the connection ended before the answer did")
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ValueError(f"not an HTTP/1.1 answer: {error}") from error
        if len(answer.body) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
    if parser.get_status_code() != 200:
        raise ValueError(f"status {parser.get_status_code()}")
    return answer.body.decode("utf-8", errors="replace")


class _Answer:
    """What httptools calls."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.is_complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.is_complete = True


def _families(text: str) -> dict[str, Family]:
    """By name. Lines that are none of the engine's, or that a scraper could not read, are left out."""
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
    """An engine's own "model" as Prometheus would call it: a name that comes twice makes the whole page unreadable."""
    return f"exported_model{label[2]}" if label[1] == "model" else label[0]


def with_model_label(pages: Mapping[str, EngineMetrics]) -> Iterator[str]:
    """The pages of several models as one: every sample says whose it is, every family is told of once."""
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
