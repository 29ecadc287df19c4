"""Models, machines and engines to plan with: records only, nothing on disk but the machines' snapshots."""

from __future__ import annotations

from pathlib import Path

from mmd.engines.embedded_main import FLAGS as EMBEDDED_FLAGS
from mmd.engines.llama_server import parse_flags
from mmd.machine import Machine, load_machine
from mmd.plan.launch import Installed
from mmd.registry.record import Facts, Format, Model, ModelType
from tests.fake_engine import HELP

GIB = 1024**3
MACHINES = tuple(sorted((Path(__file__).parent.parent / "machines").glob("*.json")))

LLAMA_SERVER = Installed(
    engine="llama-server",
    command=("/usr/bin/llama-server",),
    version="9611",
    flags=parse_flags(HELP),
    formats=(Format.GGUF,),
    can_sleep=False,
    stop_seconds=5,
)
EMBEDDED = Installed(
    engine="embedded",
    command=("/venv/bin/python", "-P", "/venv/mmd/engines/embedded_main.py"),
    version="2026.10",
    flags=EMBEDDED_FLAGS,
    formats=(Format.GGUF,),
    can_sleep=False,
    stop_seconds=5,
)


def facts(
    type: ModelType = ModelType.CHAT,
    *,
    format: Format = Format.GGUF,
    weights_bytes: int = 5 * GIB,
    context_length: int = 40960,
    kv_bytes_per_token: int = 147456,
) -> Facts:
    return Facts(
        format=format,
        type=type,
        architecture="qwen3",
        quant="Q4_K_M",
        weights_bytes=weights_bytes,
        parameters=8_190_000_000,
        context_length=context_length,
        kv_bytes_per_token=kv_bytes_per_token,
        chat_template=type in (ModelType.CHAT, ModelType.VISION),
        name="",
    )


def model(its: Facts | None = None, *, id: str = "qwen3-8b", projector: str | None = None) -> Model:
    path = f"/models/{id}.gguf"
    return Model(id, path, (path,), projector, "file", "2026-01-01T00:00:00Z", its or facts())


CHAT = model()
VISION = model(facts(ModelType.VISION), id="gemma-3-12b", projector="/models/mmproj-gemma-3-12b.gguf")
EMBEDDING = model(
    facts(ModelType.EMBEDDING, weights_bytes=GIB // 3, context_length=2048, kv_bytes_per_token=0), id="nomic-embed"
)
RERANKER = model(facts(ModelType.RERANKER, weights_bytes=GIB, context_length=32768), id="qwen3-reranker")
EVERY_MODEL = (CHAT, VISION, EMBEDDING, RERANKER)


def machine(name: str = "rtx4070-12g") -> Machine:
    return load_machine(next(path for path in MACHINES if path.stem == name))
