"""The tiers: headers and formulas, the engine's own word, and what starts here have taken."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmd.codec import to_builtins
from mmd.control.memory import starts_log
from mmd.control.memory.calibration import constants_from
from mmd.control.memory.engine_plan import served
from mmd.control.memory.estimate import Answer, Estimator
from mmd.control.memory.measure import machine_of
from mmd.control.memory.starts_log import StartRecord
from mmd.control.state.refused_flags import RefusedFlags
from mmd.engines.llama.engine import LLAMA_SERVER
from mmd.engines.vllm.constants import VllmConstants
from mmd.engines.vllm.engine import VLLM
from mmd.engines.vllm.log import VllmLoadLog
from mmd.machine import GpuProcess, Machine, load_machine
from mmd.paths import config_file
from mmd.plan.breakdown import Breakdown, Row
from mmd.plan.estimate import Components, Tier
from mmd.plan.measurement import LoadLog, Observation
from mmd.plan.residency import Pair
from mmd.plan.share import Holding
from mmd.quantities import MIB
from mmd.registry.detect import examine
from mmd.registry.identity import identity
from mmd.registry.record import Model
from mmd.settings import read_settings
from tests import well_known

MACHINES = Path(__file__).parents[3] / "machines"
CPU = replace(load_machine(MACHINES / "cpu-only.json"), ram_total_bytes=64 << 30)
GPU = load_machine(MACHINES / "rtx4090-24g.json")
LLAMA = LLAMA_SERVER.constants
PARTS = Components(5000 * MIB, 1000 * MIB, 0, 100 * MIB, 0, 460 * MIB)

HELP = "-m, --model F   a model\n-c, --ctx-size N   the context\n--host H   where\n--alias A   its name\n" + "".join(
    f"{flag}   yes\n"
    for flag in (
        "--no-warmup",
        "--log-jsonl",
        "--metrics",
        "--threads-http",
        "--cache-ram",
        "--no-webui",
        "--no-repack",
    )
)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    path = well_known.LLAMA_31_8B.write(tmp_path / "m.gguf")
    return Model("m", str(path), (str(path),), None, "file", "", "", examine(path).facts)


ASSERTION = "/build/ggml/src/ggml-backend.cpp:1434: GGML_ASSERT(*cur_backend_id != -1) failed"


def install(folder: Path, rows: list[Mapping[str, object]], *, aborts: bool = False) -> Path:
    """A llama-server that tells this table, and counts how often it was asked; it `aborts` unless --no-repack."""
    abort = f"echo '{ASSERTION}' >&2; seq 30 >&2; kill -ABRT $$"
    program = folder / "llama-server"
    record = json.dumps({"type": "fit_memory_breakdown", "data": {"unit": "MiB", "rows": rows}})
    program.write_text(
        "#!/bin/sh\n"
        f"case $1 in --help) cat <<'EOF'\n{HELP}EOF\n;; --version) echo 'version: 1 (abc)';;\n"
        + (f'*) case "$*" in *--no-repack*) ;; *) {abort};; esac; ' if aborts else "*) ")
        + f"echo \"$CUDA_VISIBLE_DEVICES|$@\" >>{folder}/asked; echo '{record}';; esac\n"
    )
    program.chmod(0o755)
    config_file().parent.mkdir(parents=True, exist_ok=True)
    config_file().write_text(f'[engines]\nllama-server = "{program}"\n')
    return folder / "asked"


def row(kind: str, model: int, context: int, compute: int) -> Mapping[str, object]:
    return {"kind": kind, "name": kind, "model": model, "context": context, "compute": compute}


def answer(machine: Machine, model: Model, *, asks_engine: bool = True, is_here: bool = True) -> Answer:
    estimating = Estimator(machine, read_settings(), is_here=is_here)
    return estimating.answer(model, 8192, asks_engine=asks_engine)


@pytest.mark.parametrize("added", ["2026-11-30T12:00:00Z", ""], ids=["registered", "not_registered"])
def test_engine_that_aborts_is_asked_with_no_repack(model: Model, tmp_path: Path, added: str) -> None:
    """deepseek2 on a CPU with AMX: there was no more than the formulas, and its start died in the same way."""
    asked = install(tmp_path, [row("host", 4440, 1024, 100)], aborts=True)
    mixture = replace(model, added=added)
    found = answer(CPU, mixture)
    assert (found.estimate.tier, found.note) == (Tier.T2, "")
    assert answer(CPU, mixture).estimate == found.estimate
    assert [line.count("--no-repack") for line in asked.read_text().splitlines()] == [1]
    assert RefusedFlags().refused("m") == ({"llama-server 1": {"--repack": ASSERTION}} if added else {})


def start(model: str = "m", **changes: object) -> StartRecord:
    usual: dict[str, object] = {
        "at": "2026-11-21T05:00:00+00:00", "invocation": model, "model": model, "weights": "w",
        "engine": "llama-server 1", "command": "c", "gpu": "GPU-1,555", "context": 8192,
        "predicted": {"compute_bytes": 100}, "measured": {}, "compute_factor": 1.0,
    }  # fmt: skip
    return StartRecord(**usual | changes)  # type: ignore[arg-type]


def test_headers_alone(model: Model, tmp_path: Path) -> None:
    asked = install(tmp_path, [row("host", 1, 1, 1)])
    found = answer(CPU, model, asks_engine=False)
    assert (found.estimate.tier, found.engine) == (Tier.T1, "llama-server 1")
    assert not asked.exists()


def test_what_the_engine_says_goes_before_the_formulas(model: Model, tmp_path: Path) -> None:
    formula = answer(CPU, model, asks_engine=False).estimate.components
    asked = install(
        tmp_path,
        [
            row(
                "host",
                formula.weights_bytes // MIB + 300,
                formula.kv_bytes // MIB - 100,
                formula.compute_bytes // MIB * 2,
            )
        ],
    )
    found = answer(CPU, model).estimate
    parts = found.components
    assert found.tier is Tier.T2
    assert parts.weights_bytes == pytest.approx(formula.weights_bytes + 300 * MIB, abs=MIB)
    assert parts.kv_bytes == pytest.approx(formula.kv_bytes - 100 * MIB, abs=MIB)
    assert parts.compute_bytes == pytest.approx(formula.compute_bytes * 2, abs=4 * MIB)
    assert parts.overhead_bytes == pytest.approx(formula.overhead_bytes, abs=2)
    assert found.needs_bytes == pytest.approx(parts.total_bytes, abs=2)
    assert found.error_bytes < answer(CPU, model, asks_engine=False).estimate.error_bytes
    assert asked.read_text().startswith(f"|-m {model.path} ")
    assert "-c 8192 --no-warmup --log-jsonl" in asked.read_text()


def test_the_engine_is_asked_once(model: Model, tmp_path: Path) -> None:
    asked = install(tmp_path, [row("host", 1, 1, 1)])
    first, again = answer(CPU, model), answer(CPU, model)
    assert first == again
    assert len(asked.read_text().splitlines()) == 1


def test_rounding_is_not_a_correction(model: Model, tmp_path: Path) -> None:
    formula = answer(CPU, model, asks_engine=False).estimate.components
    install(
        tmp_path, [row("host", formula.weights_bytes // MIB, formula.kv_bytes // MIB, formula.compute_bytes // MIB)]
    )
    assert answer(CPU, model).estimate.components == formula


def test_a_full_gpu_is_not_asked_about(model: Model, tmp_path: Path) -> None:
    """Without its GPUs the engine tells what the context takes, and no more that is true of them."""
    asked = install(tmp_path, [row("host", 1, 2048, 1)])
    full = replace(GPU, gpus=tuple(replace(gpu, free_bytes=100 * MIB) for gpu in GPU.gpus))
    found = answer(full, model).estimate
    assert found.tier is Tier.T1
    assert found.components.kv_bytes == 2048 * MIB
    assert found.components.weights_bytes > 4000 * MIB
    assert asked.read_text().startswith("|-m")


def test_the_gpu_of_another_machine_is_not_asked(model: Model, tmp_path: Path) -> None:
    install(tmp_path, [row("host", 1, 1024, 1)])
    assert answer(GPU, model, is_here=False).estimate.tier is Tier.T1


def test_devices_are_what_counts(model: Model, tmp_path: Path) -> None:
    install(tmp_path, [row("device", 4600, 1100, 300), row("host", 500, 0, 30)])
    roomy = replace(GPU, gpus=tuple(replace(gpu, free_bytes=gpu.total_bytes) for gpu in GPU.gpus))
    found = answer(roomy, model).estimate
    assert (found.tier, found.components.weights_bytes) == (Tier.T2, 4600 * MIB)


def test_an_engine_that_does_not_say_leaves_the_formulas(model: Model, tmp_path: Path) -> None:
    install(tmp_path, [])
    (tmp_path / "llama-server").write_text((tmp_path / "llama-server").read_text().replace("MiB", "furlongs"))
    found = answer(CPU, model)
    assert found.estimate.tier is Tier.T1
    assert "did not report" in found.note


def test_a_start_of_the_same_goes_before_all(model: Model, tmp_path: Path) -> None:
    asked = install(tmp_path, [row("host", 1, 1, 1)])
    formula = answer(CPU, model, asks_engine=False).estimate
    taken = {"compute_bytes": formula.components.compute_bytes * 2, "process_bytes": 30 * MIB, "total_bytes": 1}
    predicted = {"compute_bytes": formula.components.compute_bytes, "total_bytes": 1}
    command = starts_log.command_hash(served(model, CPU, read_settings()).command)
    same: dict[str, Any] = {"weights": identity(model.files), "gpu": "", "predicted": predicted, "measured": taken}
    starts_log.append(start("another", **same))
    assert answer(CPU, model, asks_engine=False).estimate.tier is Tier.T1
    starts_log.append(start(command=command, **same))
    found = answer(CPU, model).estimate
    assert found.tier is Tier.T3
    assert found.components.overhead_bytes == 30 * MIB
    assert found.components.compute_bytes == 2 * formula.components.compute_bytes
    assert found.error_bytes <= 32 * MIB
    assert not asked.exists()


def test_a_model_never_seen_gains_from_others(model: Model, tmp_path: Path) -> None:
    install(tmp_path, [])
    before = answer(CPU, model, asks_engine=False).estimate
    for number in range(5):
        starts_log.append(start(f"other-{number}", gpu="", measured={"process_bytes": (20 + number) * MIB}))
    found = answer(CPU, model, asks_engine=False).estimate
    assert found.tier is Tier.T1
    assert found.components.overhead_bytes == 22 * MIB
    assert found.error_bytes < before.error_bytes


# -- lessons


def test_without_starts_there_are_the_defaults() -> None:
    assert constants_from([], gpu="", engine="llama-server 1", defaults=LLAMA) == LLAMA


def test_medians_of_this_gpu_and_driver() -> None:
    known = [start(str(number), measured={"context_bytes": size * MIB}) for number, size in enumerate((300, 310, 900))]
    other = start("other", gpu="GPU-1,556", measured={"context_bytes": 1})
    found = constants_from([*known, other], gpu="GPU-1,555", engine="llama-server 2", defaults=LLAMA)
    assert found.context_bytes == 310 * MIB
    assert found.context_error_bytes == 590 * MIB
    assert constants_from(known, gpu="GPU-1,555", engine="vllm 0.32", defaults=VLLM.constants) == VLLM.constants


@pytest.mark.parametrize(
    ("measured_on", "here", "counts"),
    [
        ("GPU-1,555", "GPU-1,GPU-2,555", True),
        ("GPU-2,GPU-1,555", "GPU-1,GPU-2,555", True),
        ("GPU-1,GPU-2,555", "GPU-1,555", False),
        ("GPU-1,555", "GPU-1,GPU-2,556", False),
        ("", "GPU-1,555", False),
        ("GPU-1,555", "", False),
    ],
)
def test_starts_on_some_of_the_gpus_count(measured_on: str, here: str, *, counts: bool) -> None:
    """Models are placed on some of the GPUs, and were never found again among those of the whole machine."""
    known = [start(gpu=measured_on, measured={"context_bytes": 300 * MIB})]
    found = constants_from(known, gpu=here, engine="llama-server 1", defaults=LLAMA)
    assert (found.context_bytes == 300 * MIB) is counts


def test_memory_is_predicted_for_the_gpus_that_a_model_uses() -> None:
    """On two GPUs, the constants of a model on one of them were too small, as they were predicted for both."""
    (gpu,) = GPU.gpus
    mine = GpuProcess(1, 5 << 30, "llama-server", "mmd-model@a.service")
    other = replace(gpu, index=1, uuid="GPU-5e60c1aa-3f27-4d91-9c02-6b7715a83060")
    two = replace(GPU, gpus=(replace(gpu, processes=(mine,)), other))
    assert [one.index for one in machine_of(two, "mmd-model@a.service", Pair()).gpus] == [0]
    unseen = replace(two, gpus=(gpu, other))
    held = Pair(holding=Holding({"GPU-5e60c1aa": 6000}))
    assert [one.index for one in machine_of(unseen, "mmd-model@a.service", held).gpus] == [1]
    assert machine_of(unseen, "mmd-model@a.service", Pair()) == unseen


def test_how_an_engine_computes_is_learned_of_its_version_alone() -> None:
    known = [start(measured={"compute_bytes": 150}, compute_factor=1.2)]
    assert constants_from(
        known, gpu="GPU-1,555", engine="llama-server 1", defaults=LLAMA
    ).compute_factor == pytest.approx(1.8)
    assert constants_from(known, gpu="GPU-1,555", engine="llama-server 2", defaults=LLAMA).compute_factor == 1.0


def test_what_vllm_teaches() -> None:
    taken = {"compute_bytes": 50, "non_torch_bytes": 200 * MIB, "graphs_bytes": 500 * MIB, "context_bytes": 320 * MIB}
    known = [start(engine="vllm 0.32", measured=taken)]
    found = constants_from(known, gpu="GPU-1,555", engine="vllm 0.32", defaults=VLLM.constants)
    assert isinstance(found, VllmConstants)
    assert (found.non_torch_bytes, found.graphs_bytes, found.context_bytes) == (200 * MIB, 500 * MIB, 320 * MIB)
    assert found.compute_factor == 0.5


# -- what was measured


def test_the_rest_of_the_gpu_is_the_drivers() -> None:
    told = Breakdown((Row("CUDA0", True, 5000 * MIB, 1000 * MIB, 120 * MIB), Row("Host", False, 300 * MIB, 0, MIB)))
    found = LLAMA_SERVER.measure(Observation(1, 6500 * MIB, LoadLog(), told, PARTS))
    assert found["compute_bytes"] == 120 * MIB
    assert found["overhead_bytes"] == found["context_bytes"] == 380 * MIB
    assert found["total_bytes"] == 6500 * MIB


def test_the_log_goes_before_what_was_told() -> None:
    log = LoadLog(weights_bytes=5100 * MIB, kv_bytes=900 * MIB, state_bytes=0, compute_bytes=90 * MIB)
    told = Breakdown((Row("CUDA0", True, 1, 1, 1),))
    found = LLAMA_SERVER.measure(Observation(2, 6500 * MIB, log, told, PARTS))
    assert (found["weights_bytes"], found["overhead_bytes"]) == (5100 * MIB, 410 * MIB)
    assert found["context_bytes"] == 205 * MIB


def test_a_table_of_the_ram_says_nothing_of_a_gpu() -> None:
    told = Breakdown((Row("Host", False, 1, 1, 1),))
    assert LLAMA_SERVER.measure(Observation(1, None, LoadLog(), told, PARTS)) == {}


def test_layers_in_ram_leave_no_rest() -> None:
    assert LLAMA_SERVER.measure(Observation(1, 3000 * MIB, LoadLog(), None, PARTS)) == {}


def test_vllms_pool_is_not_what_the_model_needs() -> None:
    log = VllmLoadLog(8192, 5000 * MIB, None, None, 800 * MIB, 130 * MIB, 400 * MIB, 9000 * MIB)
    found = VLLM.measure(Observation(2, 2 * 14_900 * MIB, log, None, PARTS))
    assert found["context_bytes"] == 370 * MIB
    assert found["overhead_bytes"] == 2 * 900 * MIB
    assert found["total_bytes"] == 2 * 6700 * MIB + PARTS.kv_bytes
    assert VLLM.measure(Observation(2, None, log, None, PARTS)).keys() == {
        "weights_bytes", "compute_bytes", "non_torch_bytes", "graphs_bytes",
    }  # fmt: skip


def test_vllm_on_the_cpu() -> None:
    found = VLLM.measure(Observation(0, 6200 * MIB, LoadLog(), None, PARTS))
    assert found["process_bytes"] == 1200 * MIB


# -- the file


def test_the_last_word_on_a_start_counts(caplog: pytest.LogCaptureFixture) -> None:
    starts_log.append(start("a"))
    starts_log.append(start("b"))
    starts_log.append(start("a", measured={"total_bytes": 3}))
    with starts_log.starts_file().open("a") as file:
        file.write('{"at": "cut sho\n[]\n{"other": 1}\n')
    assert [(one.model, dict(one.measured)) for one in starts_log.read_starts()] == [
        ("a", {"total_bytes": 3}),
        ("b", {}),
    ]
    assert caplog.text.count("has a damaged line") == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"at": 5},
        {"at": "yesterday"},
        {"at": "2026-11-21T05:00:00"},  # of which zone?
        {"engine": None},
        {"context": -1},
        {"compute_factor": "1"},
        {"measured": {"process_bytes": -1}},
        {"measured": {"process_bytes": 1 << 80}},
        {"measured": []},
        {"predicted": {"compute_bytes": 0.5}},
    ],
)
def test_invalid_start_record_is_not_kept(changes: dict[str, object], model: Model) -> None:
    """Some of these made every estimate a traceback."""
    starts_log.append(start("b"))
    with starts_log.starts_file().open("ab") as file:
        file.write(json.dumps(to_builtins(start("a")) | changes).encode() + b"\n")
    assert [one.model for one in starts_log.read_starts()] == ["b"]
    assert not starts_log.is_unmeasured("a")
    assert answer(CPU, model).estimate.tier is Tier.T1


def test_starts_that_cannot_be_read_are_none(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    starts_log.starts_file().mkdir(parents=True)
    assert answer(CPU, model).estimate.tier is Tier.T1
    assert "cannot read" in caplog.text


def test_an_absurd_start_does_not_make_every_model_too_large(model: Model, tmp_path: Path) -> None:
    before = answer(CPU, model).estimate
    engine = Estimator(CPU, read_settings()).answer(model, asks_engine=False).engine
    for number in range(3):
        wrong = {"process_bytes": 1 << 50, "compute_bytes": 1 << 50}
        starts_log.append(start(f"{number}", engine=engine, gpu="", measured=wrong, predicted={"compute_bytes": 1}))
    assert answer(CPU, model).estimate == before


@pytest.mark.parametrize("factor", [float("nan"), float("inf"), 1e300, 0.0, -1.0])
def test_factors_that_cannot_be(factor: float) -> None:
    one = start(compute_factor=factor, measured={"compute_bytes": 100})
    assert constants_from([one], gpu="GPU-1,555", engine="llama-server 1", defaults=LLAMA) == LLAMA


def test_one_that_cannot_be_written_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    starts_log.starts_file().parent.parent.mkdir(parents=True)
    starts_log.starts_file().parent.write_text("a file where the folder should be")
    starts_log.append(start("a"))
    assert "cannot record the memory of a" in caplog.text


def test_how_far_off_a_prediction_was() -> None:
    one = start(
        predicted={"weights_bytes": 110, "total_bytes": 100, "kv_bytes": 1}, measured={"weights_bytes": 100, "x": 1}
    )
    assert one.errors == {"weights_bytes": 0.1}
