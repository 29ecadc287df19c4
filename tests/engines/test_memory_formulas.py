"""What llama-server says it would allocate, against the formulas: the same models, before any weight is read.

With --no-repack it says the same on every CPU. Without it the figures depend on the CPU that the tests run on.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.engines.llama.constants import LlamaConstants
from mmd.engines.llama.memory import LlamaMemory
from mmd.engines.llama.options import llama_options
from mmd.machine import load_machine, read_machine
from mmd.plan.fit import layout_of
from mmd.registry.detect import examine
from tests import well_known

MIB = 1024**2
SERVER = os.environ.get("MMD_TEST_LLAMA_SERVER")
WITHOUT_GPU = load_machine(Path(__file__).parent.parent / "machines" / "cpu-only.json")

pytestmark = pytest.mark.skipif(SERVER is None, reason="needs a real llama-server: MMD_TEST_LLAMA_SERVER")

MODELS = {
    "llama-3.1-8b": well_known.LLAMA_31_8B,
    "qwen3-0.6b": well_known.QWEN3_06B,
    "qwen3-30b-a3b": well_known.QWEN3_30B_A3B,
    "mixtral-8x7b": well_known.MIXTRAL_8X7B,
    "gemma-2-9b": well_known.GEMMA_2_9B,
    "gemma-3-12b": well_known.GEMMA_3_12B,
    "qwen3.6-27b": well_known.QWEN36_27B,
    "deepseek-v2-lite": well_known.DEEPSEEK_V2_LITE,
    "deepseek-v3": well_known.DEEPSEEK_V3_CUT,
}
COMMANDS = (
    ("-c", "4096"),
    ("-c", "32768", "-np", "1"),
    ("-c", "32768", "-np", "3", "-kvu", "-ub", "256"),
    ("-c", "16384", "-np", "2", "-ctk", "q8_0", "-ctv", "q8_0"),
)


def asked(model: Path, words: tuple[str, ...]) -> dict[str, int]:
    """Run it until it reports its memory, in MiB over all kinds; it is killed before it reads the hole."""
    socket = model.with_suffix(".sock")
    command = [str(SERVER), "-m", str(model), "--no-warmup", "--host", str(socket), "--log-jsonl", *words]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as engine:
        assert engine.stdout is not None
        try:
            line = next(line for line in engine.stdout if "fit_memory_breakdown" in line)
        finally:
            engine.kill()
    rows = json.loads(line)["data"]["rows"]
    return {key: sum(row[key] for row in rows) for key in ("model", "context", "compute")}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("name", MODELS)
def test_formulas_are_what_the_engine_says_on_any_cpu(tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    path = MODELS[name].write(tmp_path / "m.gguf")
    facts = examine(path).facts
    machine = replace(WITHOUT_GPU, ram_total_bytes=1 << 40)
    memory = LlamaMemory(layout_of(facts), machine, llama_options((*words, "--no-repack")), 0, LlamaConstants())
    found = memory.components(int(words[1]))
    said = asked(path, (*words, "--no-repack"))
    # It rounds every kind of memory down to whole MiB.
    assert found.weights_bytes / MIB == pytest.approx(said["model"] + 1, abs=2)
    assert (found.kv_bytes + found.state_bytes) / MIB == pytest.approx(said["context"] + 1, abs=2)
    assert found.compute_bytes / MIB == pytest.approx(said["compute"] + 1, abs=2)


REPACKED = {
    **{name: shape for name, shape in MODELS.items() if not name.startswith("deepseek")},  # AMX builds abort
    **{f"tied-{kind}": replace(well_known.QWEN3_06B, kind=kind) for kind in (2, 10, 12, 14, 20, 23, 39)},
}


@pytest.mark.parametrize("name", REPACKED)
def test_repacked_weights_are_what_the_engine_says_on_this_cpu(tmp_path: Path, name: str) -> None:
    """The llama-server must be built for this CPU, as that of contrib/llama_server.py is."""
    path = REPACKED[name].write(tmp_path / "m.gguf")
    machine = replace(WITHOUT_GPU, ram_total_bytes=1 << 40, cpu_features=read_machine().cpu_features)
    memory = LlamaMemory(layout_of(examine(path).facts), machine, llama_options(COMMANDS[0]), 0, LlamaConstants())
    # It rounds each of up to three buffers down to whole MiB.
    weights_mib = memory.components(4096).weights_bytes / MIB
    assert weights_mib == pytest.approx(asked(path, COMMANDS[0])["model"] + 1, abs=2), machine.cpu_features
