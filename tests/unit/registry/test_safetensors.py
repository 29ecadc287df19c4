"""The safetensors header reader: single files, shards, and inconsistent headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmd.errors import BadModelFile
from mmd.registry.formats import safetensors
from tests.tiny_models import safetensors_bytes


def raw(header: object, data_bytes: int = 64) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_bytes)


def entry(dtype: object = "F32", shape: object = (4,), offsets: object = (0, 16)) -> dict[str, object]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_file_sums_bytes_and_elements_per_dtype(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"a": ("BF16", (16, 8)), "b": ("F32", (10,)), "c": ("F4", (64,))}))
    weights = safetensors.read_file(path)
    assert weights.tensor_bytes == 256 + 40 + 32
    assert weights.elements == {"BF16": 128, "F32": 10, "F4": 64}
    assert weights.dominant_dtype == "BF16"


def write_shards(folder: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (folder / name).write_bytes(safetensors_bytes({f"layer.{number}": ("BF16", (4, 4))}))
    weight_map = {f"layer.{number}": name for number, name in enumerate(names)}
    (folder / safetensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_shards_are_read_through_the_index(tmp_path: Path) -> None:
    names = [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)]
    write_shards(tmp_path, names)
    (tmp_path / "unrelated.safetensors").write_bytes(b"ignored")
    weights = safetensors.read_folder(tmp_path)
    assert [file.name for file in weights.files] == names
    assert weights.tensor_bytes == 96
    assert set(weights.sizes) == {"layer.0", "layer.1", "layer.2"}


@pytest.mark.parametrize("with_index", [True, False])
def test_missing_shard_is_named(tmp_path: Path, with_index: bool) -> None:
    write_shards(tmp_path, [f"model-{n:05}-of-00003.safetensors" for n in (1, 2, 3)])
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    if not with_index:
        (tmp_path / safetensors.INDEX).unlink()
    with pytest.raises(BadModelFile, match=r"1 of 3 shards are missing: model-00002-of-00003"):
        safetensors.read_folder(tmp_path)


def test_index_pointing_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / safetensors.INDEX).write_text(json.dumps({"weight_map": {"w": "../other.safetensors"}}))
    with pytest.raises(BadModelFile, match="weight_map"):
        safetensors.read_folder(tmp_path)


LIES = {
    "empty": b"",
    "short": b"\x10\0\0",
    "huge length": struct.pack("<Q", 1 << 60) + b"{}",
    "length beyond the file": struct.pack("<Q", 1000) + b"{}",
    "not JSON": struct.pack("<Q", 4) + b"{{{{",
    "not UTF-8": struct.pack("<Q", 4) + b"\xff\xfe\xff\xfe",
    "deeply nested": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "a list": raw([1, 2]),
    "entry without shape": raw({"w": {"dtype": "F32", "data_offsets": [0, 16]}}),
    "entry that is a number": raw({"w": 3}),
    "unknown dtype": raw(entry(dtype="Q7")),
    "negative side": raw(entry(shape=[-4], offsets=[0, -16])),
    "huge side": raw(entry(shape=[1 << 60])),
    "side that is a word": raw(entry(shape=["4"])),
    "offsets and shape differ": raw(entry(offsets=[0, 20])),
    "offset beyond the file": raw(entry(offsets=[1000, 1016])),
    "negative offset": raw(entry(offsets=[-16, 0])),
    "truncated": safetensors_bytes({"a": ("F32", (100,))})[:-8],
}


@pytest.mark.parametrize("content", LIES.values(), ids=LIES.keys())
def test_false_claim_is_refused_with_a_hint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadModelFile) as caught:
        safetensors.read_file(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message + caught.value.hint


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_header_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(safetensors_bytes({"a": ("BF16", (4, 4)), "b": ("F32", (3,))}))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "mutated.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        safetensors.read_file(path)
    except BadModelFile:
        return
