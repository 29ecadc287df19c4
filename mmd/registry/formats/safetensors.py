"""Read the headers of safetensors files: one file, or the shards of a folder."""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, BinaryIO

from mmd.errors import BadModelFile
from mmd.registry.files import open_regular, read_json_object

INDEX = "model.safetensors.index.json"

# The limit of the safetensors library; the largest published header has 8 MB.
_MAX_HEADER_BYTES = 100_000_000

_LENGTH_BYTES = 8  # the field with the header's length

_SHARD = re.compile(r"(?P<stem>.+)-\d{5}-of-(?P<count>\d{5})\.safetensors")
_MAX_SHARDS = 4096

_DTYPE_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I8", "U8", "BOOL"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True, slots=True)
class Weights:
    """The tensors of one or more safetensors files."""

    files: tuple[Path, ...]
    tensor_bytes: int
    elements: Mapping[str, int]  # per dtype
    sizes: Mapping[str, int]  # bytes of each tensor

    @property
    def dominant_dtype(self) -> str:
        return max(self.elements, key=lambda dtype: self.elements[dtype] * _DTYPE_BITS[dtype], default="")


def read_file(path: Path) -> Weights:
    """Read the header of one file. Raises BadModelFile if it is inconsistent."""
    header, data_bytes = _read_header(path)
    elements: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    for name, entry in header.items():
        dtype, count, end = _read_entry(path, name, entry)
        if end > data_bytes:
            raise _damaged(path, f"it has {data_bytes:,} bytes of weights, but needs {end:,}")
        elements[dtype] += count
        sizes[name] = count * _DTYPE_BITS[dtype] // 8
    return Weights((path,), sum(sizes.values()), dict(elements), sizes)


def read_folder(folder: Path) -> Weights:
    """Read the headers of all shards of a folder. Raises BadModelFile naming missing shards."""
    return _combined(read_file(path) for path in _shards(folder))


def header_end(path: Path, known_bytes: int) -> int:
    """Return the end of the header of a file whose first `known_bytes` are valid. Raises BadModelFile."""
    if known_bytes < _LENGTH_BYTES:
        return _LENGTH_BYTES
    with open_regular(path) as file:
        return _LENGTH_BYTES + _header_length(path, file)


def _shards(folder: Path) -> list[Path]:
    index = read_json_object(folder / INDEX)
    if not index:
        whole = folder / "model.safetensors"
        return [whole] if whole.exists() else _shards_by_name(folder)
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(_is_file_name(name) for name in weight_map.values()):
        raise _damaged(folder / INDEX, "`weight_map` does not name the shards")
    shards = [folder / name for name in sorted(set(weight_map.values()))]
    _require_all(folder, shards)
    return shards


def _shards_by_name(folder: Path) -> list[Path]:
    """Return the shards by their names, which contain their count."""
    found = sorted(folder.glob("*.safetensors"))
    numbered = _SHARD.fullmatch(found[0].name)
    if not numbered:
        return found
    count = min(int(numbered["count"]), _MAX_SHARDS)
    shards = [folder / f"{numbered['stem']}-{n:05}-of-{numbered['count']}.safetensors" for n in range(1, count + 1)]
    _require_all(folder, shards)
    return shards


def _require_all(folder: Path, shards: list[Path]) -> None:
    missing = [shard.name for shard in shards if not shard.exists()]
    if missing:
        shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise BadModelFile(
            f"{folder} is incomplete: {len(missing)} of {len(shards)} shards are missing: {shown}",
            hint=f"mmd add {quote(str(folder))}   # once the missing files are there",
        )


def _is_file_name(name: object) -> bool:
    # A name with a slash could point outside the folder.
    return isinstance(name, str) and name == os.path.basename(name) and name.endswith(".safetensors")  # noqa: PTH119


def _combined(parts: Iterable[Weights]) -> Weights:
    files: list[Path] = []
    elements: Counter[str] = Counter()
    sizes: dict[str, int] = {}
    tensor_bytes = 0
    for part in parts:
        files.extend(part.files)
        elements.update(part.elements)
        sizes |= part.sizes
        tensor_bytes += part.tensor_bytes
    return Weights(tuple(files), tensor_bytes, dict(elements), sizes)


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the tensor entries and the number of data bytes after the header."""
    with open_regular(path) as file:
        length = _header_length(path, file)
        data_bytes = os.fstat(file.fileno()).st_size - _LENGTH_BYTES - length
        text = file.read(length)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header holds no tensors")
    header.pop("__metadata__", None)
    return header, data_bytes


def _header_length(path: Path, file: BinaryIO) -> int:
    file_bytes = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if file_bytes < _LENGTH_BYTES or length > _MAX_HEADER_BYTES or _LENGTH_BYTES + length > file_bytes:
        raise _damaged(path, f"its header claims {length:,} bytes, but the file has {file_bytes:,}")
    return length


def _read_entry(path: Path, name: str, entry: object) -> tuple[str, int, int]:
    """Return the dtype, the number of elements and the end offset of one tensor."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise _damaged(path, f"tensor `{name}` lacks dtype, shape or offsets")
    if dtype not in _DTYPE_BITS:
        raise _damaged(path, f"tensor `{name}` has the unknown type {dtype}")
    if not all(isinstance(side, int) and 0 <= side < 1 << 40 for side in shape) or len(shape) > 16:
        raise _damaged(path, f"tensor `{name}` has an impossible shape")
    count = math.prod(shape)
    if begin < 0 or (end - begin) * 8 != count * _DTYPE_BITS[dtype]:
        raise _damaged(path, f"tensor `{name}` has offsets that do not match its shape")
    return dtype, count, end


def _damaged(path: Path, what: str) -> BadModelFile:
    return BadModelFile(
        f"{path} is not a valid safetensors file: {what}",
        hint=f"mmd add {quote(str(path.parent))}   # after downloading it again",
    )
