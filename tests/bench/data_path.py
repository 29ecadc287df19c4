"""The cost of the gateway for a request to a resident model: the same load on it and on its engine, in turns."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmd.paths import engine_socket
from tests.bench.load import Generator, Load, Seen
from tests.bench.measure import Row
from tests.bench.stack import Gateway, Upstream, chat_body, free_port, register, running_gateway, wait_until_listening

_MODEL = "upstream"
_BLOCKS = 7
_WARM_UP_ANSWERS = 20_000
_PROXY = Path("/lib/systemd/systemd-socket-proxyd")

_ONE = Load("1 client", 1, 1.0, chat_body(_MODEL))
_SIXTEEN = Load("16 clients", 16, 1.0, chat_body(_MODEL))
_SIXTY_FOUR = Load("64 clients", 64, 1.0, chat_body(_MODEL))
_STREAMS = Load("64 streams", 64, 1.5, chat_body(_MODEL, stream=True))
_PACED = Load(
    "64 streams, a chunk each 10 ms", 64, 1.5, chat_body(_MODEL, stream=True, x_chunks=30, x_interval_us=10_000)
)
_LONG = Load("267 kB prompt", 1, 1.0, chat_body(_MODEL, prompt="word " * 53_400))
_LOADS = (_ONE, _SIXTEEN, _SIXTY_FOUR, _STREAMS, _PACED, _LONG)

_DIRECT, _UNIX, _PROXIED, _GATEWAY = "direct, TCP", "direct, Unix socket", "systemd-socket-proxyd", "gateway"


@dataclass(frozen=True)
class Block:
    """A run of a load."""

    seen: Seen
    gateway_seconds: float  # of processor time


Blocks = dict[tuple[Load, str], list[Block]]  # by load and target


def measure(folder: Path) -> list[Row]:
    generator = Generator(folder)
    upstream = Upstream.install(folder)
    register(folder, _MODEL)
    with ExitStack() as stack:
        gateway = stack.enter_context(running_gateway())
        idle_mb = gateway.resident_mb()
        answers = 0
        while answers < _WARM_UP_ANSWERS:  # the first of them swaps the model in
            answers += generator.run(_SIXTEEN, str(gateway.port)).answers
        resident_mb = gateway.resident_mb()
        engine = str(engine_socket(_MODEL))
        targets = {_DIRECT: str(stack.enter_context(upstream.on_tcp())), _UNIX: engine}
        if _PROXY.exists():
            targets[_PROXIED] = str(stack.enter_context(_proxy(engine)))
        targets[_GATEWAY] = str(gateway.port)
        blocks = _in_turns(targets, generator, gateway)
        after_all_mb = gateway.resident_mb()
    return [
        *_times(blocks, _ONE, "p50", lambda seen: seen.p50_us, goal_over="≤ 100"),
        *_times(blocks, _ONE, "p99", lambda seen: seen.p99_us, goal_over="≤ 500"),
        *_times(blocks, _LONG, "p50", lambda seen: seen.p50_us),
        *_times(blocks, _PACED, "first byte, p50", lambda seen: seen.first_byte_p50_us, goal="≤ 8,000"),
        *_rates(blocks, _SIXTEEN, "answers", lambda seen: seen.answers_per_second),
        *_rates(blocks, _SIXTY_FOUR, "answers", lambda seen: seen.answers_per_second, goal="≥ 20,000"),
        *_rates(blocks, _STREAMS, "chunks", lambda seen: seen.chunks_per_second, goal="≥ 200,000"),
        _gateway_seconds(blocks, _SIXTY_FOUR, "answer", lambda seen: seen.answers),
        _gateway_seconds(blocks, _LONG, "answer", lambda seen: seen.answers),
        _gateway_seconds(blocks, _STREAMS, "chunk", lambda seen: seen.chunks),
        Row("gateway idle, resident", "MB", [idle_mb], "≤ 30"),
        Row(f"gateway after {answers:,} requests, resident", "MB", [resident_mb]),
        Row("gateway after all of the above, resident", "MB", [after_all_mb]),
    ]


def _in_turns(targets: dict[str, str], generator: Generator, gateway: Gateway) -> Blocks:
    """Measure all targets; `targets` are addresses by name."""
    blocks: Blocks = defaultdict(list)
    for _ in range(_BLOCKS):
        for load in _LOADS:
            for target, address in targets.items():
                before = gateway.cpu_seconds()
                seen = generator.run(load, address)
                blocks[load, target].append(Block(seen, gateway.cpu_seconds() - before))
    return blocks


Quantity = Callable[[Seen], float]


def _times(
    blocks: Blocks, load: Load, name: str, quantity: Quantity, *, goal: str = "", goal_over: str = ""
) -> list[Row]:
    """Show every path, and what the gateway adds to the direct one, block by block."""
    title = f"{load.what}, {name}"
    values = _values(blocks, load, quantity)
    added = [through - direct for through, direct in zip(values[_GATEWAY], values[_DIRECT], strict=True)]
    rows = [Row(f"{title}: {target}", "µs", values[target], goal * (target == _GATEWAY)) for target in values]
    return [*rows, Row(f"{title}: gateway over {_DIRECT}", "µs", added, goal_over)]


def _rates(blocks: Blocks, load: Load, name: str, quantity: Quantity, *, goal: str = "") -> list[Row]:
    """Show every path, and which part of the direct one the gateway reaches, block by block."""
    title = f"{load.what}, {name}"
    values = _values(blocks, load, quantity)
    parts = [through / direct * 100 for through, direct in zip(values[_GATEWAY], values[_DIRECT], strict=True)]
    rows = [Row(f"{title}: {target}", "/s", values[target], goal * (target == _GATEWAY)) for target in values]
    return [*rows, Row(f"{title}: gateway, of {_DIRECT}", "%", parts)]


def _values(blocks: Blocks, load: Load, quantity: Quantity) -> dict[str, list[float]]:
    return {target: [quantity(block.seen) for block in runs] for (of, target), runs in blocks.items() if of == load}


def _gateway_seconds(blocks: Blocks, load: Load, name: str, count: Quantity) -> Row:
    """Return the CPU time of the gateway for each item; the load of other programs changes it little."""
    times = [block.gateway_seconds / count(block.seen) * 1e6 for block in blocks[load, _GATEWAY]]
    return Row(f"{load.what}: gateway's processor time for each {name}", "µs", times)


@contextmanager
def _proxy(engine: str) -> Iterator[int]:
    """Start systemd-socket-proxyd, which routes nothing and comes with systemd; return its port."""
    port = free_port()
    command = ("systemd-socket-activate", "--listen", f"127.0.0.1:{port}", _PROXY, engine)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until_listening(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(20)
