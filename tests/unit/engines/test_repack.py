"""Weights laid out for a CPU, against what llama-server b11434 said of the same headers.

The figures of the AMX build were taken on a machine without AMX: libggml-cpu was built with GGML_AMX_TILE and
GGML_AMX_INT8, and a preloaded `syscall` granted it the tiles. It says what it would allocate before it computes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmd.engines.llama.engine import EMBEDDED, LLAMA_SERVER
from mmd.plan.engine import Planner
from mmd.plan.predict import memory_of
from mmd.registry.detect import examine
from tests import well_known
from tests.unit.plan.planned import machine

AVX512 = ("avx2", "avx512f", "avx512_vnni")
AMX = (*AVX512, "amx_int8")
NEON = ("asimddp", "i8mm")
Q4_0, Q4_1, Q5_0, Q2_K, Q3_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4, BF16 = 2, 3, 6, 10, 11, 13, 14, 20, 23, 39, 30
Q4_K, Q8_0, F16 = well_known.Q4_K, well_known.Q8_0, well_known.F16


def weights_mib(
    folder: Path,
    shape: well_known.Shape,
    features: tuple[str, ...],
    *words: str,
    engine: Planner = LLAMA_SERVER,
) -> float:
    path = shape.write(folder / "m.gguf")
    here = replace(machine("cpu-only"), ram_total_bytes=1 << 40, cpu_features=features)
    memory = memory_of(engine, examine(path).facts, here, ("-c", "4096", *words))
    return memory.components(4096).weights_bytes / 1024**2


@pytest.mark.parametrize(
    ("shape", "plain", "repacked", "amx"),
    [
        (well_known.LLAMA_31_8B, 4437, 4437, 282 + 4258),
        (replace(well_known.LLAMA_31_8B, kind=Q8_0), 8137, 8137, 533 + 8498),
        (well_known.QWEN3_06B, 604, 604, 157 + 674),
        (well_known.QWEN3_30B_A3B, 30973, 30973, 29740 + 1378),
        (well_known.MIXTRAL_8X7B, 25089, 25089, 75 + 24192 + 842),
        (well_known.GEMMA_2_9B, 9366, 9366, 931 + 10465),
        (well_known.GEMMA_3_12B, 11924, 11924, 1022 + 13323),
        (well_known.QWEN36_27B, 14749, 14748, 692 + 12 + 14407),
    ],
    ids=["llama_q4", "llama_q8", "qwen3_06b", "qwen3_30b", "mixtral", "gemma_2", "gemma_3", "qwen36"],
)
def test_well_known_models(tmp_path: Path, shape: well_known.Shape, plain: int, repacked: int, amx: int) -> None:
    """The estimate was up to a third below what an AMX build takes: Qwen3-0.6B 604 for 831 MiB."""
    # The engine rounds every buffer down to whole MiB.
    assert weights_mib(tmp_path, shape, AVX512, "--no-repack") == pytest.approx(plain + 1, abs=2)
    assert weights_mib(tmp_path, shape, AMX, "-nr") == pytest.approx(plain + 1, abs=2)
    assert weights_mib(tmp_path, shape, AVX512) == pytest.approx(repacked + 1, abs=2)
    assert weights_mib(tmp_path, shape, AMX) == pytest.approx(amx + 1, abs=2)


@pytest.mark.parametrize(
    ("kind", "plain", "repacked", "amx"),
    [
        (Q4_0, 319, 402, 402),
        (Q4_1, 355, 355, 447),
        (Q5_0, 391, 391, 391),
        (Q2_K, 186, 234, 234),
        (Q3_K, 244, 244, 244),
        (Q4_K, 319, 402, 411),
        (Q5_K, 391, 391, 501),
        (Q6_K, 466, 466, 587),
        (IQ4_NL, 319, 402, 402),
        (IQ4_XS, 302, 302, 385),
        (MXFP4, 302, 380, 380),
        (F16, 1137, 1137, 1433),
        (BF16, 1137, 1137, 1137),
    ],
)
def test_tied_embeddings_of_each_type(tmp_path: Path, kind: int, plain: int, repacked: int, amx: int) -> None:
    """They are copied if their type is repacked, and grow if AMX adds to its blocks."""
    shape = replace(well_known.QWEN3_06B, kind=kind)
    assert weights_mib(tmp_path, shape, ()) == pytest.approx(plain + 1, abs=2)
    assert weights_mib(tmp_path, shape, AVX512) == pytest.approx(repacked + 1, abs=2)
    assert weights_mib(tmp_path, shape, AMX) == pytest.approx(amx + 1, abs=2)
    assert weights_mib(tmp_path, shape, AMX, engine=EMBEDDED) == pytest.approx(repacked + 1, abs=2)


def test_arm_repacks_eight_bits_too(tmp_path: Path) -> None:
    plain, repacked = (weights_mib(tmp_path, well_known.QWEN3_06B, features) for features in ((), NEON))
    assert repacked - plain == pytest.approx(151936 * 1024 * 34 / 32 / 1024**2)


def test_nothing_is_repacked_beside_a_gpu(tmp_path: Path) -> None:
    facts = examine(well_known.LLAMA_31_8B.write(tmp_path / "m.gguf")).facts
    beside = replace(machine("rtx4090-24g"), cpu_features=AMX)
    sizes = {memory_of(LLAMA_SERVER, facts, one).components(4096) for one in (beside, machine("rtx4090-24g"))}
    assert len(sizes) == 1
