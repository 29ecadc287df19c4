"""The marks that a chat template makes: how a model writes tool calls, and how it thinks aloud."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmd.registry.files import open_regular, read_json_object

_MOST_BYTES = 1024 * 1024

# What vLLM's parsers tell models apart by; the most telling first.
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
# Not found as they stand: the prompt for the answer leaves a <think> open, and a description of answers for parsers.
OPENS_THINKING = "generation prompt: <think>"
RESPONSE_TEMPLATE = "response_template"


def template_marks(folder: Path) -> tuple[str, ...]:
    """Those of MARKS that the chat templates of a folder hold, and after them OPENS_THINKING and RESPONSE_TEMPLATE."""
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
    """Wherever transformers looks for one; several by name where there are several."""
    jinja = folder / "chat_template.jinja"
    if jinja.exists():
        with open_regular(jinja) as file:
            yield file.read(_MOST_BYTES).decode("utf-8", errors="replace")
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
