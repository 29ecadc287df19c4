"""Find the markers in a chat template that show how a model writes tool calls and reasoning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmd.registry.files import open_regular, read_json_object

_MAX_TEMPLATE_BYTES = 1024 * 1024

# vLLM's parsers tell models apart by these; the most specific first.
MARKS = (
    "<|channel|>",
    "<function=",
    "[TOOL_CALLS]",
    "<|python_start|>",
    "<|python_tag|>",
    "<minimax:tool_call>",
    "<|tool_calls_section_begin|>",
    "<｜tool▁calls▁begin｜>",
    "｜DSML｜",
    "<seed:tool_call>",
    "<|tool_call_start|>",
    "<start_function_call>",
    "<|tool_call>",
    "<longcat_tool_call>",
    "<function_calls>",
    "<|tools_prefix|>",
    "<|tool_call|>",
    "<arg_key>",
    "<tool_call>",
    "```json",
    "<think>",
    "[THINK]",
    "enable_thinking",
)
# Found by a rule instead of a literal: the generation prompt leaves a <think> open; tokenizer_config.json describes
# responses for parsers.
OPENS_THINKING = "generation prompt: <think>"
RESPONSE_TEMPLATE = "response_template"


def template_marks(folder: Path) -> tuple[str, ...]:
    """Return the MARKS in a folder's chat templates, then OPENS_THINKING and RESPONSE_TEMPLATE if they apply."""
    texts = tuple(_templates(folder))
    found = [mark for mark in MARKS if any(mark in text for text in texts)]
    if any(_opens_thinking(text) for text in texts):
        found.append(OPENS_THINKING)
    if read_json_object(folder / "tokenizer_config.json").get(RESPONSE_TEMPLATE):
        found.append(RESPONSE_TEMPLATE)
    return tuple(found)


def has_chat_template(folder: Path) -> bool:
    return any(_templates(folder))


def _opens_thinking(template: str) -> bool:
    _, found, prompt = template.rpartition("add_generation_prompt")
    return bool(found) and "<think>" in prompt and "</think>" not in prompt


def _templates(folder: Path) -> Iterator[str]:
    """Yield the templates from every place where transformers looks."""
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        with open_regular(jinja) as file:
            yield file.read(_MAX_TEMPLATE_BYTES).decode("utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        yield from _texts(read_json_object(folder / name).get("chat_template"))


def _texts(value: Any) -> Iterator[str]:
    """A template, or a list of `{"name", "template"}`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and isinstance(item.get("template"), str):
                yield item["template"]
