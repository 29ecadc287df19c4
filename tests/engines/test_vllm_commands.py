"""Every command that mmd makes for vLLM passes vLLM's own parser, and mmd read the right options from vLLM."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mmd.engines.vllm.engine import VLLM as VLLM_ENGINE
from mmd.engines.vllm.help import ask_for_help
from mmd.engines.vllm.installed import InstalledVllm
from mmd.machine import Machine, load_machine
from mmd.plan.allocation import Allocation
from mmd.plan.choose import ModelSettings, choose
from mmd.plan.launch import Launch
from mmd.registry.record import Model
from tests.unit.plan.planned import GIB, MACHINES, SAFETENSORS_MODELS, SOCKET, VLLM, VLLM_CPU, machine, vllm_launch

pytestmark = [pytest.mark.engine, pytest.mark.timeout(120)]
_READS = Path(__file__).with_name("vllm_reads.py")
_CHAT, _VISION, _EMBEDDING, _RERANKER, *_ = SAFETENSORS_MODELS
# Advice of guides from 2024, and options that are still right.
_LAID_DOWN = (
    ("--num-scheduler-steps", "8", "-tp", "2"),
    ("--task=embed", "--max_num_seqs=3"),
    ("--swap-space", "4", "--disable-log-requests", "-O0"),
    ("--disable-mm-preprocessor-cache", "--no-enable-prefix-caching"),
    ("--limit-mm-per-prompt", "image=2", "--override-pooler-config", '{"task":"embed"}'),
    ("--guided-decoding-backend", "xgrammar", "--rope-theta", "1e6"),
    ("--seed=1", '--hf-overrides={"rope_theta":1}', "--hf-overrides.rope_scaling.factor", "2"),
)


@pytest.fixture(scope="module")
def program() -> Path:
    configured = os.environ.get("MMD_TEST_VLLM")
    if not configured:
        pytest.skip("no vLLM in MMD_TEST_VLLM")
    return Path(configured)


@pytest.fixture
def real(program: Path) -> InstalledVllm:
    found = VLLM_ENGINE.find(str(program))
    assert found is not None
    return found


def commands(real: InstalledVllm) -> Iterator[Launch]:
    """Yield every model on every machine, and every decision that these do not need."""
    for wanted, on in ((wanted, load_machine(path)) for wanted in SAFETENSORS_MODELS for path in MACHINES):
        yield vllm_launch(wanted, on, _build_for(on, real))
    for wanted, on in _special_cases():
        yield vllm_launch(wanted, on, _build_for(on, real))
    for given in _ALLOCATIONS:
        on = _two_gpus()
        build = _build_for(on, real)
        yield choose(_CHAT, on, [build], socket=SOCKET, cache="/cache", allocation=given)
    for parser in real.tool_parsers & {"hermes", "mistral", "openai"}:
        yield vllm_launch(_CHAT, machine(), replace(_build_for(machine(), real), tool_parsers=frozenset({parser})))
    for arguments in _LAID_DOWN:
        overrides = ModelSettings(context=4096, arguments=arguments)
        yield vllm_launch(_CHAT, machine(), _build_for(machine(), real), overrides)


def _build_for(on: Machine, real: InstalledVllm) -> InstalledVllm:
    """Return the real one as if it were built for that machine: the options of the builds are the same."""
    return replace(real, platform=(VLLM if on.gpus else VLLM_CPU).platform)


def _two_gpus() -> Machine:
    on = machine("rtx4090-24g")
    other = replace(on.gpus[0], index=1, uuid="GPU-5e60c1aa-3f27-4d91-9c02-6b7715a83060")
    return replace(on, gpus=(on.gpus[0], other))


# Alone, beside other models, and on two GPUs.
_ALLOCATIONS = (
    Allocation({"GPU-b7a9d3f2": 23856}),
    Allocation({"GPU-5e60c1aa": 12000}, tokens=16384, is_alone=False, cache_mib=2500),
    Allocation({"GPU-b7a9d3f2": 9000, "GPU-5e60c1aa": 9000}, tokens=4096, is_alone=False),
)


def _special_cases() -> Iterator[tuple[Model, Machine]]:
    on = machine("rtx4090-24g")
    two = replace(on, gpus=(on.gpus[0], replace(on.gpus[0], index=1)))
    yield _of(_CHAT, weights_bytes=30 * GIB), two
    yield _of(_CHAT, weights_bytes=20 * GIB), on  # keys and values in fp8
    yield _CHAT, replace(on, gpus=(replace(on.gpus[0], free_bytes=0),))
    for architecture in ("Qwen3VLForConditionalGeneration", "GemmaForCausalLM", "Qwen2ForCausalLM"):
        yield _of(_RERANKER, architecture=architecture), on
    for marks in (("<|python_tag|>",), ("[TOOL_CALLS]", "[THINK]"), ("response_template",), ("<arg_key>",)):
        yield _of(_CHAT, architecture="LlamaForCausalLM", template_marks=marks), on


def _of(wanted: Model, **its: object) -> Model:
    return replace(wanted, facts=replace(wanted.facts, **its))  # type: ignore[arg-type]


def test_vllm_takes_every_command_and_knows_every_parser(program: Path, real: InstalledVllm, tmp_path: Path) -> None:
    launches = list(commands(real))
    argvs = [launch.argv[len(real.command) :] for launch in launches]
    wrong = ("model", "--no-such-option-of-any-version")
    done = subprocess.run(
        (program.parent / "python", "-I", _READS),
        input=json.dumps([*argvs, wrong]),
        stdout=subprocess.PIPE, text=True, timeout=100, check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    told = json.loads(done.stdout.splitlines()[-1])
    *refusals, of_wrong = told["refusals"]
    assert of_wrong is not None
    assert "--no-such-option-of-any-version" in of_wrong, "the parser does read"
    assert [(argv, why) for argv, why in zip(argvs, refusals, strict=True) if why] == []
    assert real.tool_parsers == set(told["tool_parsers"])
    assert real.reasoning_parsers == set(told["reasoning_parsers"])


def test_no_option_is_abbreviated(real: InstalledVllm) -> None:
    """vLLM's parser accepts abbreviations, until a version has a second option that begins the same."""
    for launch in commands(real):
        chosen = [flag for flag in launch.flags if not flag.reason.startswith("set in mmd.toml")]
        assert {word for flag in chosen for word in flag.words if word.startswith("-")} <= real.flags


def test_source_and_help_tell_the_same(program: Path, real: InstalledVllm) -> None:
    assert real.flags == ask_for_help(program)
