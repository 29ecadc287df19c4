"""Choose vLLM's parsers for a model's tool calls and reasoning, by the marks in its chat template.

None is chosen if it is not certain. A wrong reasoning parser empties responses: most take plain text for reasoning.
Sources: vLLM's recipes for 154 models, and its parsers' own code (0.32).
"""

from __future__ import annotations

from mmd.engines.vllm.installed import InstalledVllm
from mmd.registry.record import Facts

# The first mark in a template decides, except for the families below.
_TOOLS = (
    ("<function=", "qwen3_coder"),
    ("[TOOL_CALLS]", "mistral"),
    ("<|python_start|>", "llama4_pythonic"),
    ("<|python_tag|>", "llama3_json"),
    ("<minimax:tool_call>", "minimax_m2"),
    ("<|tool_calls_section_begin|>", "kimi_k2"),
    ("<｜tool▁calls▁begin｜>", "deepseek_v3"),
    ("<seed:tool_call>", "seed_oss"),
    ("<|tool_call_start|>", "lfm2"),
    ("<start_function_call>", "functiongemma"),
    ("<|tool_call>", "gemma4"),
    ("<longcat_tool_call>", "longcat"),
    ("<function_calls>", "olmo3"),
    ("<|tools_prefix|>", "apertus"),
    ("<arg_key>", "glm45"),
    ("<tool_call>", "hermes"),
    ("response_template", "hf"),
)

# By architecture, if a family writes like another or its mark is ambiguous.
_GPT_OSS = "GptOss"
_TOOLS_BY_FAMILY = (
    (_GPT_OSS, "<|channel|>", "openai"),
    ("DeepseekV4", "｜DSML｜", "deepseek_v4"),
    ("DeepseekV3", "｜DSML｜", "deepseek_v32"),
    ("GraniteMoeHybrid", "<tool_call>", "granite4"),
    ("Granite", "<|tool_call|>", "granite"),
)

# These parsers leave plain text alone, so that the mark in the template is enough.
_REASONING_BY_MARK = (
    (_GPT_OSS, "<|channel|>", "openai_gptoss"),
    ("Gemma4", "<|tool_call>", "gemma4"),
)
# For families whose template shows that they write reasoning.
_REASONING_BY_FAMILY = (
    ("DeepseekV3", "deepseek_v3"),
    ("Glm4Moe", "glm45"),
    ("Kimi", "kimi_k2"),
    ("MiniMaxM2", "minimax_m2"),
    ("NemotronH", "nemotron_v3"),
    ("SeedOss", "seed_oss"),
    ("Qwen3", "qwen3"),
    ("Lfm2", "qwen3"),
)


def tool_parser(facts: Facts, engine: InstalledVllm) -> str | None:
    """Return a name that `--tool-call-parser` of this engine accepts; None if the template does not identify one."""
    marks = facts.template_marks
    for family, mark, parser in _TOOLS_BY_FAMILY:
        if facts.architecture.startswith(family) and mark in marks:
            return parser if parser in engine.tool_parsers else None
    for mark, parser in _TOOLS:
        if mark in marks:
            chosen = _deepseek(marks) if parser == "deepseek_v3" else parser
            return chosen if chosen in engine.tool_parsers else None
    return None


def reasoning_parser(facts: Facts, engine: InstalledVllm) -> str | None:
    """Return a name that `--reasoning-parser` of this engine accepts; None if the model may not write reasoning."""
    parser = _reasoning_parser(facts)
    return parser if parser in engine.reasoning_parsers else None


def _deepseek(marks: tuple[str, ...]) -> str:
    """V3 and R1 fence the arguments of a call as JSON; V3.1 does not."""
    return "deepseek_v3" if "```json" in marks else "deepseek_v31"


def _reasoning_parser(facts: Facts) -> str | None:
    marks = facts.template_marks
    for family, mark, parser in _REASONING_BY_MARK:
        if facts.architecture.startswith(family) and mark in marks:
            return parser
    if "[THINK]" in marks:
        return "mistral"
    if "response_template" in marks:
        return "hf"
    always = "generation prompt: <think>" in marks
    may = "<think>" in marks and "enable_thinking" in marks
    if not (always or may):
        return None
    if always and facts.architecture.startswith("Deepseek"):
        return "deepseek_r1"  # "deepseek_v3" parses reasoning only if the request asks for it
    for family, parser in _REASONING_BY_FAMILY:
        if facts.architecture.startswith(family):
            return parser
    # R1's distillations and QwQ: the architecture of another family, and a prompt that opens the reasoning.
    return "deepseek_r1" if always else None
