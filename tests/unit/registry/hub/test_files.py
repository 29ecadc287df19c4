"""The files of a repository that make a model."""

from __future__ import annotations

import pytest

from mmd.errors import FileNeeded, NotRunnable
from mmd.registry.hub.files import HubFile, select, selections_in


def chosen(*names: str, wanted: str | None = None) -> set[str]:
    return {file.name for file in select("me/it", [HubFile(name, 1, None) for name in names], wanted).files}


def test_the_only_gguf() -> None:
    assert chosen("README.md", "it-Q4_0.gguf", "imatrix.gguf") == {"it-Q4_0.gguf"}


def test_a_split_gguf_comes_whole_whichever_part_is_named() -> None:
    parts = {f"Q8/it-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)}
    assert chosen(*parts, "it-Q4_0.gguf", wanted="Q8/it-Q8_0-00002-of-00003.gguf") == parts
    assert select("me/it", [HubFile(name, 1, None) for name in parts], None).file == min(parts)


def test_a_projector_comes_with_its_model_in_half_precision() -> None:
    names = ("it-Q4_0.gguf", "mmproj-it-bf16.gguf", "mmproj-it-f16.gguf", "mmproj-it-f32.gguf")
    assert chosen(*names) == {"it-Q4_0.gguf", "mmproj-it-f16.gguf"}


def test_several_are_listed() -> None:
    with pytest.raises(FileNeeded, match=r"a-Q4_0\.gguf, a-Q8_0\.gguf"):
        chosen("a-Q8_0.gguf", "a-Q4_0.gguf")


def test_safetensors_without_pickles_and_duplicates() -> None:
    weights = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"}
    beside = {"config.json", "tokenizer.json", "merges.txt", "chat_template.jinja", "1_Pooling/config.json"}
    others = {"pytorch_model.bin", "original/params.json", "onnx/model.onnx", "consolidated.safetensors", "x.pt"}
    assert chosen(*weights, *beside, *others) == weights | beside


def test_a_repository_with_both_kinds_needs_a_word() -> None:
    with pytest.raises(FileNeeded):
        chosen("config.json", "model.safetensors", "it.gguf")
    assert chosen("config.json", "model.safetensors", "it.gguf", wanted="it.gguf") == {"it.gguf"}


@pytest.mark.parametrize("names", [(), ("README.md",), ("pytorch_model.bin", "config.json"), ("x.safetensors",)])
def test_nothing_to_run(names: tuple[str, ...]) -> None:
    with pytest.raises(NotRunnable):
        chosen(*names)


def test_incomplete_split_gguf_is_not_a_model() -> None:
    """It was downloaded, and refused afterwards."""
    with pytest.raises(NotRunnable):
        chosen("it-00001-of-00003.gguf", "it-00003-of-00003.gguf")
    whole = {"it-00001-of-00002.gguf", "it-00002-of-00002.gguf"}
    assert chosen(*whole, "it-00001-of-00003.gguf") == whole


@pytest.mark.parametrize(
    "name",
    [
        *("../evil.gguf", "/etc/evil.gguf", "a/../../evil.gguf", "..", "a\\..\\..\\evil.gguf"),
        *("./a.gguf", "a//b.gguf", "a/./b.gguf"),  # huggingface_hub stores these elsewhere
        *("a\0b.gguf", "a\nb.gguf", "\x1b[31mred.gguf", "\ud800.gguf", "\u202efugg.gguf"),
        f"{'ü' * 128}.gguf",
    ],
)
def test_names_that_lead_elsewhere_are_not_there(name: str) -> None:
    assert not selections_in([HubFile(name, 1, None)])


@pytest.mark.parametrize("name", ["a b.gguf", "~/a.gguf", "-a.gguf", "..a.gguf", "%2e%2e/a.gguf", "ü/a?#.gguf"])
def test_names_that_are_merely_odd(name: str) -> None:
    assert chosen(name) == {name}
