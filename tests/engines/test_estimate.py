"""llama-server itself on ghosts: what it says of a model of which only the header was fetched."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.control.memory.estimate import Estimator
from mmd.control.memory.target import estimate_target
from mmd.engines.llama.breakdown import report_breakdown
from mmd.engines.llama.engine import LLAMA_SERVER
from mmd.engines.llama.find import probe
from mmd.machine import load_machine
from mmd.paths import config_file
from mmd.plan.estimate import Tier
from mmd.quantities import MIB
from mmd.settings import read_settings
from tests import well_known
from tests.fakes.hub import FakeHub, FakeRepository, OnDisk
from tests.tiny_models import tiny_gguf

SERVER = os.environ.get("MMD_TEST_LLAMA_SERVER", "")
pytestmark = [pytest.mark.engine, pytest.mark.skipif(not SERVER, reason="MMD_TEST_LLAMA_SERVER names no llama-server")]

WITHOUT_GPU = load_machine(Path(__file__).parent.parent / "machines" / "cpu-only.json")


@pytest.fixture
def estimating() -> Estimator:
    config_file().parent.mkdir(parents=True)
    models = '[models."me/it-GGUF"]\narguments = ["--no-repack"]\n'  # of the hub's, see the test
    config_file().write_text(f'[engines]\nllama-server = "{SERVER}"\n{models}')
    return Estimator(replace(WITHOUT_GPU, ram_total_bytes=1 << 38), read_settings())


def test_the_published_sizes_of_a_model_that_is_not_here(hub: FakeHub, estimating: Estimator, tmp_path: Path) -> None:
    """CUDA's log gives 30973.42 and 6144.00 MiB for Qwen3-Coder-30B-A3B in Q8_0, like a CPU that does not repack."""
    path = well_known.QWEN3_30B_A3B.write(tmp_path / "it-Q8_0.gguf")
    hub.repositories["me/it-GGUF"] = FakeRepository({path.name: OnDisk(path, sha256="a" * 64)})
    about = estimate_target("me/it-GGUF", WITHOUT_GPU, read_settings())
    found = estimating.answer(about.model, 65536).estimate
    formula = estimating.answer(about.model, 65536, asks_engine=False).estimate
    assert (found.tier, formula.tier) == (Tier.T2, Tier.T1)
    assert found.components.weights_bytes // MIB == 30973
    assert found.components.kv_bytes == 6144 * MIB
    assert found.components == formula.components
    assert found.error_bytes < formula.error_bytes
    assert sum(hub.sent) < 25 * 10**6


def test_it_says_so_of_a_small_one_that_is_here(estimating: Estimator, tmp_path: Path) -> None:
    about = estimate_target(str(tiny_gguf(tmp_path / "tiny.gguf")), WITHOUT_GPU, read_settings())
    found = estimating.answer(about.model, 2048)
    assert (found.estimate.tier, found.note) == (Tier.T2, "")


def test_embeddings_too(estimating: Estimator, tmp_path: Path) -> None:
    from tests.tiny_models import tiny_embedding_gguf

    about = estimate_target(str(tiny_embedding_gguf(tmp_path / "tiny.gguf")), WITHOUT_GPU, read_settings())
    assert estimating.answer(about.model, 512).estimate.tier is Tier.T2


def test_quantised_keys_and_values(tmp_path: Path) -> None:
    path = well_known.LLAMA_31_8B.write(tmp_path / "m.gguf")
    engine = probe(LLAMA_SERVER, SERVER)
    whole = report_breakdown(engine, ("-m", str(path), "-c", "8192"), sees_gpus=False).decisive
    half = report_breakdown(
        engine, ("-m", str(path), "-c", "8192", "-ctk", "q8_0", "-ctv", "q8_0"), sees_gpus=False
    ).decisive
    assert whole.context_bytes == 1024 * MIB
    assert half.context_bytes == 544 * MIB
    assert not list(tmp_path.glob("*.sock"))
