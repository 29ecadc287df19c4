"""The gate and the ledger as systemd runs them: real processes over the folders of a runtime folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmd import hooks

GATE = Path(hooks.__file__).parent / "gate.py"
_TIMEOUT_SECONDS = 30


class Ledger:
    """mmd's runtime folder, with the folders and entries that systemd and the hooks leave there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def token(self, model_id: str, held: str = "") -> None:
        """Make a token's folder; with `held`, its gate has admitted the model."""
        (self.folder / f"{model_id}~gpu").mkdir()
        if held:
            self.write(f"{model_id}~gpu/held", held)
            self.write(f"{model_id}~size", held)

    def engine(self, model_id: str, *, size: str = "", keeps: str = "") -> None:
        (self.folder / model_id).mkdir()
        if size:
            self.write(f"{model_id}~size", size)
        if keeps:
            self.write(f"{model_id}/keeps", keeps)

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def remove(self, name: str) -> None:
        shutil.rmtree(self.folder / name)

    def held(self, model_id: str) -> str:
        path = self.folder / f"{model_id}~gpu/held"
        return path.read_text() if path.exists() else ""

    def start(self, model_id: str, *words: str, seconds: float = 0) -> subprocess.Popen[str]:
        command = [sys.executable, "-I", "-S", str(GATE), model_id, str(self.folder), str(seconds), *words]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def pass_gate(self, model_id: str, *words: str, seconds: float = 0) -> str:
        """Run a gate; return "" or what it says when it refuses."""
        gate = self.start(model_id, *words, seconds=seconds)
        _, said = gate.communicate(timeout=_TIMEOUT_SECONDS)
        assert (gate.returncode, bool(said)) in ((0, False), (75, True)), said
        refused = self.folder / f"{model_id}~refused"
        assert refused.exists() == bool(said)
        return said.strip()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    folder = tmp_path / "mmd"
    folder.mkdir()
    return Ledger(folder)


def test_model_that_fits_is_entered(ledger: Ledger) -> None:
    ledger.token("b", "g0=14000")
    ledger.token("a")
    assert ledger.pass_gate("a", "g0=10000/24000") == ""
    assert ledger.held("a") == "g0=10000"
    assert (ledger.folder / "a~size").read_text() == "g0=10000"


def test_model_that_does_not_fit_is_refused(ledger: Ledger) -> None:
    ledger.token("b", "g0=14001")
    ledger.token("a")
    said = ledger.pass_gate("a", "g0=10000/24000")
    assert said == "a is not admitted: it needs 10000 MiB of g0; 9999 MiB of g0 is left beside b (g0=14001)"
    assert ledger.held("a") == ""


def test_other_devices_do_not_matter(ledger: Ledger) -> None:
    ledger.token("b", "g1=16000")
    ledger.token("a")
    assert ledger.pass_gate("a", "g0=24000/24000") == ""


def test_every_device_of_a_share_must_have_room(ledger: Ledger) -> None:
    ledger.token("b", "g1=1000")
    ledger.token("a")
    assert "0 MiB of g1" in ledger.pass_gate("a", "g0=10/20", "g1=10/1000")


def test_engine_counts_in_full_until_proof_that_it_sleeps(ledger: Ledger) -> None:
    """A release hook that was killed left two models awake."""
    ledger.engine("b", size="g0=14000")
    ledger.token("a")
    assert ledger.pass_gate("a", "g0=20000/24000")
    ledger.write("b/keeps", "g0=1200")
    assert ledger.pass_gate("a", "g0=20000/24000") == ""


def test_token_counts_before_its_engine_sleeps(ledger: Ledger) -> None:
    ledger.token("b", "g0=14000")
    ledger.engine("b", keeps="g0=1200")
    ledger.token("a")
    assert ledger.pass_gate("a", "g0=20000/24000")


def test_size_of_an_engine_that_has_ended_does_not_count(ledger: Ledger) -> None:
    ledger.write("b~size", "g0=14000")
    ledger.token("a")
    assert ledger.pass_gate("a", "g0=24000/24000") == ""


def test_engine_of_mmd_0_1_counts_as_the_whole_machine(ledger: Ledger) -> None:
    ledger.engine("b")
    ledger.token("a")
    assert "b (the whole machine)" in ledger.pass_gate("a", "g0=1/24000")


def test_gate_waits_for_models_that_leave_for_it(ledger: Ledger) -> None:
    ledger.token("b", "g0=14000")
    ledger.token("a")
    gate = ledger.start("a", "g0=20000/24000", "wait=b", seconds=20)
    time.sleep(0.2)
    assert gate.poll() is None
    ledger.remove("b~gpu")
    _, said = gate.communicate(timeout=_TIMEOUT_SECONDS)
    assert (gate.returncode, said, ledger.held("a")) == (0, "", "g0=20000")


def test_gate_does_not_wait_for_models_that_stay(ledger: Ledger) -> None:
    ledger.token("b", "g0=14000")
    ledger.token("a")
    began = time.monotonic()
    assert ledger.pass_gate("a", "g0=20000/24000", "wait=c", seconds=20)
    assert time.monotonic() - began < 10


def test_gate_does_not_wait_for_a_stranded_engine(ledger: Ledger) -> None:
    """Its release hook was killed: without the token it does not leave by itself."""
    ledger.engine("b", size="g0=14000")
    ledger.token("a")
    assert "the engine of b is awake without a token" in ledger.pass_gate("a", "g0=20000/24000", "wait=b", seconds=20)


def test_sleeper_wakes_where_it_lies(ledger: Ledger) -> None:
    ledger.engine("a", size="g0=10000", keeps="g0=1200")
    ledger.token("a")
    assert ledger.pass_gate("a", "g0=10000/24000") == ""
    ledger.remove("a~gpu")
    ledger.token("a")
    assert "another share" in ledger.pass_gate("a", "g1=10000/24000")


def test_gates_at_once_never_over_commit(ledger: Ledger) -> None:
    names = [f"m{number}" for number in range(12)]
    for name in names:
        ledger.token(name)
    gates = [ledger.start(name, "g0=5000/24000") for name in names]
    statuses = [gate.wait(timeout=_TIMEOUT_SECONDS) for gate in gates]
    for gate in gates:
        assert gate.stderr is not None
        gate.stderr.close()
    assert sorted(statuses) == [0] * 4 + [75] * 8
    assert sum(bool(ledger.held(name)) for name in names) == 4


def test_lone_model_is_refused_beside_an_awake_one(ledger: Ledger) -> None:
    """With residency = "one", although both fit; what sleeps, leases and other devices do not matter."""
    ledger.engine("stranded", size="g0=10")
    ledger.engine("asleep", size="g0=10", keeps="g0=1")
    ledger.token("lease@game", "g0=10")
    ledger.token("elsewhere", "g1=10")
    ledger.token("a")
    assert "beside stranded (g0=10)" in ledger.pass_gate("a", "g0=10/24000", "alone")
    ledger.write("stranded/keeps", "g0=1")
    assert ledger.pass_gate("a", "g0=10/24000", "alone") == ""
