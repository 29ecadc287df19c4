"""All errors that mmd raises for its users, as one tree.

    MmdError
    ├── WrongUsage            the request makes no sense
    ├── NoSuchModel           no registered model has this id
    ├── NotRunnable           the file was recognised, but no engine here can serve it
    ├── BadModelFile          the file is damaged, or not what its name says
    ├── RegistryDamaged       models.json cannot be read
    ├── StorageFailed         one of mmd's files cannot be read or written
    │   ├── NoSpace           the space left is smaller than what would be written
    │   └── SettingsNotEdited mmd.toml cannot be edited without changing other parts of it
    ├── HubUnavailable        the Hugging Face hub does not answer, or rejects requests for now
    ├── NoSuchRepository      the hub has no such repository, or this account may not see it
    ├── RepositoryGated       the hub requires that its licence is accepted first
    ├── FileNeeded            the repository has several models, and none was named
    ├── DoesNotFit            the model needs more memory than the machine has
    ├── EngineMissing         no installed engine can serve the model
    ├── ProgramMissing        mmd needs another program that is not installed
    ├── EngineFailed          the engine started and died, or never became ready
    ├── EngineStuck           the engine does not stop
    ├── SwapSuperseded        another activation replaced this one
    │   ├── PlacementChanged  it would unload other models, or use other devices, than planned: plan again
    │   └── MemoryTaken       other models hold the memory, and this activation must not unload them
    ├── GpuPinned             the model that would be unloaded is pinned: only a user's command unloads it
    ├── LeaseRefused          a lease does not fit, or its name is taken
    ├── NoSuchLease           no lease has this name
    ├── TryLater              the gateway refuses for now: its queue is full, or a start has just failed
    │   ├── GpuLeased         a lease holds the memory that the model needs
    │   └── SwappedOut        a response was cut because another model or a lease took the memory
    ├── Busy                  another process of mmd is doing this, or holds the lock for it
    ├── TimedOut              a reading of this machine took too long
    ├── CannotListen          an address of the gateway cannot be listened on
    ├── GatewayFailed         the gateway did not start
    ├── TunnelFailed          a tunnel could not be opened
    ├── UnitsMasked           units that mmd needs are masked
    └── ManagerUnreachable    the systemd user manager does not answer

Errors that have a meaning for one module only are defined in it: BusError, UnitExists, NoSuchUnit, NoSuchUnitFile and
ManagerAway in units/bus_errors.py, LogindAway and LockRefused in units/login1.py, GameModeAway in units/gamemode.py,
AddressTaken in gateway/http/sockets.py, NoSuchDownload in gateway/api/downloads.py. They share the outcome of the class
that they are derived from.

`message` is one line that says what is; `hint` says what to do, with a command to paste.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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


class SettingsNotEdited(StorageFailed): ...


class HubUnavailable(MmdError): ...


class NoSuchRepository(MmdError): ...


class RepositoryGated(MmdError): ...


class FileNeeded(MmdError): ...


class DoesNotFit(MmdError): ...


class EngineMissing(MmdError): ...


class ProgramMissing(MmdError): ...


class EngineFailed(MmdError):
    """`engine_lines`: the last lines of the engine's output, oldest first."""

    def __init__(self, message: str, *, hint: str, engine_lines: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.engine_lines = engine_lines


class EngineStuck(MmdError): ...


class SwapSuperseded(MmdError): ...


class PlacementChanged(SwapSuperseded): ...


class MemoryTaken(SwapSuperseded): ...


class GpuPinned(MmdError): ...


class LeaseRefused(MmdError): ...


class NoSuchLease(MmdError): ...


class TryLater(MmdError):
    """`retry_after_seconds`: when it makes sense to ask again."""

    def __init__(self, message: str, *, hint: str, retry_after_seconds: int = 10) -> None:
        super().__init__(message, hint=hint)
        self.retry_after_seconds = retry_after_seconds


class GpuLeased(TryLater): ...


class SwappedOut(TryLater): ...


class Busy(MmdError): ...


class TimedOut(MmdError): ...


class CannotListen(MmdError): ...


class GatewayFailed(MmdError): ...


class TunnelFailed(MmdError): ...


class UnitsMasked(MmdError): ...


class ManagerUnreachable(MmdError): ...


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception says; its class's name if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an error shows outside: the CLI's exit status, and HTTP in OpenAI's terms."""

    exit_status: int
    http_status: int
    openai_type: str


_OUTCOMES: dict[type[MmdError], Outcome] = {
    MmdError: Outcome(1, 500, "server_error"),
    WrongUsage: Outcome(2, 400, "invalid_request_error"),
    NoSuchModel: Outcome(3, 404, "invalid_request_error"),
    NotRunnable: Outcome(1, 422, "invalid_request_error"),
    BadModelFile: Outcome(1, 422, "invalid_request_error"),
    RegistryDamaged: Outcome(1, 500, "server_error"),
    StorageFailed: Outcome(1, 500, "server_error"),
    NoSpace: Outcome(1, 507, "server_error"),
    SettingsNotEdited: Outcome(1, 500, "server_error"),
    HubUnavailable: Outcome(1, 503, "server_error"),
    NoSuchRepository: Outcome(3, 404, "invalid_request_error"),
    RepositoryGated: Outcome(1, 403, "permission_error"),
    FileNeeded: Outcome(2, 422, "invalid_request_error"),
    DoesNotFit: Outcome(4, 507, "server_error"),
    EngineMissing: Outcome(5, 503, "server_error"),
    ProgramMissing: Outcome(5, 503, "server_error"),
    EngineFailed: Outcome(6, 503, "server_error"),
    EngineStuck: Outcome(1, 503, "server_error"),
    SwapSuperseded: Outcome(1, 409, "conflict_error"),
    PlacementChanged: Outcome(1, 409, "conflict_error"),
    MemoryTaken: Outcome(1, 409, "conflict_error"),
    GpuPinned: Outcome(1, 409, "conflict_error"),
    LeaseRefused: Outcome(4, 409, "conflict_error"),
    NoSuchLease: Outcome(3, 404, "invalid_request_error"),
    TryLater: Outcome(1, 503, "server_error"),
    GpuLeased: Outcome(1, 503, "server_error"),
    SwappedOut: Outcome(1, 503, "server_error"),
    Busy: Outcome(1, 503, "server_error"),
    TimedOut: Outcome(1, 504, "server_error"),
    CannotListen: Outcome(1, 503, "server_error"),
    GatewayFailed: Outcome(1, 503, "server_error"),
    TunnelFailed: Outcome(1, 503, "server_error"),
    UnitsMasked: Outcome(1, 503, "server_error"),
    ManagerUnreachable: Outcome(1, 503, "server_error"),
}


def outcome(error: MmdError) -> Outcome:
    """Return the outcome of the nearest class in the tree that has one."""
    return outcome_of(type(error))


def outcome_of(kind: type[MmdError]) -> Outcome:
    return next(_OUTCOMES[parent] for parent in kind.__mro__ if parent in _OUTCOMES)


def to_record(error: MmdError) -> dict[str, Any]:
    """Return an error as JSON, with the code that the API documents for its class."""
    record: dict[str, Any] = {"code": _code(type(error)), "message": error.message, "hint": error.hint}
    if isinstance(error, EngineFailed) and error.engine_lines:
        record["engine_lines"] = list(error.engine_lines)
    return record


def from_record(record: object) -> MmdError | None:
    """Return the error that `to_record` made a record of; None if its code is of no class in the tree."""
    if not isinstance(record, Mapping) or (kind := _BY_CODE.get(str(record.get("code")))) is None:
        return None
    message, hint = str(record.get("message")), str(record.get("hint"))
    if kind is EngineFailed:
        return EngineFailed(message, hint=hint, engine_lines=tuple(map(str, record.get("engine_lines") or ())))
    return kind(message, hint=hint)


def _code(kind: type[MmdError]) -> str:
    if kind is NoSuchModel:
        return "model_not_found"  # OpenAI's code, which clients look for
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


_BY_CODE = {_code(kind): kind for kind in _OUTCOMES}
