"""Where `mmd show` says that a model would lie."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmd.control.lifecycle.preview import occupants_of, preview
from mmd.machine import load_machine
from mmd.plan.placement.place import Occupant
from mmd.plan.residency import Pair, UnitState
from mmd.plan.share import Holding
from mmd.quantities import MIB
from mmd.registry.detect import examine
from mmd.registry.record import Model
from mmd.settings import ModelTable, Settings, read_settings
from mmd.units.watch import UnitStates
from tests.fakes.engine import install_fake_llama_server
from tests.well_known import QWEN3_06B, QWEN3_8B, Shape

MACHINES = Path(__file__).parents[3] / "machines"
TWO = load_machine(MACHINES / "several" / "rtx3090-2x24g.json")
FIRST, SECOND = "GPU-3a1c07d2", "GPU-9be25f61"


def registered(folder: Path, name: str, shape: Shape) -> Model:
    path = shape.write(folder / f"{name}.gguf")
    return Model(name, str(path), (str(path),), None, "file", "2026-01-01T00:00:00Z", "", examine(path).facts)


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    install_fake_llama_server(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return registered(tmp_path, "chat", QWEN3_8B)


def test_free_gpu_is_shown(chat: Model) -> None:
    found = preview(chat, TWO, read_settings())
    assert found.devices.keys() == {FIRST}
    assert not found.unloads
    assert not found.refused


def test_models_that_would_be_unloaded_are_shown_with_the_reason(chat: Model) -> None:
    others = [Occupant("a", {FIRST: 20000}, last_used=1), Occupant("b", {SECOND: 20000}, last_used=2)]
    found = preview(chat, TWO, read_settings(), occupants=others)
    assert found.devices.keys() == {FIRST}
    assert found.unloads == {"a": "the least recently used whose memory is enough: 19.5 GiB"}


def test_resident_model_stays_where_it_is(chat: Model) -> None:
    found = preview(chat, TWO, read_settings(), occupants=[Occupant("chat", {SECOND: 9000})])
    assert found.devices == {SECOND: 9000 * MIB}


def test_lease_that_leaves_no_room_is_named(chat: Model) -> None:
    leases = [Occupant(f"lease@{device}", {device: 20000}, is_lease=True) for device in (FIRST, SECOND)]
    found = preview(chat, TWO, read_settings(), occupants=leases)
    assert not found.devices
    assert "chat needs" in found.refused
    assert "the lease GPU-3a1c07d2 holds 19.5 GiB" in found.refused


def test_registered_embedder_gets_room(chat: Model, tmp_path: Path) -> None:
    one = load_machine(MACHINES / "rtx4090-24g.json")
    alone = sum(preview(chat, one, read_settings()).devices.values())
    other = registered(tmp_path, "other", QWEN3_8B)
    embed = registered(tmp_path, "embed", replace(QWEN3_06B, more={"context_length": 32768, "pooling_type": 3}))
    assert sum(preview(chat, one, read_settings(), registered=(other,)).devices.values()) == alone
    assert sum(preview(chat, one, read_settings(), registered=(embed,)).devices.values()) < alone


def test_occupants_are_read_from_the_units() -> None:
    up = UnitState(active="active", loaded=True)
    pairs = {
        "resident": Pair(up, up, Holding({FIRST: 9000}), type="chat"),
        "light": Pair(up, up, Holding({FIRST: 1000}), type="embedding"),
        "absent": Pair(),
    }
    settings = Settings(models={"light": ModelTable(pinned=True)})
    assert occupants_of(UnitStates(pairs, {}), TWO, settings) == (
        Occupant("light", {FIRST: 1000}, pinned=True),
        Occupant("resident", {FIRST: 9000}, grows=True),
    )
