"""The options that the gateway reads equal what a JSON parser finds, for all valid JSON."""

from __future__ import annotations

import contextlib
import json
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.errors import WrongUsage
from mmd.gateway.proxy.json_keys import TopLevelKeys
from mmd.gateway.proxy.request_options import RequestOptions, parse_options

_JSON = b"application/json"
_TRICKY = st.sampled_from(
    ["model", "ttl", '"model":', '\\"model":', "mod\\u0065l", "{", "}", "[", "]", '"', "\\", "\\\\", "m"]
)
_TEXT = st.one_of(st.text(max_size=8), _TRICKY, st.lists(_TRICKY, max_size=4).map("".join))
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), _TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(_TEXT, inner, max_size=3),
        st.dictionaries(st.just("model"), inner),
    ),
    max_leaves=12,
)


def _written(text: str, style: int) -> str:
    """Encode a string in JSON: unescaped, as ASCII, all escaped, or every second letter escaped."""
    if style < 2:
        return json.dumps(text, ensure_ascii=style == 1)
    letters = [
        "".join(f"\\u{unit:04x}" for unit in _utf16(letter)) if style == 2 or at % 2 else json.dumps(letter)[1:-1]
        for at, letter in enumerate(text)
    ]
    return '"' + "".join(letters) + '"'


def _utf16(letter: str) -> list[int]:
    raw = letter.encode("utf-16-be", "surrogatepass")
    return [raw[at] << 8 | raw[at + 1] for at in range(0, len(raw), 2)]


_STRINGS = st.builds(_written, _TEXT, st.integers(0, 3))
_READ = st.sampled_from(["model", "keep_alive", "ttl"])
_SCALARS = st.one_of(_STRINGS, st.sampled_from(["null", "true", "0", "-1", "1.5e3", "Infinity"]))
_MEMBERS = st.one_of(
    st.tuples(st.builds(_written, _READ, st.integers(0, 3)), _SCALARS),
    st.tuples(_STRINGS, _VALUES.map(json.dumps)),
)
_SPACES = st.sampled_from(["", " ", "\n\t", "\r\n  "])


@st.composite
def _documents(draw: st.DrawFn) -> str:
    """Objects with the key "model" never, once or often, at the start, in the middle or at the end."""
    space = draw(_SPACES)
    members = [space.join(("", key, ":", value, "")) for key, value in draw(st.lists(_MEMBERS, max_size=6))]
    return space + "{" + ",".join(members) + "}" + space


@given(_documents())
def test_values_equal_those_of_a_json_parser(document: str) -> None:
    parsed = json.loads(document)
    values = TopLevelKeys("model", "keep_alive", "ttl").values(document.encode("utf-8", "surrogatepass"))
    assert values.keys() == parsed.keys() & {"model", "keep_alive", "ttl"}
    for key, value in values.items():
        match parsed[key]:
            case dict():
                assert value == b"{"
            case list():
                assert value == b"["
            case expected:
                assert json.loads(value) == expected


@given(_VALUES.filter(lambda value: not isinstance(value, dict)))
def test_json_without_an_object_has_no_options(value: Any) -> None:
    assert parse_options(_JSON, json.dumps(value).encode()) == RequestOptions(None)


@given(st.integers(9, 40), st.booleans())
def test_nested_model_keys_are_ignored(depth: int, last: bool) -> None:
    nested: Any = {"model": "deep"}
    for _ in range(depth):
        nested = {"model": "deep", "tools": [nested]}
    body = {"tools": nested, "model": "top"} if last else {"model": "top", "tools": nested}
    assert parse_options(_JSON, json.dumps(body).encode()).model == "top"
    assert parse_options(_JSON, json.dumps({"tools": nested}).encode()).model is None


@given(st.binary(max_size=200))
def test_any_bytes_yield_options_or_an_error(body: bytes) -> None:
    try:
        parse_options(_JSON, body)
    except WrongUsage as error:
        assert error.hint


