"""What can go wrong, as one tree.

    MmdError
    ├── WrongUsage            what was asked makes no sense
    ├── NoSuchModel           no registered model has this id
    ├── NotRunnable           the file was recognised, and nothing here can serve it
    ├── BadModelFile          the file is damaged, or not what its name says
    ├── RegistryDamaged       models.json cannot be read
    ├── StorageFailed         a file of ours cannot be read or written
    │   └── NoSpace           what is to be written is larger than the space left
    ├── HubUnavailable        the Hugging Face hub does not answer, or not now
    ├── NoSuchRepository      the hub has nothing under this name, or shows it to others only
    ├── RepositoryGated       the hub wants its licence accepted first
    ├── FileNeeded            a repository holds several models, and none was named
    ├── DoesNotFit            the model needs more memory than the machine has
    ├── EngineMissing         no engine installed that could serve it
    ├── ProgramMissing        a program of others that does a part of the work is not installed
    ├── EngineFailed          the engine started and died, or never became ready
    ├── SwapSuperseded        another activation came in between
    ├── GpuPinned             what has the GPU is pinned, and goes for no request
    ├── TryLater              the gateway will not now: too many wait, or it failed a moment ago
    └── ManagerUnreachable    no systemd user manager to talk to

Every error says what is, then what to do: `message` is one line, `hint` holds a command to paste.
"""

from __future__ import annotations

from dataclasses import dataclass


class MmdError(Exception):
    """`message` says what is; `hint` says what to do about it."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class WrongUsage(MmdError): ...


class NoSuchModel(MmdError): ...


class NotRunnable(MmdError): ...


class BadModelFile(MmdError): ...


class RegistryDamaged(MmdError): ...


class StorageFailed(MmdError): ...


class NoSpace(StorageFailed): ...


class HubUnavailable(MmdError): ...


class NoSuchRepository(MmdError): ...


class RepositoryGated(MmdError): ...


class FileNeeded(MmdError): ...


class DoesNotFit(MmdError): ...


class EngineMissing(MmdError): ...


class ProgramMissing(MmdError): ...


class EngineFailed(MmdError):
    """`engine_lines`: the last that the engine said, oldest first."""

    def __init__(self, message: str, *, hint: str, engine_lines: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.engine_lines = engine_lines


class SwapSuperseded(MmdError): ...


class GpuPinned(MmdError): ...


class TryLater(MmdError):
    """`retry_after_seconds`: when it makes sense to ask again."""

    def __init__(self, message: str, *, hint: str, retry_after_seconds: int = 10) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class ManagerUnreachable(MmdError): ...


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says; its class's name if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an error shows outside: the CLI's exit status, and HTTP in OpenAI's words."""

    exit_status: int
    http_status: int
    openai_type: str


_OUTCOMES: dict[type[MmdError], Outcome] = {
    MmdError: Outcome(1, 500, "server_error"),
    WrongUsage: Outcome(2, 400, "invalid_request_error"),
    NoSuchModel: Outcome(3, 404, "invalid_request_error"),
    NotRunnable: Outcome(1, 422, "invalid_request_error"),
    BadModelFile: Outcome(1, 422, "invalid_request_error"),
    NoSpace: Outcome(1, 507, "server_error"),
    HubUnavailable: Outcome(1, 503, "server_error"),
    NoSuchRepository: Outcome(3, 404, "invalid_request_error"),
    RepositoryGated: Outcome(1, 403, "permission_error"),
    FileNeeded: Outcome(2, 422, "invalid_request_error"),
    DoesNotFit: Outcome(4, 507, "server_error"),
    EngineMissing: Outcome(5, 503, "server_error"),
    ProgramMissing: Outcome(5, 503, "server_error"),
    EngineFailed: Outcome(6, 503, "server_error"),
    SwapSuperseded: Outcome(1, 409, "conflict_error"),
    GpuPinned: Outcome(1, 409, "conflict_error"),
    TryLater: Outcome(1, 503, "server_error"),
    ManagerUnreachable: Outcome(1, 503, "server_error"),
}


def outcome(error: MmdError) -> Outcome:
    """The outcome of the nearest class in the tree that has one."""
    return next(_OUTCOMES[kind] for kind in type(error).__mro__ if kind in _OUTCOMES)
