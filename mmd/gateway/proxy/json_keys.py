"""Find top-level values of a JSON object without parsing the rest of it.

A JSON parser builds every message of a long prompt just to read one key beside them. This module searches for the keys
and counts only the brackets that decide whether a key is a top-level one. For valid JSON the result equals
`json.loads(body)[key]`, including the last value of a repeated key. Invalid JSON may yield anything: the engine refuses
it.
"""

from __future__ import annotations

import json
import re
from itertools import islice

from mmd.errors import WrongUsage

# Possessive, and the closing quote is optional: an unterminated string is read once, not once for each quote in it.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STRING_OR_BRACKET = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)([ \t\r\n]*:)?|[{}\[\]]', re.DOTALL)
_VALUE = re.compile(rb'[ \t\r\n]*("[^"\\]*+(?:\\.[^"\\]*+)*+"|[{\[]|[^\s",:{}\[\]]*)', re.DOTALL)

# Each candidate costs a scan of up to half the body, so a body with more of them is scanned once from its start.
_MAX_CANDIDATES = 8


class TopLevelKeys:
    """A reader for the values of these keys. Their names must be ASCII."""

    def __init__(self, *names: str) -> None:
        one = "|".join(names).encode()
        # A pattern that begins with a plain character and captures nothing is searched several times faster.
        self._quoted = re.compile(rb'"(?:' + one + rb')"')
        # In valid JSON a match is a key: inside a string its quotes would be escaped.
        self._key = re.compile(rb'(?<!\\)"(' + one + rb')"[ \t\r\n]*:')
        self._names = frozenset(names)
        codes = sorted({f"{ord(letter):02x}" for letter in "".join(names)})
        self._escaped_letter = re.compile(rb"\\u00(?:" + "|".join(map(_in_any_case, codes)).encode() + rb")")

    def values(self, body: bytes) -> dict[str, bytes]:
        """Return the raw value of each key present: a string, number, true, false or null as written, and only the
        opening bracket of an array or object.
        """
        ends = self._search(body)
        if ends is None:
            ends = self._scan(body)
        return {name: _value(body, end) for name, end in ends.items()}

    def _search(self, body: bytes) -> dict[str, int] | None:
        """Return where each key ends; None if there are too many candidates, or keys may be written with escapes."""
        if self._escaped_letter.search(body):
            return None
        keys = (key for name in self._quoted.finditer(body) if (key := self._key.match(body, name.start())))
        candidates = list(islice(keys, _MAX_CANDIDATES + 1))
        if len(candidates) > _MAX_CANDIDATES:
            return None
        ends: dict[str, int] = {}
        for key in reversed(candidates):
            name = key[1].decode()
            if name not in ends and _depth(body, key.start()) == 1:
                ends[name] = key.end()
        return ends

    def _scan(self, body: bytes) -> dict[str, int]:
        """Return where each key ends, from one pass over all strings and brackets."""
        depth = 0
        ends: dict[str, int] = {}
        for token in _STRING_OR_BRACKET.finditer(body):
            string, colon = token.groups()
            if string is None:
                depth += 1 if token.group() in b"{[" else -1
            elif colon is not None and depth == 1 and (name := json_string(string)) in self._names:
                ends[name] = token.end()
        return ends


def _in_any_case(code: str) -> str:
    """A pattern for a hexadecimal number. A case-insensitive search would be many times slower."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in code)


def json_string(string: bytes) -> str:
    """Decode a JSON string, quotes included. Raises WrongUsage if it is malformed."""
    try:
        return str(json.loads(string))
    except ValueError as error:
        raise WrongUsage(f"the request's body is not JSON: {error}", hint="mmd list   # see the names") from error


def _depth(body: bytes, position: int) -> int:
    """Count the open brackets at a position outside strings, from the nearer end of the body."""
    if position <= len(body) // 2:
        return _opened(body[:position])
    return -_opened(body[position:])


def _opened(part: bytes) -> int:
    brackets = _STRING.sub(b"", part)
    opening = brackets.count(b"{") + brackets.count(b"[")
    return opening - brackets.count(b"}") - brackets.count(b"]")


def _value(body: bytes, position: int) -> bytes:
    found = _VALUE.match(body, position)
    assert found is not None  # the last alternative matches nothing, too
    return found[1]