@pytest.mark.parametrize("value", ["1", "[]", "{}", "true", "nullable", ""])
def test_model_must_be_a_string(value: str) -> None:
    with pytest.raises(WrongUsage, match="not a string"):
        parse_options(_JSON, b'{"model": ' + value.encode() + b"}")


@pytest.mark.parametrize(
    "body",
    [
        b'"' + b'\\"' * 500_000,
        b"{" + b'"model":' * 200_000,
        b'{"model":{' * 100_000,
        b'"' * 1_000_001,
        b'{"mod\\u0065l":"x",' + b'"\\u0065' * 100_000,
        b'{"model": "' + b"\\a" * 300_000,
    ],
)
def test_hostile_bodies_take_linear_time(body: bytes) -> None:
    begun = time.perf_counter()
    with contextlib.suppress(WrongUsage):
        parse_options(_JSON, body)
    assert time.perf_counter() - begun < 5  # with quadratic time each took minutes


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("300", 300.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("-1", math.inf),
        ("1" + "0" * 5000, math.inf),
        ("null", None),
        ('"5m"', 300.0),
        ('"1h30m"', 5400.0),
        ('"1.5h"', 5400.0),
        ('"250ms"', 0.25),
        ('"2\\u00b5s"', 2e-6),
        ('"0"', 0.0),
        ('"0s"', 0.0),
        ('"-1"', math.inf),
        ('"-1m"', math.inf),
    ],
)
@pytest.mark.parametrize("key", ["keep_alive", "ttl"])
def test_keep_seconds(key: str, said: str, expected: float | None) -> None:
    body = f'{{"messages": [{{"{key}": 1}}], "model": "a", "{key}": {said}}}'.encode()
    assert parse_options(_JSON, body) == RequestOptions("a", expected)


@pytest.mark.parametrize("said", ["true", "[]", "{}", "NaN", '""', '"soon"', '"5 m"', '"m"', '"5m!"', "5m"])
@pytest.mark.parametrize("key", ["keep_alive", "ttl"])
def test_invalid_duration_is_refused(key: str, said: str) -> None:
    with pytest.raises(WrongUsage, match=f"{key} is not a duration"):
        parse_options(_JSON, f'{{"{key}": {said}}}'.encode())


def test_keep_alive_wins_over_ttl() -> None:
    assert parse_options(_JSON, b'{"ttl": 60, "keep_alive": 5}').keep_seconds == 5
    assert parse_options(_JSON, b'{"keep_alive": null, "ttl": 60}').keep_seconds == 60


def _form(*parts: tuple[str, bytes], boundary: str = "xYz") -> bytes:
    written = [
        f"--{boundary}\r\nContent-Disposition: {head}\r\n\r\n".encode() + value + b"\r\n" for head, value in parts
    ]
    return b"".join(written) + f"--{boundary}--\r\n".encode()


@pytest.mark.parametrize("content_type", [b"multipart/form-data; boundary=xYz", b'Multipart/Form-Data; Boundary="xYz"'])
def test_model_in_a_form(content_type: bytes) -> None:
    audio = b'\x00\xff\r\n--xY\r\nContent-Disposition: form-data; name="model"\r\n\r\nwrong'
    parts = [
        ('form-data; name="file"; filename="a.wav"', audio),
        ('form-data; name="model"', "whisper-ä".encode()),
    ]
    assert parse_options(content_type, _form(*parts)).model == "whisper-ä"
    assert parse_options(content_type, _form(*reversed(parts))).model == "whisper-ä"


def test_form_without_a_model_field() -> None:
    body = _form(('form-data; name="file"; filename="model"', b"x"), ('form-data; name="models"', b"y"))
    assert parse_options(b"multipart/form-data; boundary=xYz", body).model is None
    assert parse_options(b"multipart/form-data; boundary=other", body).model is None
    with pytest.raises(WrongUsage, match="boundary"):
        parse_options(b"multipart/form-data", body)
