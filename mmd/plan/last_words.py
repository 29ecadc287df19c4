"""What an engine said before it died: the cause in one line, and whether it was a setting that it would not have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from mmd.plan.launch import Flag, Launch

_MOST_CHARACTERS = 300  # vLLM lists all it knows where it is given what it does not know

# What engines put before a message. llama.cpp: "0.00.007.173 E "; vLLM: "(EngineCore pid=9) ERROR 11-21 05:42:12
# [core.py:1510] ".
_PREFIX = re.compile(
    r"^(?:\d+\.\d\d\.\d{3}\.\d{3} [A-Z] |\([\w-]+ pid=\d+\) )?"
    r"(?:(?P<level>[A-Z]{4,8}) \d\d-\d\d [\d:]+ \[[^\]]*\] ?)?"
)
_NOT_THE_CAUSE = ("DEBUG", "INFO", "WARNING")
# The last line of a Python traceback. What vLLM's other processes raise on their part only says that one has failed.
_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (?P<text>.*)")
_CONSEQUENCE = re.compile(r"root cause|EngineDeadError")
# pydantic says in the line after it what is wrong: "  Value error, Sleep mode is not supported [type=value_error, …]".
_PYDANTIC = re.compile(r"^Value error, (?P<text>.*?)(?: \[type=.*)?$")
_OF_AN_ERROR = ("error", "failed", "cannot", "couldn't", "unable")

_UNKNOWN_ARGUMENTS = re.compile(r"(?:unrecognized arguments|invalid argument): (?P<words>.*)")
_PARSERS = (("--tool-call-parser", "tool call parser"), ("--reasoning-parser", "reasoning parser"))
# "…. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`": no flag is refused, and without the one
# that is named the engine would take more of what is short already.
_ADVICE = re.compile(r"\b(?:Please|Try|Consider|Decrease|Increase|Reduce)\b.*")
_LESS_IS_FREE = "less than desired GPU memory utilization"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Settings of a launch that its engine would not have; none where it was only measured too early."""

    subjects: tuple[str, ...]
    said: str


def telling_line(lines: Sequence[str]) -> str:
    """The line that most likely names the cause: engines go from the cause to its consequences, so the first exception,
    else the first line that speaks of an error, or the last of all.
    """
    return error_line(lines) or _first(reversed(_about_causes(lines)))


def error_line(lines: Sequence[str]) -> str:
    """As `telling_line`, "" where no line speaks of an error: one that is killed has said nothing of that."""
    said = _about_causes(lines)
    return _first((*_exceptions(said), *(text for text in said if _speaks_of_an_error(text))))


def _about_causes(lines: Sequence[str]) -> list[str]:
    return [text for text, is_cause in map(_read, lines) if is_cause]


def _first(texts: Iterable[str]) -> str:
    return _shortened(" ".join(next(iter(texts), "").split()))


def refused(lines: Sequence[str], launch: Launch) -> Refusal | None:
    """What of `launch` its engine refused, so that a start without it may do; None where it died of something else.

    What the user laid down, and what a model cannot be served without, is never among it.
    """
    for text in _about_causes(lines):
        if _LESS_IS_FREE in text:
            return Refusal((), _shortened(text))
        subjects = tuple(flag.subject for flag in launch.flags if _may_go(flag) and _names(text, flag))
        if subjects:
            return Refusal(subjects, _shortened(text))
    return None


def _read(line: str) -> tuple[str, bool]:
    """A line without its prefix, and whether it can be about a cause."""
    prefix = _PREFIX.match(line.strip())
    assert prefix is not None  # all of it is optional
    return line.strip()[prefix.end() :].strip(), prefix["level"] not in _NOT_THE_CAUSE


def _exceptions(said: Sequence[str]) -> Iterator[str]:
    for text, following in zip_longest(said, said[1:], fillvalue=""):
        found = _EXCEPTION.match(text)
        if found and not _CONSEQUENCE.search(text):
            detail = _PYDANTIC.match(following)
            yield detail["text"] if detail else found["text"].strip("'\"")


def _speaks_of_an_error(text: str) -> bool:
    # A frame of a traceback quotes the code that raised, which says less than the exception does.
    return not text.startswith("raise ") and any(word in text.lower() for word in _OF_AN_ERROR)


def _may_go(flag: Flag) -> bool:
    return bool(flag.words) and not flag.kept


def _names(text: str, flag: Flag) -> bool:
    """Whether a line refuses this flag: by itself, or by the words that vLLM has for it in a message."""
    if unknown := _UNKNOWN_ARGUMENTS.search(text):
        return bool(set(unknown["words"].split()) & set(flag.words))
    if not (_EXCEPTION.match(text) or "error: " in text):
        return False
    text = _ADVICE.sub("", text)
    words = {word for word in flag.words if word.startswith("--")}
    spellings = words | {word.removeprefix("--").replace("-", "_") for word in words}
    if any(re.search(rf"(?<![\w-]){re.escape(spelling)}(?![\w-])", text) for spelling in spellings):
        return True
    return any(name in words and f"invalid {phrase}" in text for name, phrase in _PARSERS)


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
