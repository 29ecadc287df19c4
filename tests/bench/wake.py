"""The cost of a swap between two sleeping models: by mmd, and by bare requests, with engines that cost nothing."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

from mmd.paths import engine_socket
from mmd.registry.store import Registry
from tests.bench.measure import Row
from tests.bench.stack import write_settings
from tests.fakes.engine import install_fake_llama_server
from tests.systemd.world import SLEEP, Sleepy
from tests.tiny_models import tiny_gguf

_MODELS = ("sleepy-a", "sleepy-b")
_SWAPS = 40


async def measure(folder: Path) -> list[Row]:
    write_settings(f'[engines]\nllama-server = "{install_fake_llama_server(folder)}"\n')
    for name in _MODELS:
        Registry().add(_sleepy_model(folder, name), id=name)
    by_mmd: list[float] = []
    bare: list[float] = []
    async with Sleepy({name: {"sleep": SLEEP} for name in _MODELS}) as mmd:
        for name in _MODELS:
            await mmd.activate(name)
        for number in range(_SWAPS):
            wanted, other = _MODELS[number % 2], _MODELS[1 - number % 2]
            began = time.perf_counter()
            await mmd.activate(wanted)
            by_mmd.append((time.perf_counter() - began) * 1000)
            bare.append(_bare(wanted, other))
        await mmd.stop()
    return [
        Row("swap to a sleeping model by mmd (fake engine)", "ms", by_mmd, "≤ 50"),
        Row("the same bare: /sleep, /wake_up, /is_sleeping", "ms", bare),
    ]


def _sleepy_model(folder: Path, name: str) -> Path:
    path = tiny_gguf(folder / f"{name}.gguf", name=name)
    Path(f"{path}.fake.json").write_text(json.dumps({"can_sleep": True}))
    return path


def _bare(awake: str, asleep: str) -> float:
    """Swap there and back, so that systemd's view stays true; return the time of one way."""
    began = time.perf_counter()
    for out, into in ((awake, asleep), (asleep, awake)):
        _ask(out, "POST /sleep?level=1&mode=wait")
        _ask(into, "POST /wake_up")
        _ask(into, "GET /is_sleeping")
    return (time.perf_counter() - began) * 1000 / 2


def _ask(name: str, request: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(engine_socket(name)))
        connection.sendall(f"{request} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert b" 200 " in connection.recv(4096)
