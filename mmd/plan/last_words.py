"""Find the cause of an engine's failure in its last lines, and the flags that it refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from mmd.plan.launch import Flag

_MAX_CHARACTERS = 300  # an engine that rejects a value may list all valid ones
_NOT_THE_CAUSE = ("DEBUG", "INFO", "WARNING")
# The last line of a Python traceback. Other processes of the engine then raise one that only reports the failure.
# What mmd's own hooks say of the driver, in the same log.
_OF_A_HOOK = re.compile(r"GPU (?:free|still in use) after [\d.]+ s")

_EXCEPTION = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception): (?P<text>.*)")
_CONSEQUENCE = re.compile(r"root cause|EngineDeadError")
# pydantic puts the cause into the next line: "  Value error, Sleep mode is not supported [type=value_error, …]".
_PYDANTIC = re.compile(r"^Value error, (?P<text>.*?)(?: \[type=.*)?$")
_OF_AN_ERROR = ("error", "failed", "cannot", "couldn't", "unable")

_UNKNOWN_ARGUMENTS = re.compile(r"(?:unrecognized arguments|invalid argument): (?P<words>.*)")
# "…. Try increasing `gpu_memory_utilization` or decreasing `max_model_len`": no flag is refused, and without the named
# one the engine would take more of the memory that is short already.
_ADVICE = re.compile(r"\b(?:Please|Try|Consider|Decrease|Increase|Reduce)\b.*")


@dataclass(frozen=True, slots=True)
class LogStyle:
    """How one engine writes the lines of its log."""

    prefix: re.Pattern[str]  # the text before a message; a group named "level" is the message's level
    value_names: Mapping[str, str] = field(default_factory=dict)  # flag -> its value in "invalid …": "tool call parser"
    measured_too_early: tuple[str, ...] = ()  # phrases that mean: less memory is free than the flags were planned for


@dataclass(frozen=True, slots=True)
class Refusal:
    """The flags of a launch that its engine refused; none if the memory was only measured too early."""

    subjects: tuple[str, ...]
    output: str  # the line in which the engine refused them


def cause_line(lines: Sequence[str], *styles: LogStyle) -> str:
    """Return the line that most likely names the cause.

    Engines log the cause before its consequences, so it is the first exception, else the first line that mentions an
    error, else the last line.
    """
    return error_line(lines, *styles) or _first(reversed(_candidates(lines, styles)))


def error_line(lines: Sequence[str], *styles: LogStyle) -> str:
    """Return the line that most likely names the cause; "" if no line mentions an error, for example after a kill."""
    texts = _candidates(lines, styles)
    return _first((*_exceptions(texts), *(text for text in texts if _mentions_an_error(text))))


def _candidates(lines: Sequence[str], styles: Sequence[LogStyle]) -> list[str]:
    """Return the messages that can name a cause, without prefixes."""
    own = (line for line in lines if not _OF_A_HOOK.fullmatch(line.strip()))
    return [text for text, is_cause in (_read(line, styles) for line in own) if is_cause]


def _first(texts: Iterable[str]) -> str:
    return _shortened(" ".join(next(iter(texts), "").split()))


def refused(lines: Sequence[str], flags: Iterable[Flag], style: LogStyle) -> Refusal | None:
    """Return which of these `flags` the engine refused, or None if it failed for another reason.

    Flags that the user wrote or that the model cannot be served without are never among them.
    """
    optional = [flag for flag in flags if _is_optional(flag)]
    for text in _candidates(lines, (style,)):
        if any(phrase in text for phrase in style.measured_too_early):
            return Refusal((), _shortened(text))
        subjects = tuple(flag.subject for flag in optional if _names(text, flag, style))
        if subjects:
            return Refusal(subjects, _shortened(text))
    return None


def _read(line: str, styles: Sequence[LogStyle]) -> tuple[str, bool]:
    """Return a line without its prefix, and whether it can name a cause."""
    line = line.strip()
    for style in styles:
        prefix = style.prefix.match(line)
        if prefix and prefix.end():
            return line[prefix.end() :].strip(), prefix.groupdict().get("level") not in _NOT_THE_CAUSE
    return line, True


def _exceptions(texts: Sequence[str]) -> Iterator[str]:
    for text, following in zip_longest(texts, texts[1:], fillvalue=""):
        found = _EXCEPTION.match(text)
        if found and not _CONSEQUENCE.search(text):
            detail = _PYDANTIC.match(following)
            yield detail["text"] if detail else found["text"].strip("'\"")


def _mentions_an_error(text: str) -> bool:
    # A frame of a traceback quotes the code that raised; the exception itself says more.
    return not text.startswith("raise ") and any(word in text.lower() for word in _OF_AN_ERROR)


def _is_optional(flag: Flag) -> bool:
    return bool(flag.words or flag.instead) and not flag.required


def _names(text: str, flag: Flag, style: LogStyle) -> bool:
    """True if a line refuses this flag: by its name, by the engine's name for its value, or by the flag's own text."""
    if flag.refused_by and flag.refused_by in text:
        return True
    if unknown := _UNKNOWN_ARGUMENTS.search(text):
        return bool(set(unknown["words"].split()) & set(flag.words))
    if not (_EXCEPTION.match(text) or "error: " in text):
        return False
    text = _ADVICE.sub("", text)
    words = {word for word in flag.words if word.startswith("--")}
    spellings = words | {word.removeprefix("--").replace("-", "_") for word in words}
    if any(re.search(rf"(?<![\w-]){re.escape(spelling)}(?![\w-])", text) for spelling in spellings):
        return True
    return any(name in words and f"invalid {value}" in text for name, value in style.value_names.items())


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"
