"""Read the header of a GGUF file: metadata and tensor infos, never tensor data."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import BinaryIO

from mmd.errors import BadModelFile
from mmd.registry.files import open_regular
from mmd.registry.formats.ggml import TENSOR_TYPES, TensorType

MAGIC = b"GGUF"

# A header claims counts and lengths before one byte of them is read. Real ones stay far below these
# limits (the largest vocabulary has 262,144 tokens); a false claim is refused before it costs memory or time.
_MAX_HEADER_BYTES = 1 << 28
_MAX_ENTRIES = 1 << 16
_MAX_TENSORS = 1 << 18
_MAX_ARRAY_LENGTH = 1 << 22
_MAX_NAME_BYTES = 1 << 16
_KEPT_ARRAY_LENGTH = 1024
_MAX_DIMENSIONS = 4
_READ_BYTES = 1 << 22

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_STRING, _ARRAY = 8, 9
_BOOL = 7
_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}


@dataclass(frozen=True, slots=True)
class LongArray:
    """An array too long to keep, such as the vocabulary; only its length is stored."""

    length: int


Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | LongArray


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    shape: tuple[int, ...]  # as stored: row length first
    type: TensorType
    offset: int  # from the start of the data section

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        return self.elements // self.type.block * self.type.block_bytes


@dataclass(frozen=True, slots=True)
class GgufHeader:
    path: Path
    version: int
    metadata: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int

    @property
    def architecture(self) -> str:
        return self.text("general.architecture")

    def text(self, key: str) -> str:
        """Return the string under `key`, "" if absent."""
        value = self.metadata.get(key, "")
        if not isinstance(value, str):
            raise _damaged(self.path, f"`{key}` is not a string")
        return value

    def integer(self, key: str) -> int | None:
        value = self.metadata.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or not 0 <= value < 1 << 40:
            raise _damaged(self.path, f"`{key}` is not a valid number")
        return value

    def integers(self, key: str, length: int) -> tuple[int, ...] | None:
        """Return one number per layer. The file has an array of at least `length` numbers, or one number for all."""
        value = self.metadata.get(key)
        if not isinstance(value, tuple):
            single = self.integer(key)
            return None if single is None else (single,) * length
        items = tuple(item for item in value if isinstance(item, int) and 0 <= item < 1 << 40)
        if len(items) != len(value) or len(items) < length:
            raise _damaged(self.path, f"`{key}` is not a list of {length} numbers")
        return items[:length]


def read_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file, version 2 or 3. Raises BadModelFile if it is inconsistent.

    Costs one pass over the header: 21 ms for a vocabulary of 152,000 tokens with as many
    merges, independent of the file size. (`gguf.GGUFReader` keeps each token as two numpy arrays and
    needs 6.7 s and 560 MB for the same header.)
    """
    with open_regular(path) as file:
        return _read(_Cursor(file, path))


def header_end(path: Path, known_bytes: int) -> int:
    """Return the end of the header of a partly downloaded file. Raises BadModelFile.

    The file has its full size, but only the first `known_bytes` are valid. A result above `known_bytes` is a lower
    bound: the header ends there or later.
    """
    with open_regular(path) as file:
        try:
            header = _read(_Cursor(file, path, known_bytes))
        except _HeaderContinues as error:
            return error.at_least_bytes
        return min(header.data_offset, known_bytes)  # the padding after it may be missing


