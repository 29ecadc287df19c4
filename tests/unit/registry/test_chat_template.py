"""Markers in chat templates, in every place where transformers looks for a template."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmd.errors import BadModelFile
from mmd.registry.formats.chat_template import (
    MARKS,
    OPENS_THINKING,
    RESPONSE_TEMPLATE,
    has_chat_template,
    template_marks,
)

CALLS = "{% for call in calls %}<tool_call>{{ call }}</tool_call>{% endfor %}"
# The ends of real templates.
QWEN3 = """{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}
{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""
QWEN3_THINKING = "{{ '<think>' ~ thoughts ~ '</think>' }}{%- if add_generation_prompt %}{{- 'assistant\\n<think>\\n' }}"
DEEPSEEK_R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set content = content.split('</think>')[-1] %}"
    "{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
KEEPS_THOUGHTS = "{{ '<think>' ~ thoughts ~ '</think>' }}{% if add_generation_prompt %}{{ 'assistant' }}{% endif %}"


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def test_folder_without_a_template(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", {"chat_template": None})
    assert template_marks(tmp_path) == ()
    assert not has_chat_template(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", CALLS),
        ("chat_template.json", {"chat_template": CALLS}),
        ("tokenizer_config.json", {"chat_template": CALLS}),
        (
            "tokenizer_config.json",
            {"chat_template": [{"name": "default", "template": "x"}, {"name": "tool_use", "template": CALLS}, {}, 1]},
        ),
    ],
)
def test_template_in_each_place(tmp_path: Path, name: str, content: object) -> None:
    write(tmp_path, name, content)
    assert template_marks(tmp_path) == ("<tool_call>",)
    assert has_chat_template(tmp_path)


def test_marks_are_unique_and_ordered(tmp_path: Path) -> None:
    write(tmp_path, "chat_template.jinja", "enable_thinking <tool_call>")
    write(tmp_path, "tokenizer_config.json", {"chat_template": "<tool_call> <function="})
    assert template_marks(tmp_path) == ("<function=", "<tool_call>", "enable_thinking")


@pytest.mark.parametrize("mark", MARKS)
def test_marks_are_not_confused(tmp_path: Path, mark: str) -> None:
    write(tmp_path, "chat_template.jinja", f"x {mark} y add_generation_prompt")
    assert set(template_marks(tmp_path)) - {OPENS_THINKING} == {mark}


@pytest.mark.parametrize(
    ("template", "opens"),
    [
        (QWEN3, False),
        (QWEN3_THINKING, True),
        (DEEPSEEK_R1, True),
        (KEEPS_THOUGHTS, False),
        ("{{ '<think>' }}", False),  # no generation prompt
        ("{% if add_generation_prompt %}", False),
    ],
)
def test_generation_prompt_that_opens_thinking(tmp_path: Path, template: str, opens: bool) -> None:
    write(tmp_path, "chat_template.jinja", template)
    assert (OPENS_THINKING in template_marks(tmp_path)) is opens


def test_response_template(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", {"response_template": {"x": 1}, "chat_template": "x"})
    assert template_marks(tmp_path) == (RESPONSE_TEMPLATE,)


def test_template_with_invalid_utf8(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe<tool_call>")
    assert template_marks(tmp_path) == ("<tool_call>",)


def test_damaged_configuration_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", "{")
    with pytest.raises(BadModelFile, match="is damaged"):
        template_marks(tmp_path)
