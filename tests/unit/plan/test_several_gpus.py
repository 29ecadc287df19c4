"""Recorded machines with several GPUs, one small GPU, or none, and models with the shapes of well-known ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mmd.machine import Machine, load_machine
from mmd.plan.needs import demand_of
from mmd.plan.placement.arrange import Arrangement, arrange
from mmd.plan.placement.demand import Demand
from mmd.plan.placement.devices import devices_of
from mmd.plan.placement.place import CannotPlace, Occupant
from mmd.registry.detect import examine
from mmd.registry.record import Model
from tests.unit.plan.planned import LLAMA_SERVER
from tests.well_known import GEMMA_3_12B, LLAMA_31_8B, QWEN3_06B, QWEN3_8B, QWEN3_30B_A3B, Shape

MACHINES = Path(__file__).parents[2] / "machines"
HEAD_NORMS = ("attn_q_norm", "attn_k_norm")
TRAINED = {"context_length": 40960}
SHAPES = {
    "embed": replace(QWEN3_06B, more={"context_length": 32768, "pooling_type": 3}),
    "rerank": replace(QWEN3_06B, more={"context_length": 40960, "pooling_type": 4}),
    "llama-8b": replace(LLAMA_31_8B, more={"context_length": 131072}),
    "qwen3-8b": replace(QWEN3_8B, more=TRAINED),
    "qwen3-32b": Shape("qwen3", 64, 5120, 64, 8, 128, 25600, 151936, head_norms=HEAD_NORMS, more=TRAINED),
    "qwen3-30b-a3b": replace(QWEN3_30B_A3B, more=TRAINED),
    "gemma-3-12b": GEMMA_3_12B,
    "llama-70b": Shape("llama", 80, 8192, 64, 8, 128, 28672, 128256, more={"context_length": 131072}),
}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder, found = tmp_path_factory.mktemp("models"), {}
    for name, shape in SHAPES.items():
        path = shape.write(folder / f"{name}.gguf")
        facts = examine(path).facts
        found[name] = Model(name, str(path), (str(path),), None, "file", "2026-01-01T00:00:00Z", "", facts)
    return found


def recorded(name: str) -> Machine:
    return load_machine(next(MACHINES.rglob(f"{name}.json")))


@dataclass
class Room:
    """A machine on which models are activated one after another."""

    machine: Machine
    models: dict[str, Model]
    light: tuple[str, ...] = ("embed",)
    one_each: bool = False
    residents: dict[str, Occupant] = field(default_factory=dict)
    clock: float = 0.0
    left: tuple[str, ...] = ()  # for the last activation

    def activate(self, *wanted: str) -> Arrangement | CannotPlace:
        self.clock += 1
        found = arrange(
            [self._demand(one) for one in wanted],
            tuple(self.residents.values()),
            devices_of(self.machine, {}),
            light=[self._demand(one) for one in self.light],
            one_each=self.one_each,
        )
        if isinstance(found, Arrangement):
            self.left = (*found.placement.sleep, *found.placement.end)
            for one in self.left:
                del self.residents[one]
            for one in wanted:
                share = found.allocations[one].share
                self.residents[one] = Occupant(one, share, last_used=self.clock, grows=not self._demand(one).is_light)
        return found

    def where(self) -> dict[str, tuple[int, ...]]:
        """Return the indexes of the GPUs of each resident model; () for RAM."""
        index = {device: gpu.index for gpu in self.machine.gpus for device in (gpu.uuid[:12], gpu.uuid)}
        return {
            one: tuple(sorted(index[device] for device in occupant.uses if device in index))
            for one, occupant in self.residents.items()
        }

    def _demand(self, name: str) -> Demand:
        return demand_of(self.models[name], self.machine, [LLAMA_SERVER], devices_of(self.machine, {}))


# What is activated one after another -> the GPUs of each resident model afterwards, and who left for the last one.
_Sizes = dict[str, tuple[int, ...]]
_CASES: dict[str, tuple[str, tuple[str, ...], _Sizes, tuple[str, ...]]] = {
    "two chats lie on two cards": (
        "rtx3090-2x24g",
        ("qwen3-8b", "embed", "llama-8b", "rerank"),
        {"qwen3-8b": (0,), "embed": (0,), "llama-8b": (1,), "rerank": (0,)},
        (),
    ),
    "a heavy one takes the card of those that were used least recently": (
        "rtx3090-2x24g",
        ("qwen3-8b", "embed", "llama-8b", "qwen3-32b"),
        {"llama-8b": (1,), "qwen3-32b": (0,)},
        ("embed", "qwen3-8b"),
    ),
    "layers are divided, and an embedder fits beside them": (
        "rtx3090-2x24g",
        ("gemma-3-12b", "llama-70b", "embed"),
        {"llama-70b": (0, 1), "embed": (0,)},
        (),
    ),
    "four cards hold three chats and an embedder": (
        "rtx3090-4x24g",
        ("qwen3-32b", "llama-70b", "gemma-3-12b", "embed"),
        {"qwen3-32b": (0,), "llama-70b": (1, 2), "gemma-3-12b": (3,), "embed": (3,)},
        (),
    ),
    "one card of four is emptied, not two": (
        "rtx3090-4x24g",
        ("qwen3-32b", "llama-70b", "gemma-3-12b", "llama-8b"),
        {"llama-70b": (1, 2), "gemma-3-12b": (3,), "llama-8b": (0,)},
        ("qwen3-32b",),
    ),
    "the small card takes the small chat, the large one the large": (
        "rtx4090-rtx3060-24g-12g",
        ("qwen3-8b", "qwen3-32b"),
        {"qwen3-8b": (1,), "qwen3-32b": (0,)},
        (),
    ),
    "a model that only the large card holds leaves the small one alone": (
        "rtx4090-rtx3060-24g-12g",
        ("qwen3-8b", "qwen3-32b", "gemma-3-12b"),
        {"qwen3-8b": (1,), "gemma-3-12b": (0,)},
        ("qwen3-32b",),
    ),
    "a model larger than both cards empties them": (
        "rtx4090-rtx3060-24g-12g",
        ("qwen3-8b", "gemma-3-12b", "llama-70b"),
        {"llama-70b": (0, 1)},
        ("gemma-3-12b", "qwen3-8b"),
    ),
    "a laptop holds one chat": (
        "rtx4060-laptop-8g",
        ("qwen3-8b", "llama-8b"),
        {"llama-8b": (0,)},
        ("qwen3-8b",),
    ),
    "a laptop holds two light models": (
        "rtx4060-laptop-8g",
        ("qwen3-8b", "embed", "rerank"),
        {"embed": (0,), "rerank": (0,)},
        (),
    ),
    "a laptop runs a larger model from RAM, too": (
        "rtx4060-laptop-8g",
        ("embed", "gemma-3-12b"),
        {"gemma-3-12b": (0,)},
        ("embed",),
    ),
    "one card holds a chat and an embedder": (
        "rtx4090-24g",
        ("gemma-3-12b", "embed"),
        {"gemma-3-12b": (0,), "embed": (0,)},
        (),
    ),
    "RAM holds a chat and an embedder": (
        "cpu-only",
        ("qwen3-8b", "embed"),
        {"qwen3-8b": (), "embed": ()},
        (),
    ),
    "RAM does not hold two chats that have grown": (
        "cpu-only",
        ("qwen3-8b", "llama-8b"),
        {"llama-8b": ()},
        ("qwen3-8b",),
    ),
}


@pytest.mark.parametrize("case", _CASES.values(), ids=list(_CASES))
def test_models_on_a_recorded_machine(
    case: tuple[str, tuple[str, ...], _Sizes, tuple[str, ...]], models: dict[str, Model]
) -> None:
    machine, activated, where, left = case
    room = Room(recorded(machine), models)
    for name in activated:
        assert isinstance(room.activate(name), Arrangement), name
    assert room.where() == where
    assert room.left == left


@pytest.mark.parametrize(
    ("machine", "where", "left"),
    [
        ("rtx3090-2x24g", {"llama-8b": (0,), "embed": (1,)}, ("qwen3-8b",)),
        ("rtx3090-4x24g", {"qwen3-8b": (0,), "embed": (1,), "llama-8b": (2,)}, ()),
        ("rtx4090-rtx3060-24g-12g", {"embed": (0,), "llama-8b": (1,)}, ("qwen3-8b",)),
        ("rtx4060-laptop-8g", {"llama-8b": (0,)}, ("embed",)),
        ("cpu-only", {"llama-8b": ()}, ("embed",)),
    ],
)
def test_strict_rule_on_a_recorded_machine(
    machine: str, where: _Sizes, left: tuple[str, ...], models: dict[str, Model]
) -> None:
    room = Room(recorded(machine), models, one_each=True)
    for name in ("qwen3-8b", "embed", "llama-8b"):
        assert isinstance(room.activate(name), Arrangement)
    assert room.where() == where
    assert room.left == left


def test_setup_of_three_shares_one_card(models: dict[str, Model]) -> None:
    room = Room(recorded("rtx4090-24g"), models, light=("embed", "rerank"))
    found = room.activate("gemma-3-12b", "embed", "rerank")
    assert isinstance(found, Arrangement)
    sizes = {one: sum(given.share.values()) for one, given in found.allocations.items()}
    assert sizes["embed"] == sizes["rerank"] == 2902, "as much as an input can use"
    (gpu, _ram) = devices_of(room.machine, {})
    assert sum(sizes.values()) == gpu.capacity_mib, "the chat model has the rest"


def test_two_chats_alternate_without_swaps_on_two_cards(models: dict[str, Model]) -> None:
    room = Room(recorded("rtx3090-2x24g"), models)
    for name in ("qwen3-32b", "gemma-3-12b"):
        room.activate(name)
    assert room.where() == {"qwen3-32b": (0,), "gemma-3-12b": (1,)}
    assert room.left == ()
