"""The directives of a transient unit, each as a D-Bus property and as a line of a unit file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from signal import Signals
from typing import Any, ClassVar, Literal

_MICROSECONDS = 1_000_000
# The D-Bus types of numbers that are not "u".
_NUMBER_SIGNATURES = {"LimitNOFILE": "t", "Nice": "i"}


@dataclass(frozen=True, slots=True)
class Directive(ABC):
    """A directive with its value. Each subclass lists the names whose values have its type."""

    name: str
    value: Any
    signature: ClassVar[str]

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        """The property, its D-Bus signature and value, as StartTransientUnit takes them."""
        return self.name, self.signature, self.value

    @property
    @abstractmethod
    def text(self) -> str:
        """The value in a unit file."""

    @property
    def line(self) -> str:
        return f"{self.name}={self.text}"


@dataclass(frozen=True, slots=True)
class Text(Directive):
    name: Literal[
        "Description",
        "CollectMode",
        "Type",
        "Restart",
        "OOMPolicy",
        "KillMode",
        "Slice",
        "StandardOutput",
        "SyslogIdentifier",
    ]
    value: str
    signature: ClassVar[str] = "s"

    @property
    def text(self) -> str:
        return self.value.replace("%", "%%")


@dataclass(frozen=True, slots=True)
class Words(Directive):
    """Names of units or folders, without blanks."""

    name: Literal[
        "Requires",
        "Wants",
        "BindsTo",
        "PartOf",
        "Conflicts",
        "Before",
        "After",
        "OnSuccess",
        "OnFailure",
        "RuntimeDirectory",
    ]
    value: tuple[str, ...]
    signature: ClassVar[str] = "as"

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        return self.name, self.signature, list(self.value)

    @property
    def text(self) -> str:
        return " ".join(self.value)


@dataclass(frozen=True, slots=True)
class Environment(Directive):
    """Variables as NAME=VALUE."""

    name: Literal["Environment"]
    value: tuple[str, ...]
    signature: ClassVar[str] = "as"

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        return self.name, self.signature, list(self.value)

    @property
    def text(self) -> str:
        return f"\n{self.name}=".join(quoted(pair) for pair in self.value)


@dataclass(frozen=True, slots=True)
class Command(Directive):
    """A command line, the program's path first."""

    name: Literal["ExecCondition", "ExecStart", "ExecStartPost", "ExecStopPost"]
    value: tuple[str, ...]
    signature: ClassVar[str] = "a(sasb)"

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        # systemd expands % in unit files but not in D-Bus values; $ in both.
        program, *words = self.value
        return self.name, self.signature, [[program, [program, *(word.replace("$", "$$") for word in words)], False]]

    @property
    def text(self) -> str:
        return command_line(self.value)


@dataclass(frozen=True, slots=True)
class Commands(Directive):
    """Command lines of a oneshot service. They run one after another, even if one of them fails."""

    name: Literal["ExecStart"]
    value: tuple[tuple[str, ...], ...]
    signature: ClassVar[str] = "a(sasb)"

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        one_by_one = (Command("ExecStart", command).bus_property[2][0] for command in self.value)
        return self.name, self.signature, [[program, words, True] for program, words, _ in one_by_one]

    @property
    def text(self) -> str:
        return f"\n{self.name}=".join(f"-{command_line(command)}" for command in self.value)


@dataclass(frozen=True, slots=True)
class Seconds(Directive):
    name: Literal["StartLimitIntervalSec", "TimeoutStartSec", "TimeoutStopSec", "RestartSec"]
    value: float
    signature: ClassVar[str] = "t"

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        return f"{self.name.removesuffix('Sec')}USec", self.signature, int(self.value * _MICROSECONDS)

    @property
    def text(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Number(Directive):
    name: Literal["StartLimitBurst", "LimitNOFILE", "Nice"]
    value: int

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        return self.name, _NUMBER_SIGNATURES.get(self.name, "u"), self.value

    @property
    def text(self) -> str:
        return str(self.value)


@dataclass(frozen=True, slots=True)
class Mode(Directive):
    """Bits of file permissions."""

    name: Literal["UMask", "RuntimeDirectoryMode"]
    value: int
    signature: ClassVar[str] = "u"

    @property
    def text(self) -> str:
        return f"{self.value:04o}"


@dataclass(frozen=True, slots=True)
class Switch(Directive):
    name: Literal["RemainAfterExit", "RefuseManualStart", "StopWhenUnneeded"]
    value: bool
    signature: ClassVar[str] = "b"

    @property
    def text(self) -> str:
        return "yes" if self.value else "no"


@dataclass(frozen=True, slots=True)
class Statuses(Directive):
    """Exit statuses, and names of signals."""

    name: Literal["RestartPreventExitStatus", "SuccessExitStatus"]
    value: tuple[int | str, ...]
    signature: ClassVar[str] = "(aiai)"

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        numbers = [status for status in self.value if isinstance(status, int)]
        signals = [int(Signals[name]) for name in self.value if isinstance(name, str)]
        return self.name, self.signature, [numbers, signals]

    @property
    def text(self) -> str:
        return " ".join(map(str, self.value))


@dataclass(frozen=True, slots=True)
class Condition(Directive):
    name: Literal["ConditionPathExists"]
    value: str
    signature: ClassVar[str] = "a(sbbs)"

    @property
    def bus_property(self) -> tuple[str, str, Any]:
        return "Conditions", self.signature, [[self.name, False, False, self.value]]

    @property
    def text(self) -> str:
        return self.value.replace("%", "%%")


@dataclass(frozen=True, slots=True)
class Descriptor(Directive):
    """A file descriptor that is sent with the D-Bus call, as its index among the descriptors of the call."""

    name: Literal["StandardInputFileDescriptor"]
    value: int
    signature: ClassVar[str] = "h"

    @property
    def text(self) -> str:
        return "a descriptor of the process that made this unit"

    @property
    def line(self) -> str:
        return f"# {self.name}: {self.text}"  # a unit file cannot express it


def command_line(words: Iterable[str]) -> str:
    """Return a command as a unit file has it: `$` is expanded in all words but the program's own, `%` everywhere."""
    program, *arguments = words
    return " ".join(quoted(word) for word in (program, *(word.replace("$", "$$") for word in arguments)))


def quoted(word: str) -> str:
    """Return one word of a unit file: specifiers doubled, in quotes if it needs them."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    escaped = escaped.replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"' if not word or any(char in word for char in " \t\n\"'\\;") else escaped
