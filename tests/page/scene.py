"""The API's records on a machine with a GPU of 12 GiB in the middle of an afternoon."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

GIB = 2**30

_FACTS = {
    "qwen3-8b-q4_k_m": ("chat", "Q4_K_M", 4.7, 32768),
    "gemma-3-12b-it-qat-q4_0": ("vision", "Q4_0", 7.6, 131072),
    "mistral-small-3.2-24b-instruct-2506-iq3_xs": ("chat", "IQ3_XS", 9.3, 131072),
    "qwen3-4b-awq": ("chat", "AWQ", 2.7, 40960),
    "nomic-embed-text-v1.5-f16": ("embedding", "F16", 0.3, 2048),
    "bge-reranker-v2-m3-q8_0": ("reranker", "Q8_0", 0.6, 8192),
    "starcoder2-3b-q5_k_m": ("completion", "Q5_K_M", 2.1, 16384),
}
_WHERE = {
    "qwen3-8b-q4_k_m": "active",
    "nomic-embed-text-v1.5-f16": "resident",
    "gemma-3-12b-it-qat-q4_0": "sleeping",
    "qwen3-4b-awq": "sleeping",
    "mistral-small-3.2-24b-instruct-2506-iq3_xs": "starting",
    "starcoder2-3b-q5_k_m": "failed",
}


def setups() -> list[dict[str, Any]]:
    return [
        {
            "id": "rag",
            "aliases": [],
            "type": "setup",
            "models": ["qwen3-8b-q4_k_m", "nomic-embed-text-v1.5-f16"],
            "note": "chat over my documents",
            "expose": ["qwen3-8b-q4_k_m"],
            "vram": 5.0,
            "vram_bytes": 5 * GIB,
            "status": "resident",
            "startup": "disabled",
            "problem": "",
        },
        {
            "id": "search",
            "aliases": [],
            "type": "setup",
            "models": ["nomic-embed-text-v1.5-f16", "bge-reranker-v2-m3-q8_0"],
            "note": "",
            "expose": [],
            "vram": 0.9,
            "vram_bytes": int(0.9 * GIB),
            "status": "absent",
            "startup": "active",
            "problem": "",
        },
    ]


def models() -> list[dict[str, Any]]:
    return [
        {
            "id": name,
            "aliases": ["gpt-4o", "default"] if name.startswith("gemma") else [],
            "type": kind,
            "engine": "vllm" if quant == "AWQ" else "llama.cpp",
            "format": "safetensors" if quant == "AWQ" else "gguf",
            "quant": quant,
            "vram": size,
            "vram_bytes": int(size * GIB),
            "context": context,
            "status": _WHERE.get(name, "absent"),
            "startup": "disabled",
            "idle_seconds": 12.5,
            "source": "file",
            "licence": "apache-2.0",
            "terms": "open",
            "path": f"/models/{name}",
            "devices": {},
        }
        for name, (kind, quant, size, context) in _FACTS.items()
    ]


def _memory(used: float, total: float) -> dict[str, Any]:
    return {"used": used, "total": total, "used_bytes": int(used * GIB), "total_bytes": int(total * GIB)}


def resources() -> dict[str, Any]:
    return {
        "vram": _memory(9.8, 12.0),
        "ram": _memory(21.4, 31.2),
        "gpus": [{"name": "NVIDIA GeForce RTX 4070", "uuid": "GPU-1", "used_bytes": 0, "total_bytes": 12 * GIB}],
    }


def resident(name: str, **changes: Any) -> dict[str, Any]:
    record = {
        "id": name,
        "type": "chat",
        "engine": "llama-server",
        "devices": {"GPU-1": 8 * GIB},
        "used": {"GPU-1": 7 * GIB},
        "since": (datetime.now(UTC) - timedelta(minutes=4)).isoformat(timespec="milliseconds"),
    }
    return record | changes


def devices() -> list[dict[str, Any]]:
    def device(name: str, title: str, index: int | None, **sizes: float) -> dict[str, Any]:
        return {"id": name, "name": title, "index": index} | {
            f"{what}_bytes": int(size * GIB) for what, size in sizes.items()
        }

    return [
        device(
            "GPU-1", "NVIDIA GeForce RTX 4070", 0, total=12, capacity=10.8, held=10.5, mmd=8.9, others=0.9, free=2.2
        ),
        device(
            "GPU-2", "NVIDIA GeForce RTX 4060 Ti", 1, total=16, capacity=15.6, held=11, mmd=6.5, others=0.1, free=9.4
        ),
        device("ram", "RAM", None, total=31.2, capacity=28, held=0, mmd=10, others=11.4, free=9.8),
    ]


def status() -> dict[str, Any]:
    return {
        "active": "qwen3-8b-q4_k_m",
        "resident": [
            resident("nomic-embed-text-v1.5-f16", type="embedding", devices={"GPU-1": GIB}, used={}),
            resident("qwen3-8b-q4_k_m"),
        ],
        "sleeping": [
            {"id": "gemma-3-12b-it-qat-q4_0", "level": 1, "ram_bytes": 8 * GIB, "wake_seconds": 1.9, "devices": {}},
            {
                "id": "qwen3-4b-awq",
                "level": 2,
                "ram_bytes": 2 * GIB,
                "wake_seconds": None,
                "devices": {"GPU-1": 3 * GIB // 2},
            },
        ],
        "starting": [
            {
                "id": "mistral-small-3.2-24b-instruct-2506-iq3_xs",
                "seconds": 7.2,
                "expected_seconds": 19.0,
                "devices": {"GPU-2": 11 * GIB},
            },
        ],
        "stranded": [],
        "failed": [{"id": "starcoder2-3b-q5_k_m", "reason": "the engine was killed for lack of memory"}],
        "away": [],
        "leases": [
            {
                "name": "blender",
                "state": "held",
                "program": "blender -b scene.blend -a",
                "since": "2026-11-30T21:00:00.000+00:00",
                "pid": 4711,
                "devices": {"GPU-2": 4 * GIB},
            }
        ],
        "exposed": [],
        "unloaded": [
            {
                "id": "gemma-3-12b-it-qat-q4_0",
                "unloaded_for": "qwen3-8b-q4_k_m",
                "why": "the least recently used whose memory is enough",
                "at": (datetime.now(UTC) - timedelta(minutes=4)).isoformat(timespec="milliseconds"),
            }
        ],
        "devices": devices(),
        "resources": resources(),
    }


def queue() -> dict[str, Any]:
    return {
        "turns": [
            {
                "model": "mistral-small-3.2-24b-instruct-2506-iq3_xs",
                "waiting": 3,
                "waited_seconds": 7.2,
                "expected_seconds": 11.8,
                "waits_for": [],
            },
            {
                "model": "gemma-3-12b-it-qat-q4_0",
                "waiting": 1,
                "waited_seconds": 2.0,
                "expected_seconds": None,
                "waits_for": [{"model": "qwen3-8b-q4_k_m", "requests": 2}],
            },
        ],
        "in_flight": [{"model": "qwen3-8b-q4_k_m", "requests": 2}],
    }


def history(*, interval_seconds: float = 10.0, count: int = 360) -> dict[str, Any]:
    now = datetime.now(UTC)
    samples = []
    for index in range(count):
        at = now - timedelta(seconds=interval_seconds * (count - 1 - index))
        if 200 <= index < 215:
            continue  # the gateway did not run
        vram = 9.8 if index > 280 else 5.2 if index > 120 else 11.1 if index > 40 else 0.6
        ram = 16 + 4 * math.sin(index / 40) + (2 if index > 120 else 0)
        samples.append(
            {
                "at": at.isoformat(timespec="milliseconds"),
                "vram_used_bytes": int(vram * GIB),
                "vram_total_bytes": 12 * GIB,
                "ram_used_bytes": int(ram * GIB),
                "ram_total_bytes": int(31.2 * GIB),
            }
        )
    return {"interval_seconds": interval_seconds, "samples": samples}


def swap(model: str, minutes_ago: float, **changes: Any) -> dict[str, Any]:
    event = {
        "at": (datetime.now(UTC) - timedelta(minutes=minutes_ago)).isoformat(timespec="milliseconds"),
        "model": model,
        "evicted": ["gemma-3-12b-it-qat-q4_0"],
        "outcome": "resident",
        "why": "not loaded",
        "cause": "",
        "seconds": 6.3,
        "phases": {"drain": 1.4, "release": 0.8, "vram_free": 0.2, "load": 5.1},
        "engine_lines": [],
        "why_evicted": {},
    }
    return event | changes


def swaps() -> list[dict[str, Any]]:
    """Oldest first, as the gateway lists them."""
    asleep = {"why": "asleep in RAM", "evicted": ["qwen3-8b-q4_k_m"]}
    return [
        swap("mistral-small-3.2-24b-instruct-2506-iq3_xs", 55, seconds=18.4, phases={"release": 1.1, "load": 16.9}),
        swap(
            "starcoder2-3b-q5_k_m",
            31,
            outcome="failed",
            seconds=3.9,
            cause="the engine was killed for lack of memory",
            phases={"drain": 0.0},
            engine_lines=["load_tensors: offloading 31 layers", "CUDA error: out of memory"],
        ),
        swap(
            "gemma-3-12b-it-qat-q4_0",
            29,
            seconds=2.6,
            phases={"drain": 0.3, "release": 0.6, "vram_free": 0.2, "wake": 1.9, "canary": 0.4},
            **asleep,
        ),
        swap("qwen3-4b-awq", 20, outcome="superseded", seconds=4.0, phases={"drain": 2.1}),
        swap("qwen3-8b-q4_k_m", 4),
    ]


def download(job_id: str, **changes: Any) -> dict[str, Any]:
    job = {
        "id": job_id,
        "repo": "unsloth/Qwen3-14B-GGUF",
        "file": "Qwen3-14B-Q4_K_M.gguf",
        "revision": "1" * 40,
        "state": "running",
        "done_bytes": 3 * GIB,
        "total_bytes": 9 * GIB,
        "files_done": 0,
        "files_total": 1,
        "rate_bytes_per_second": 25 * 2**20,
        "remaining_seconds": 245.76,
        "files": [],
        "note": "",
    }
    return job | changes


def downloads() -> list[dict[str, Any]]:
    """Oldest first, as the gateway lists them."""
    waits = {"rate_bytes_per_second": None, "remaining_seconds": None, "done_bytes": 0}
    full = {"message": "the disk is full", "type": "server_error", "code": "storage_failed", "source": "mmd"}
    return [
        download("1", repo="Qwen/Qwen3-4B-AWQ", file="", state="done", model="qwen3-4b-awq"),
        download("2", repo="big/model", file="", state="failed", error=full | {"hint": "mmd disk"}, **waits),
        download("3"),
        download("4", repo="BAAI/bge-m3", file="", state="queued", **waits),
    ]
