"""Models, machines and engines to plan with: records only, nothing on disk but the machines' snapshots."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mmd.engines.llama.embedded_main import FLAGS as EMBEDDED_FLAGS
from mmd.engines.llama.engine import EMBEDDED as EMBEDDED_ENGINE
from mmd.engines.llama.engine import LLAMA_SERVER as LLAMA_SERVER_ENGINE
from mmd.engines.llama.find import parse_flags
from mmd.engines.vllm.engine import VLLM as VLLM_ENGINE
from mmd.engines.vllm.installed import InstalledVllm
from mmd.machine import Machine, load_machine
from mmd.plan.choose import ModelSettings, choose
from mmd.plan.engine import Installed
from mmd.plan.launch import Launch
from mmd.registry.record import Facts, Format, Model, ModelType
from tests.fakes.engine import HELP
from tests.vllm_options import sections, spellings

GIB = 1024**3
SOCKET = "/run/user/1000/mmd/x/api.sock"
MACHINES = tuple(sorted((Path(__file__).parents[2] / "machines").glob("*.json")))

LLAMA_SERVER = Installed(
    engine=LLAMA_SERVER_ENGINE,
    command=("/usr/bin/llama-server",),
    version="9611",
    flags=parse_flags(HELP),
)
EMBEDDED = Installed(
    engine=EMBEDDED_ENGINE,
    command=("/venv/bin/python", "-P", "/venv/mmd/engines/llama/embedded_main.py"),
    version="2026.10",
    flags=EMBEDDED_FLAGS,
)


_VLLM_LISTS = sections()
_VLLM_OPTIONS = {name for name in spellings(_VLLM_LISTS["engine"] + _VLLM_LISTS["server"]) if name.startswith("--")}
VLLM = InstalledVllm(
    engine=VLLM_ENGINE,
    command=("/venv/bin/vllm", "serve"),
    version="0.32.0",
    flags=frozenset(name for name in _VLLM_OPTIONS if f"--{name.removeprefix('--no-')}" not in _VLLM_OPTIONS - {name}),
    can_sleep=True,
    platform="cuda",
    tool_parsers=frozenset(_VLLM_LISTS["tool parsers"]),
    reasoning_parsers=frozenset(_VLLM_LISTS["reasoning parsers"]),
)
VLLM_CPU = replace(VLLM, platform="cpu")


def facts(
    type: ModelType = ModelType.CHAT,
    *,
    format: Format = Format.GGUF,
    weights_bytes: int = 5 * GIB,
    context_length: int = 40960,
    kv_bytes_per_token: int = 147456,
) -> Facts:
    return Facts(
        format=format,
        type=type,
        architecture="qwen3",
        quant="Q4_K_M",
        weights_bytes=weights_bytes,
        parameters=8_190_000_000,
        context_length=context_length,
        kv_bytes_per_token=kv_bytes_per_token,
        chat_template=type in (ModelType.CHAT, ModelType.VISION),
        name="",
    )


def model(its: Facts | None = None, *, id: str = "qwen3-8b", projector: str | None = None) -> Model:
    its = its or facts()
    path = f"/models/{id}.gguf" if its.format is Format.GGUF else f"/models/{id}"
    return Model(id, path, (path,), projector, "file", "2026-01-01T00:00:00Z", "", its)


CHAT = model()
VISION = model(facts(ModelType.VISION), id="gemma-3-12b", projector="/models/mmproj-gemma-3-12b.gguf")
EMBEDDING = model(
    facts(ModelType.EMBEDDING, weights_bytes=GIB // 3, context_length=2048, kv_bytes_per_token=0), id="nomic-embed"
)
RERANKER = model(facts(ModelType.RERANKER, weights_bytes=GIB, context_length=32768), id="qwen3-reranker")
EVERY_MODEL = (CHAT, VISION, EMBEDDING, RERANKER)


_QWEN3_MARKS = ("<tool_call>", "<think>", "enable_thinking")
_OF_SAFETENSORS = (
    ("qwen3-8b", ModelType.CHAT, "Qwen3ForCausalLM", "awq-4bit", 6 * GIB, _QWEN3_MARKS),
    ("gemma-3-12b", ModelType.VISION, "Gemma3ForConditionalGeneration", "fp8", 8 * GIB, ()),
    ("qwen3-embedding", ModelType.EMBEDDING, "Qwen3ForCausalLM", "bf16", GIB, _QWEN3_MARKS),
    ("qwen3-reranker", ModelType.RERANKER, "Qwen3ForCausalLM", "bf16", GIB, _QWEN3_MARKS),
    ("moderation", ModelType.CLASSIFIER, "BertForSequenceClassification", "f32", GIB // 2, ()),
    ("llama-3-8b-base", ModelType.COMPLETION, "LlamaForCausalLM", "gptq-4bit", 6 * GIB, ()),
)
SAFETENSORS_MODELS = tuple(
    model(
        replace(
            facts(type, format=Format.SAFETENSORS, weights_bytes=weights_bytes),
            architecture=architecture, quant=quant, template_marks=marks, attention_heads=32,
        ),
        id=id,
    )
    for id, type, architecture, quant, weights_bytes, marks in _OF_SAFETENSORS
)  # fmt: skip


def machine(name: str = "rtx4070-12g") -> Machine:
    return load_machine(next(path for path in MACHINES if path.stem == name))


def vllm_launch(
    wanted: Model, on: Machine | None = None, engine: Installed | None = None, settings: ModelSettings | None = None
) -> Launch:
    """On the build of vLLM that fits the machine, unless another is given."""
    here = on or machine()
    its = engine or (VLLM if here.gpus else VLLM_CPU)
    return choose(wanted, here, [its], socket=SOCKET, cache="/cache", settings=settings)
