"""Invalid records of the hub, or of what answers in its place: an error, or an absent key."""

from __future__ import annotations

from typing import Any

import pytest

from mmd.errors import HubUnavailable
from mmd.registry.hub.api import described
from mmd.registry.hub.files import HubFile
from mmd.registry.hub.records import parse_record, parse_records

COMMIT = "c0ffee" * 6 + "c0ff"


def file(**said: Any) -> dict[str, Any]:
    return {"id": "me/it", "siblings": [{"rfilename": "it.gguf", "size": 5, **said}]}


def test_a_record() -> None:
    found = described(parse_record({**file(lfs={"sha256": "0" * 64}), "sha": COMMIT, "cardData": {"license": "mit"}}))
    assert (found.id, found.commit, found.licence) == ("me/it", COMMIT, "mit")
    assert found.files == (HubFile("it.gguf", 5, "0" * 64),)


def test_what_is_not_said() -> None:
    found = described(parse_record({"id": "gpt2", "siblings": None, "tags": None}), "v1")
    assert (found.commit, found.files) == ("v1", ())


@pytest.mark.parametrize(
    "wrong",
    [
        {"cardData": "x"},
        {"cardData": []},
        {"tags": [None, 5]},
        {"gguf": "x"},
        {"gguf": {"total": "many", "architecture": 5}},
        {"safetensors": {"total": {}}},
        {"config": {"quantization_config": "awq"}},
        {"pipeline_tag": ["chat"]},
        {"library_name": {}},
        {"downloads": "many"},
    ],
)
def test_what_makes_no_sense_is_as_good_as_unsaid(wrong: dict[str, Any]) -> None:
    assert described(parse_record({"id": "me/it", **wrong})).base == described(parse_record({"id": "me/it"})).base


@pytest.mark.parametrize(
    "wrong",
    [
        "<html>",
        [],
        {},
        {"id": 5},
        {"id": "../.."},
        {"id": "me/.."},
        {"id": "a/b/c"},
        {"id": "me/\x1b[1mit"},
        {"id": "me/it", "sha": "../../evil"},
        {"id": "me/it", "siblings": "x"},
        {"id": "me/it", "siblings": ["x"]},
        {"id": "me/it", "siblings": [{}]},
        file(size=-5),
        file(size="5"),
        file(size=1 << 70),
        file(lfs={"sha256": "../../../evil"}),
        file(lfs={"sha256": 5}),
        file(lfs="x"),
    ],
)
def test_what_would_become_a_path_or_a_download(wrong: Any) -> None:
    with pytest.raises(HubUnavailable, match="is not valid") as caught:
        parse_record(wrong)
    assert caught.value.message.isprintable() and caught.value.hint.startswith("curl")


def test_a_list_that_is_none() -> None:
    with pytest.raises(HubUnavailable, match="not a list"):
        parse_records({"error": "x"})
