"""mmd's own units: whether they are there, as this version writes them, and start with the machine."""

from __future__ import annotations

from collections.abc import Iterator

from mmd import __version__
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.install.inspection import InstallKind, InstallState
from mmd.units.unit_files import GATEWAY, NEEDED, PACKAGED_COMMAND

_MENDED_BY = "mmd install   # writes them anew, enables them, and keeps models and settings"


def check_units(here: InstallState) -> Iterator[Diagnosis]:
    if here.kind is InstallKind.NONE:
        yield warning("not installed: there is no gateway, and nothing is loaded at startup", "mmd install")
        return
    wrong = list(_problems(here))
    if not wrong:
        where = "the package's" if here.kind is InstallKind.PACKAGED else "in your own folder"
        wrong.append(ok(f"up to date and enabled, {where}"))
    yield from wrong


def _problems(here: InstallState) -> Iterator[Diagnosis]:
    if here.masked:
        say = failed if set(NEEDED) & set(here.masked) else warning
        names = " ".join(here.masked)
        yield say(f"masked, which says never to run them: {names}", f"systemctl --user unmask {names} && mmd install")
    if here.program and not here.is_this:  # a masked unit starts none
        yield warning(f"the gateway's unit starts another mmd: {here.program}", _how_to_start_this(here))
    if here.shadowing:
        yield warning(f"{_listed(here.shadowing)} hides what the package brings", _MENDED_BY)
    elif here.outdated:
        yield warning(f"not as this version or mmd.toml has them: {_listed(here.outdated)}", _MENDED_BY)
    if here.other_path:
        yield warning(
            "units look for engines on another PATH than this shell", "mmd install   # on this shell's from then on"
        )
    if here.dangling:
        yield warning(f"enabled, and the file is gone: {_listed(here.dangling)}", _MENDED_BY)
    elif here.disabled:
        yield warning(f"not enabled, so not started with the machine: {_listed(here.disabled)}", _MENDED_BY)
    if here.unread:
        yield warning(f"changed since systemd has read them: {_listed(here.unread)}", "systemctl --user daemon-reload")
    if here.has_old_gateway:
        yield warning(
            f"the gateway that runs is of version {here.gateway_version}, and this is {__version__}",
            f"systemctl --user restart {GATEWAY}   # loses no request",
        )


def _how_to_start_this(here: InstallState) -> str:
    if here.kind is InstallKind.PACKAGED or here.shadowing:  # `mmd install` leaves the package's units to be used
        return f"{PACKAGED_COMMAND} doctor   # the package's mmd; or for this one: sudo apt remove mmd && mmd install"
    return "mmd install   # starts this one from then on"


def _listed(things: tuple[object, ...]) -> str:
    return f"{things[0]}" + (f" and {len(things) - 1} more" if len(things) > 1 else "")
