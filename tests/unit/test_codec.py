"""Records as JSON: written records can be read again, and a damaged one names its fault."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.codec import BadRecord, convert, decode, encode, require_counts, to_builtins


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Inner:
    size_bytes: int
    colour: Colour = Colour.RED
    note: str | None = None

    def __post_init__(self) -> None:
        require_counts(self, "size_bytes")


@dataclass(frozen=True, slots=True)
class Outer:
    name: str
    inner: Inner
    seconds: Mapping[str, float]
    pairs: tuple[tuple[int, int], ...] = ()


RECORD = Outer("a", Inner(5), {"load": 1.5}, ((1, 2),))
TEXT = b'{"name":"a","inner":{"size_bytes":5,"colour":"red","note":null},"seconds":{"load":1.5},"pairs":[[1,2]]}'


def test_record_survives_the_round_trip() -> None:
    assert encode(RECORD) == TEXT
    assert decode(TEXT, Outer) == RECORD
    assert convert(to_builtins(RECORD), Outer) == RECORD
    assert decode(encode(RECORD, indent=2), Outer) == RECORD


def test_indented_text_ends_with_a_line_feed() -> None:
    assert encode(Inner(1), indent=2) == b'{\n  "size_bytes": 1,\n  "colour": "red",\n  "note": null\n}\n'


def test_unknown_keys_are_ignored_and_defaults_filled_in() -> None:
    assert decode(b'{"size_bytes": 1, "of_a_newer_version": [[]]}', Inner) == Inner(1)


def test_text_that_is_not_utf8_is_replaced() -> None:
    assert decode(encode({"said": "caf\udce9"}), dict[str, str]) == {"said": "caf?"}


def test_count_of_more_than_64_bits_survives() -> None:
    assert decode(encode(Inner(1 << 80)), Inner) == Inner(1 << 80)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"name":"a",', b"", "name is missing"),
        (b'"a"', b"3", "name: expected str, got int"),
        (b"5", b"-5", "inner: size_bytes is negative"),
        (b"5", b"true", "inner.size_bytes: expected int, got bool"),
        (b"5", b"5.5", "inner.size_bytes: expected int, got float"),
        (b"5", b"9" * 5000, "inner.size_bytes: integer value out of range"),
        (b'"red"', b'"blue"', "inner.colour: invalid enum value 'blue'"),
        (b"1.5", b"NaN", "JSON is malformed: invalid character"),
        (b"1.5", b"1e999", "seconds[...]: number out of range"),
        (b"[1,2]", b"[1]", "pairs[0]: expected array of length 2"),
        (b"]]}", b"]}", "JSON is malformed"),
        (TEXT, b"", "input data was truncated"),
        (TEXT, b"null", "expected object, got null"),
        (TEXT, b"\xff", "JSON is malformed"),
        (b'"a"', b'"\xff"', "invalid UTF-8"),
        (TEXT, b'{"x":' + b"[" * 100_000, "it is nested too deeply"),
    ],
)
def test_damage_names_the_key(old: bytes, new: bytes, said: str) -> None:
    assert old in TEXT
    with pytest.raises(BadRecord) as caught:
        decode(TEXT.replace(old, new, 1), Outer)
    assert said.lower() in str(caught.value).lower()


@given(st.binary())
def test_any_bytes_are_a_record_or_an_error(content: bytes) -> None:
    try:
        decode(content, Outer)
    except BadRecord as error:
        assert str(error)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["name", "inner", "seconds", "pairs", "size_bytes"]), inner)
        ),
    )
)
def test_any_value_is_a_record_or_an_error(value: object) -> None:
    try:
        convert(value, Outer)
    except BadRecord as error:
        assert str(error)


def test_help_imports_no_codec() -> None:
    main = "import sys, mmd.cli; sys.argv = ['mmd', '--help']\ntry: mmd.cli.main()"
    code = f"{main}\nfinally: print('msgspec' in sys.modules)"
    shown = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"
