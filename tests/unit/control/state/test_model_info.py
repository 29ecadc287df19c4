"""The records as JSON: names and units as users of the API were promised."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mmd.cli.list_show import launch_record
from mmd.codec import encode, to_builtins
from mmd.control.state.devices import DeviceUse
from mmd.control.state.leases import LeaseStatus
from mmd.control.state.memory_use import Resources, summed
from mmd.control.state.model_info import model_info, model_infos
from mmd.control.state.residencies import status_word
from mmd.control.state.status import (
    Exposed,
    Failed,
    Resident,
    Sleeping,
    Starting,
    Status,
    Stranded,
    Unloaded,
    how_it_ended,
)
from mmd.machine import GpuUse, Machine
from mmd.plan.boot import Startup
from mmd.plan.choose import choose
from mmd.plan.lease import LeaseState
from mmd.plan.pressure import Ram
from mmd.plan.residency import Pair, Residency, UnitState
from mmd.plan.share import Holding
from mmd.quantities import MIB
from mmd.registry.record import Format
from tests.unit.plan.planned import CHAT, EMBEDDING, GIB, LLAMA_SERVER, facts, machine, model


def _resources(here: Machine) -> Resources:
    gpus = (GpuUse(gpu.name, gpu.uuid, gpu.total_bytes - gpu.free_bytes, gpu.total_bytes) for gpu in here.gpus)
    return summed(tuple(gpus), Ram(here.ram_available_bytes, here.ram_total_bytes))


STATUS = Status(
    active="a",
    resident=(
        Resident("a", "chat", "llama-server", {"GPU-1": 7}, {"GPU-1": 6}, "2026-11-21T10:00:00.000+00:00"),
        Resident("e", "embedding", "vllm", {"GPU-1": 1}, {}, None),
    ),
    sleeping=(Sleeping("b", level=1, ram_bytes=5, wake_seconds=None, devices={"GPU-1": 2}),),
    starting=(Starting("c", seconds=1.5, expected_seconds=None),),
    stranded=(Stranded("s", {"GPU-1": 3}),),
    failed=(Failed("d", reason="the engine ended with status 1"),),
    away=("f",),
    leases=(LeaseStatus("blender", LeaseState.HELD, "blender -b scene.blend", {"GPU-1": 4}, "2026-11-30T21:00:00", 7),),
    exposed=(Exposed("a", url="https://llm.example.org"),),
    unloaded=(Unloaded("g", "a", "in use", "2026-11-21T10:00:00.000+00:00"),),
    devices=(DeviceUse("GPU-1", "RTX 4070", 0, 12, 10, 9, 6, 1, 5),),
    resources=_resources(machine()),
)


def test_status_has_the_promised_names() -> None:
    shown = json.loads(encode(STATUS))
    assert shown.pop("resources")["vram"]["total_bytes"] == machine().gpus[0].total_bytes
    assert shown == {
        "active": "a",
        "resident": [
            {
                "id": "a",
                "type": "chat",
                "engine": "llama-server",
                "devices": {"GPU-1": 7},
                "used": {"GPU-1": 6},
                "since": "2026-11-21T10:00:00.000+00:00",
            },
            {"id": "e", "type": "embedding", "engine": "vllm", "devices": {"GPU-1": 1}, "used": {}, "since": None},
        ],
        "sleeping": [{"id": "b", "level": 1, "ram_bytes": 5, "wake_seconds": None, "devices": {"GPU-1": 2}}],
        "starting": [{"id": "c", "seconds": 1.5, "expected_seconds": None, "devices": {}}],
        "stranded": [{"id": "s", "devices": {"GPU-1": 3}}],
        "failed": [{"id": "d", "reason": "the engine ended with status 1"}],
        "away": ["f"],
        "leases": [
            {
                "name": "blender",
                "state": "held",
                "program": "blender -b scene.blend",
                "devices": {"GPU-1": 4},
                "since": "2026-11-30T21:00:00",
                "pid": 7,
            }
        ],
        "exposed": [{"id": "a", "url": "https://llm.example.org"}],
        "unloaded": [{"id": "g", "unloaded_for": "a", "why": "in use", "at": "2026-11-21T10:00:00.000+00:00"}],
        "devices": [
            {
                "id": "GPU-1",
                "name": "RTX 4070",
                "index": 0,
                "total_bytes": 12,
                "capacity_bytes": 10,
                "held_bytes": 9,
                "mmd_bytes": 6,
                "others_bytes": 1,
                "free_bytes": 5,
            }
        ],
    }


def test_resources_in_gib_and_bytes() -> None:
    here = machine()
    (gpu,) = here.gpus
    small = replace(here, ram_total_bytes=4 * GIB, ram_available_bytes=3 * GIB)
    shown = to_builtins(_resources(small))
    assert shown["ram"] == {"used": 1.0, "total": 4.0, "used_bytes": GIB, "total_bytes": 4 * GIB}
    used_bytes = gpu.total_bytes - gpu.free_bytes
    assert shown["vram"]["used_bytes"] == used_bytes
    assert shown["gpus"] == [
        {"name": gpu.name, "uuid": gpu.uuid, "used_bytes": used_bytes, "total_bytes": gpu.total_bytes}
    ]


def test_resources_without_a_gpu_are_zeros() -> None:
    shown = to_builtins(_resources(machine("cpu-only")))
    assert shown["vram"] == {"used": 0, "total": 0, "used_bytes": 0, "total_bytes": 0}
    assert shown["gpus"] == []


def test_model_has_the_promised_names() -> None:
    assert json.loads(encode(model_info(CHAT))) == {
        "id": "qwen3-8b",
        "aliases": [],
        "type": "chat",
        "engine": "llama.cpp",
        "format": "gguf",
        "quant": "Q4_K_M",
        "vram": 5.0,
        "vram_bytes": 5 * GIB,
        "context": 40960,
        "status": "absent",
        "startup": "disabled",
        "source": "file",
        "licence": "",
        "terms": "unknown",
        "path": "/models/qwen3-8b.gguf",
        "devices": {},
    }


def test_models_are_shown_where_they_are() -> None:
    up = UnitState("active", "running", loaded=True)
    here = {"qwen3-8b": Pair(up, up, Holding({"GPU-1": 3}))}
    modes, aliases = {"qwen3-8b": Startup.ACTIVE}, {"qwen3-8b": ("gpt-4o",)}
    rows = model_infos([CHAT, EMBEDDING], here, "qwen3-8b", modes, aliases)
    assert [row.aliases for row in rows] == [("gpt-4o",), ()]
    assert [(row.id, row.status, row.startup) for row in rows] == [
        ("qwen3-8b", "active", "active"),
        ("nomic-embed", "absent", "disabled"),
    ]
    assert [row.devices for row in rows] == [{"GPU-1": 3 * MIB}, {}]


def test_engine_family_of_safetensors() -> None:
    assert model_info(model(facts(format=Format.SAFETENSORS))).engine == "vllm"


@pytest.mark.parametrize(
    ("here", "word"),
    [
        (Residency.RESIDENT, "resident"),
        (Residency.ASLEEP, "sleeping"),
        (Residency.STARTING, "starting"),
        (Residency.FAILED, "failed"),
        (Residency.ABSENT, "absent"),
        (Residency.STOPPING, "absent"),
        (Residency.STRANDED, "stranded"),
    ],
)
def test_status_word_of_every_residency(here: Residency, word: str) -> None:
    assert status_word("a", here, "somebody else") == word


def test_status_words_are_all_tried() -> None:
    promised = {"active", "resident", "sleeping", "starting", "failed", "stranded", "absent"}
    assert {status_word("a", here, active) for here in Residency for active in ("a", None)} == promised


def test_launch_shows_command_and_reasons() -> None:
    launch = choose(CHAT, machine(), [LLAMA_SERVER], socket="/s", cache="/cache")
    shown = json.loads(json.dumps(launch_record(launch)))
    assert shown["argv"] == list(launch.argv)
    assert shown["environment"] == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert shown["flags"][0] == {"words": ["-m", "/models/qwen3-8b.gguf"], "subject": "-m", "reason": "the model"}
    assert len(shown["flags"]) == len(launch.flags)


@pytest.mark.parametrize(
    ("result", "status", "said"),
    [
        ("exit-code", 1, "status 1"),
        ("exit-code", 0, "not ready in time"),
        ("signal", 9, "signal 9"),
        ("core-dump", 11, "signal 11"),
        ("oom-kill", 9, "lack of memory"),
        ("timeout", 0, "not ready in time"),
        ("start-limit-hit", 0, "too often"),
        ("resources", 0, "could not start"),
        ("a-newer-word", 0, "a-newer-word"),
    ],
)
def test_how_it_ended_in_words(result: str, status: int, said: str) -> None:
    assert said in how_it_ended(result, status)
