"""Which parsers read a model's replies: by the marks of its chat template, and none where that is not certain."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.engines.vllm.parsers import reasoning_parser, tool_parser
from mmd.registry.formats.chat_template import MARKS, OPENS_THINKING, RESPONSE_TEMPLATE
from mmd.registry.record import Facts, Format, ModelType
from tests.unit.plan.planned import SAFETENSORS_MODELS, VLLM, facts, model, vllm_launch

CALL, THINK, MAY = "<tool_call>", "<think>", "enable_thinking"
CHANNEL, DSML = "<|channel|>", "｜DSML｜"
DEEPSEEK_CALLS = "<｜tool▁calls▁begin｜>"
ARCHITECTURES = (
    *("GptOssForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV4ForCausalLM", "DeepseekV32ForCausalLM"),
    *("GraniteForCausalLM", "GraniteMoeHybridForCausalLM", "Glm4MoeForCausalLM", "Qwen3ForCausalLM"),
    *("KimiK25ForConditionalGeneration", "NemotronHForCausalLM", "LlamaForCausalLM", ""),
)


def its(architecture: str, *marks: str) -> Facts:
    return replace(
        facts(ModelType.CHAT, format=Format.SAFETENSORS), architecture=architecture, template_marks=tuple(marks)
    )


@pytest.mark.parametrize(
    ("architecture", "marks", "parser"),
    [
        ("GptOssForCausalLM", [CHANNEL], "openai"),
        ("Qwen3MoeForCausalLM", ["<function=", CALL], "qwen3_coder"),
        ("Qwen3_5MoeForConditionalGeneration", ["<function=", CALL, THINK, MAY], "qwen3_coder"),
        ("MistralForCausalLM", ["[TOOL_CALLS]"], "mistral"),
        ("Llama4ForConditionalGeneration", ["<|python_start|>"], "llama4_pythonic"),
        ("LlamaForCausalLM", ["<|python_tag|>"], "llama3_json"),
        ("MiniMaxM2ForCausalLM", ["<minimax:tool_call>", THINK], "minimax_m2"),
        ("DeepseekV3ForCausalLM", ["<|tool_calls_section_begin|>"], "kimi_k2"),
        ("DeepseekV3ForCausalLM", [DEEPSEEK_CALLS, "```json"], "deepseek_v3"),
        ("DeepseekV3ForCausalLM", [DEEPSEEK_CALLS], "deepseek_v31"),
        ("DeepseekV32ForCausalLM", [DSML], "deepseek_v32"),
        ("DeepseekV4ForCausalLM", [DSML], "deepseek_v4"),
        ("SeedOssForCausalLM", ["<seed:tool_call>"], "seed_oss"),
        ("Lfm2ForCausalLM", ["<|tool_call_start|>"], "lfm2"),
        ("Gemma3ForCausalLM", ["<start_function_call>"], "functiongemma"),
        ("Gemma4ForConditionalGeneration", ["<|tool_call>"], "gemma4"),
        ("LongcatFlashForCausalLM", ["<longcat_tool_call>"], "longcat"),
        ("Olmo3ForCausalLM", ["<function_calls>"], "olmo3"),
        ("ApertusForCausalLM", ["<|tools_prefix|>"], "apertus"),
        ("GraniteForCausalLM", ["<|tool_call|>"], "granite"),
        ("GraniteMoeHybridForCausalLM", [CALL], "granite4"),
        ("Glm4MoeForCausalLM", ["<arg_key>", CALL, THINK, MAY], "glm45"),
        ("Qwen2ForCausalLM", [CALL], "hermes"),
        ("LlamaForCausalLM", [RESPONSE_TEMPLATE], "hf"),
        # Not certain.
        ("LlamaForCausalLM", [], None),
        ("LlamaForCausalLM", [CHANNEL], None),
        ("Phi3ForCausalLM", ["<|tool_call|>"], None),
        ("LlamaForCausalLM", [DSML], None),
        ("Qwen3ForCausalLM", [THINK, MAY, "```json"], None),
    ],
)
def test_tool_parser_of_each_family(architecture: str, marks: list[str], parser: str | None) -> None:
    assert tool_parser(its(architecture, *marks), VLLM) == parser


@pytest.mark.parametrize(
    ("architecture", "marks", "parser"),
    [
        ("Qwen3ForCausalLM", [THINK, MAY], "qwen3"),
        ("Qwen3ForCausalLM", [THINK, OPENS_THINKING], "qwen3"),
        ("Lfm2ForCausalLM", [THINK, OPENS_THINKING], "qwen3"),
        ("Qwen2ForCausalLM", [THINK, OPENS_THINKING], "deepseek_r1"),  # QwQ, and R1's distillations
        ("LlamaForCausalLM", [THINK, OPENS_THINKING], "deepseek_r1"),
        # R1 itself: "deepseek_v3" takes all for the answer, unless a request says that it is to think.
        ("DeepseekV3ForCausalLM", [THINK, OPENS_THINKING], "deepseek_r1"),
        ("DeepseekV3ForCausalLM", [THINK, MAY], "deepseek_v3"),
        ("Glm4MoeForCausalLM", [THINK, MAY], "glm45"),
        ("KimiK25ForConditionalGeneration", [THINK, OPENS_THINKING], "kimi_k2"),
        ("MiniMaxM2ForCausalLM", [THINK, OPENS_THINKING], "minimax_m2"),
        ("NemotronHForCausalLM", [THINK, MAY], "nemotron_v3"),
        ("SeedOssForCausalLM", [THINK, OPENS_THINKING], "seed_oss"),
        ("GptOssForCausalLM", [CHANNEL], "openai_gptoss"),
        ("Gemma4ForConditionalGeneration", ["<|tool_call>", MAY], "gemma4"),
        ("MistralForCausalLM", ["[THINK]"], "mistral"),
        ("LlamaForCausalLM", [RESPONSE_TEMPLATE], "hf"),
        # Not certain.
        ("Qwen3ForCausalLM", [], None),
        ("Qwen3ForCausalLM", [THINK], None),  # it keeps the reasoning of earlier turns, and writes none itself
        ("Qwen3ForCausalLM", [MAY], None),
        ("LlamaForCausalLM", [THINK, MAY], None),
        ("LlamaForCausalLM", [CHANNEL], None),
    ],
)
def test_reasoning_parser_of_each_family(architecture: str, marks: list[str], parser: str | None) -> None:
    assert reasoning_parser(its(architecture, *marks), VLLM) == parser


@given(
    st.sampled_from(ARCHITECTURES),
    st.frozensets(st.sampled_from([*MARKS, OPENS_THINKING, RESPONSE_TEMPLATE])),
    st.frozensets(st.sampled_from(sorted(VLLM.tool_parsers))),
    st.frozensets(st.sampled_from(sorted(VLLM.reasoning_parsers))),
)
def test_parser_is_one_that_the_engine_has(
    architecture: str, marks: frozenset[str], tools: frozenset[str], reasoning: frozenset[str]
) -> None:
    wanted = its(architecture, *(mark for mark in (*MARKS, OPENS_THINKING, RESPONSE_TEMPLATE) if mark in marks))
    engine = replace(VLLM, tool_parsers=tools, reasoning_parsers=reasoning)
    assert tool_parser(wanted, engine) in {None, *tools}
    assert reasoning_parser(wanted, engine) in {None, *reasoning}
    # Whatever is chosen is a name of 0.32: none has been misspelled.
    assert reasoning_parser(wanted, VLLM) == reasoning_parser(wanted, replace(VLLM, tool_parsers=frozenset()))


def test_every_mark_that_decides_is_looked_for() -> None:
    """A mark that no template is searched for would be a family without tools."""
    from mmd.engines.vllm import parsers

    deciding = {mark for mark, _ in parsers._TOOLS} | {mark for _, mark, _ in parsers._TOOLS_BY_FAMILY}
    assert deciding <= {*MARKS, RESPONSE_TEMPLATE}


def test_parsers_are_on_the_command_line_of_chats_only() -> None:
    chat, vision, embedding, *_ = SAFETENSORS_MODELS
    assert {"--enable-auto-tool-choice", "--tool-call-parser", "--reasoning-parser"} <= set(vllm_launch(chat).argv)
    assert "--tool-call-parser" not in vllm_launch(vision).argv, "Gemma 3 has no marks"
    assert "--tool-call-parser" not in vllm_launch(embedding).argv, "its template has marks, and it does not chat"


def test_tools_without_thinking() -> None:
    """Not the first without the second: vLLM ends on it."""
    argv = vllm_launch(model(its("Qwen2ForCausalLM", CALL))).argv
    assert argv[argv.index("--enable-auto-tool-choice") + 2] == "hermes"
    assert "--reasoning-parser" not in argv
    assert "--enable-auto-tool-choice" not in vllm_launch(model(its("Qwen2ForCausalLM"))).argv
