"""The errors that the user manager answers with over D-Bus."""

from __future__ import annotations

from mmd.errors import MmdError


class BusError(MmdError):
    """systemd answered with an error; `name` is its D-Bus name."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"systemd refused: {text}", hint="journalctl --user -n 20   # the manager's messages")
        self.name = name


class UnitExists(BusError):
    """A unit with the name of a new transient unit is still loaded."""


class NoSuchUnit(BusError):
    """The unit is not loaded."""


class NoSuchUnitFile(BusError):
    """The manager finds no unit file with this name."""


class ManagerAway(BusError):
    """The user manager left the bus before it replied, because it re-executes or ends."""


_ERRORS: dict[str, type[BusError]] = {
    "org.freedesktop.DBus.Error.NoReply": ManagerAway,
    "org.freedesktop.DBus.Error.ServiceUnknown": ManagerAway,
    "org.freedesktop.DBus.Error.NameHasNoOwner": ManagerAway,
    "org.freedesktop.DBus.Error.FileNotFound": NoSuchUnitFile,
    "org.freedesktop.systemd1.UnitExists": UnitExists,
    "System.Error.EBUSY": UnitExists,  # the unit has appeared while its properties were set
    "org.freedesktop.systemd1.NoSuchUnit": NoSuchUnit,
}


def bus_error(name: str, text: str) -> BusError:
    """Return the error for a D-Bus name."""
    return _ERRORS.get(name, BusError)(name, text)
