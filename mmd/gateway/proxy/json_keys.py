"""Top-level values of a JSON object, found without parsing the conversation around them.

A JSON parser builds every message of a long prompt to read one key at its side. Here the keys are searched for, and
only what decides whether they are top-level ones is looked at. For valid JSON the result is exactly that of
`json.loads(body)[key]`, the last of several included; what invalid JSON yields does not matter, because the engine
refuses it.
"""

from __future__ import annotations

import json
import re
from itertools import islice

from mmd.errors import WrongUsage

# Possessive, and with the closing quote optional: a string that never ends is read once, not once for each quote.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_STRING_OR_BRACKET = re.compile(rb'("[^"\\]*+(?:\\.[^"\\]*+)*+"?)([ \t\r\n]*:)?|[{}\[\]]', re.DOTALL)
_VALUE = re.compile(rb'[ \t\r\n]*("[^"\\]*+(?:\\.[^"\\]*+)*+"|[{\[]|[^\s",:{}\[\]]*)', re.DOTALL)

# Each candidate costs a look at up to half the body, so a body made of them is read once from its start instead.
_MOST_CANDIDATES = 8


class TopLevelKeys:
    """Reads the values of some keys; their names are ASCII."""

    def __init__(self, *names: str) -> None:
        one = "|".join(names).encode()
        # What begins with a plain character and captures nothing is searched for several times faster.
        self._quoted = re.compile(rb'"(?:' + one + rb')"')
        # In valid JSON this is a key; within a string its quotes are escaped.
        self._key = re.compile(rb'(?<!\\)"(' + one + rb')"[ \t\r\n]*:')
        self._names = frozenset(names)
        codes = sorted({f"{ord(letter):02x}" for letter in "".join(names)})
        self._escaped_letter = re.compile(rb"\\u00(?:" + "|".join(map(_in_any_case, codes)).encode() + rb")")

    def values(self, body: bytes) -> dict[str, bytes]:
        """The value of each key that is there, as it is written: whole where it is a string, a number, true, false or
        null, and only its first bracket where it is an array or an object.
        """
        ends = self._searched(body)
        if ends is None:
            ends = self._read_through(body)
        return {name: _value(body, end) for name, end in ends.items()}

    def _searched(self, body: bytes) -> dict[str, int] | None:
        """Where the keys end; None where there are too many at any depth, or they may be spelt otherwise."""
        if self._escaped_letter.search(body):
            return None
        keys = (key for name in self._quoted.finditer(body) if (key := self._key.match(body, name.start())))
        candidates = list(islice(keys, _MOST_CANDIDATES + 1))
        if len(candidates) > _MOST_CANDIDATES:
            return None
        ends: dict[str, int] = {}
        for key in reversed(candidates):
            name = key[1].decode()
            if name not in ends and _depth(body, key.start()) == 1:
                ends[name] = key.end()
        return ends

    def _read_through(self, body: bytes) -> dict[str, int]:
        depth = 0
        ends: dict[str, int] = {}
        for token in _STRING_OR_BRACKET.finditer(body):
            string, colon = token.groups()
            if string is None:
                depth += 1 if token.group() in b"{[" else -1
            elif colon is not None and depth == 1 and (name := text(string)) in self._names:
                ends[name] = token.end()
        return ends


def _in_any_case(code: str) -> str:
    """A pattern for a hexadecimal number; ignoring case altogether would make the search many times slower."""
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in code)


def text(string: bytes) -> str:
    """A string as it is written in JSON. Raises WrongUsage where it is none."""
    try:
        return str(json.loads(string))
    except ValueError as error:
        raise WrongUsage(f"the request's body is not JSON: {error}", hint="mmd list   # see the names") from error


def _depth(body: bytes, position: int) -> int:
    """How many brackets are open at a place outside strings, counted from the nearer end."""
    if position <= len(body) // 2:
        return _opened(body[:position])
    return -_opened(body[position:])


def _opened(part: bytes) -> int:
    brackets = _STRING.sub(b"", part)
    opening = brackets.count(b"{") + brackets.count(b"[")
    return opening - brackets.count(b"}") - brackets.count(b"]")


def _value(body: bytes, position: int) -> bytes:
    found = _VALUE.match(body, position)
    assert found is not None  # the last of its alternatives may be empty
    return found[1]