def _read(cursor: _Cursor) -> GgufHeader:
    path = cursor.path
    version, tensor_count, entry_count = _read_counts(cursor)
    metadata = dict(_entries(cursor, entry_count))
    if len(metadata) != entry_count:
        raise _damaged(path, "a metadata key occurs twice")
    alignment = _alignment(metadata, path)
    tensors = tuple(_read_tensor(cursor) for _ in range(tensor_count))
    data_offset = -(-cursor.position // alignment) * alignment
    header = GgufHeader(path, version, metadata, tensors, alignment, data_offset)
    if not header.architecture:
        raise _damaged(path, "`general.architecture` is missing")
    _check_layout(header, cursor.file_bytes)
    return header


def read_general(path: Path) -> Mapping[str, Value]:
    """Read the leading `general.*` metadata only: cheap, and enough to tell a projector from a model."""
    with open_regular(path) as file:
        cursor = _Cursor(file, path)
        _, _, entry_count = _read_counts(cursor)
        general: dict[str, Value] = {}
        for key, value in _entries(cursor, entry_count):
            # Writers put `general.*` first. If one did not, read on until the architecture is known.
            if not key.startswith("general.") and "general.architecture" in general:
                break
            general[key] = value
        return general


class _HeaderContinues(Exception):
    """The header continues beyond the known part of the file."""

    def __init__(self, at_least_bytes: int) -> None:
        super().__init__(at_least_bytes)
        self.at_least_bytes = at_least_bytes


class _Cursor:
    """Reads little-endian values in order, through a buffer over part of the file."""

    def __init__(self, file: BinaryIO, path: Path, known_bytes: int | None = None) -> None:
        self.path = path
        self.file_bytes = os.fstat(file.fileno()).st_size
        self._known_bytes = self.file_bytes if known_bytes is None else known_bytes
        self._file = file
        self._window = b""
        self._window_start = 0
        self._at = 0  # position in the window

    @property
    def position(self) -> int:
        return self._window_start + self._at

    def _require(self, count: int) -> None:
        """Make `count` bytes available at the cursor, or raise."""
        if self._at + count <= len(self._window):
            return
        end = self.position + count
        self._require_known(end)
        if end > _MAX_HEADER_BYTES:
            raise _damaged(self.path, f"the header claims more than {_MAX_HEADER_BYTES >> 20} MiB")
        self._window_start = self.position
        self._file.seek(self._window_start)
        self._window = self._file.read(min(max(_READ_BYTES, count), self._known_bytes - self._window_start))
        self._at = 0
        if len(self._window) < count:  # the file shrank while being read
            raise _damaged(self.path, "the header ends early")

    def _require_known(self, end: int) -> None:
        if end > self.file_bytes:
            raise _damaged(self.path, f"the header ends after {self.file_bytes:,} bytes")
        if end > self._known_bytes:
            raise _HeaderContinues(end)

    def take(self, count: int) -> bytes:
        self._require(count)
        start = self._at
        self._at += count
        return self._window[start : self._at]

    def u32(self) -> int:
        return int(_U32.unpack(self.take(4))[0])

    def u64(self) -> int:
        return int(_U64.unpack(self.take(8))[0])

    def text(self, what: str, limit: int = _MAX_HEADER_BYTES) -> str:
        length = self.u64()
        if length > limit:
            raise _damaged(self.path, f"{what} claims a length of {length:,} bytes")
        return self.take(length).decode("utf-8", errors="replace")

    def skip(self, count: int) -> None:
        """Skip `count` bytes, which may be more than the window holds."""
        end = self.position + count
        self._require_known(end)
        self._at += count
        if self._at > len(self._window):
            self._window_start, self._window, self._at = end, b"", 0

    def skip_texts(self, count: int) -> None:
        """Skip `count` strings. The one loop here whose speed matters: 300,000 iterations in a common file."""
        length_at = _U64.unpack_from
        while count:
            self._require(8)
            window, at, last = self._window, self._at, len(self._window) - 8
            skipped = 0
            for skipped in range(1, count + 1):  # noqa: B007
                at += 8 + length_at(window, at)[0]
                if at > last:
                    break
            count -= skipped
            self.skip(at - self._at)


def _read_counts(cursor: _Cursor) -> tuple[int, int, int]:
    if cursor.file_bytes < 24 or cursor.take(4) != MAGIC:
        raise _damaged(cursor.path, "it does not start with a GGUF header")
    version = cursor.u32()
    if version and version & 0xFFFF == 0:
        raise BadModelFile(
            f"{cursor.path} is a big-endian GGUF, made for another kind of machine",
            hint=f"gguf-convert-endian {quote(str(cursor.path))} little   # or download the little-endian file",
        )
    if version not in (2, 3):
        raise BadModelFile(
            f"{cursor.path} is GGUF version {version}; only versions 2 and 3 are supported",
            hint=f"mmd add {quote(str(cursor.path))}   # with a current conversion of this model",
        )
    tensor_count, entry_count = cursor.u64(), cursor.u64()
    if tensor_count > _MAX_TENSORS:
        raise _damaged(cursor.path, f"the header claims {tensor_count:,} tensors")
    if entry_count > _MAX_ENTRIES:
        raise _damaged(cursor.path, f"the header claims {entry_count:,} metadata entries")
    return version, tensor_count, entry_count


def _entries(cursor: _Cursor, count: int) -> Iterator[tuple[str, Value]]:
    for _ in range(count):
        key = cursor.text("a metadata key", _MAX_NAME_BYTES)
        yield key, _read_value(cursor, key)


def _read_value(cursor: _Cursor, key: str) -> Value:
    kind = cursor.u32()
    return _read_array(cursor, key) if kind == _ARRAY else _read_scalar(cursor, key, kind)


def _read_scalar(cursor: _Cursor, key: str, kind: int) -> Scalar:
    if kind == _STRING:
        return cursor.text(f"`{key}`")
    number = _number(cursor, key, kind)
    value: Scalar = number.unpack(cursor.take(number.size))[0]
    return value


def _number(cursor: _Cursor, key: str, kind: int) -> struct.Struct:
    if kind not in _SCALARS:
        raise _damaged(cursor.path, f"`{key}` has the unknown type {kind}")
    return _SCALARS[kind]


def _read_array(cursor: _Cursor, key: str) -> Value:
    kind, length = cursor.u32(), cursor.u64()
    if kind == _ARRAY:
        raise _damaged(cursor.path, f"`{key}` is an array of arrays")
    if length > _MAX_ARRAY_LENGTH:
        raise _damaged(cursor.path, f"`{key}` claims {length:,} items")
    if length <= _KEPT_ARRAY_LENGTH:
        return tuple(_read_scalar(cursor, key, kind) for _ in range(length))
    if kind == _STRING:
        cursor.skip_texts(length)
    else:
        cursor.skip(length * _number(cursor, key, kind).size)
    return LongArray(length)


def _read_tensor(cursor: _Cursor) -> Tensor:
    name = cursor.text("a tensor's name", _MAX_NAME_BYTES)
    dimensions = cursor.u32()
    if dimensions > _MAX_DIMENSIONS:
        raise _damaged(cursor.path, f"tensor `{name}` claims {dimensions} dimensions")
    shape = tuple(cursor.u64() for _ in range(dimensions))
    type_number, offset = cursor.u32(), cursor.u64()
    tensor_type = TENSOR_TYPES.get(type_number)
    if tensor_type is None:
        raise _damaged(cursor.path, f"tensor `{name}` has the unknown type {type_number}")
    if math.prod(shape) >= 1 << 50 or (shape and shape[0] % tensor_type.block):
        raise _damaged(cursor.path, f"tensor `{name}` has the impossible shape {list(shape)}")
    return Tensor(name, shape, tensor_type, offset)


def _alignment(metadata: Mapping[str, Value], path: Path) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise _damaged(path, "`general.alignment` is not a power of two")
    return alignment


def _check_layout(header: GgufHeader, file_bytes: int) -> None:
    """Check that each tensor directly follows the previous one, as llama.cpp requires, and ends within the file."""
    if len({tensor.name for tensor in header.tensors}) != len(header.tensors):
        raise _damaged(header.path, "a tensor's name occurs twice")
    expected = 0
    for tensor in header.tensors:
        if tensor.offset != expected:
            raise _damaged(header.path, f"tensor `{tensor.name}` has the wrong offset {tensor.offset:,}")
        if header.data_offset + expected + tensor.size_bytes > file_bytes:
            raise _truncated(header, file_bytes)
        expected += -(-tensor.size_bytes // header.alignment) * header.alignment


def _truncated(header: GgufHeader, file_bytes: int) -> BadModelFile:
    whole = header.data_offset + max(tensor.offset + tensor.size_bytes for tensor in header.tensors)
    return _damaged(header.path, f"it has {file_bytes:,} of {whole:,} bytes: the download is incomplete")


def _damaged(path: Path, what: str) -> BadModelFile:
    return BadModelFile(
        f"{path} is not a valid GGUF file: {what}",
        hint=f"mmd add {quote(str(path))}   # after downloading it again",
    )
