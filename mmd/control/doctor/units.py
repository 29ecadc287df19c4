"""Check mmd's own units: installed, up to date, enabled."""

from __future__ import annotations

from collections.abc import Iterator

from mmd import __version__
from mmd.control.doctor.diagnosis import Diagnosis, failed, ok, warning
from mmd.control.install.inspection import InstallKind, InstallState
from mmd.units.unit_files import GATEWAY, NEEDED, PACKAGED_COMMAND

_REINSTALL = "mmd install   # rewrites and enables the units; models and settings stay"


def check_units(state: InstallState) -> Iterator[Diagnosis]:
    if state.kind is InstallKind.NONE:
        yield warning("not installed: no gateway, and no model is loaded at startup", "mmd install")
        return
    wrong = list(_problems(state))
    if not wrong:
        where = "from the package" if state.kind is InstallKind.PACKAGED else "in your own unit folder"
        wrong.append(ok(f"up to date and enabled ({where})"))
    yield from wrong


def _problems(state: InstallState) -> Iterator[Diagnosis]:
    if state.masked:
        report = failed if set(NEEDED) & set(state.masked) else warning
        names = " ".join(state.masked)
        yield report(
            f"masked, so systemd never starts them: {names}", f"systemctl --user unmask {names} && mmd install"
        )
    if state.program and not state.is_this:  # a masked unit starts none
        yield warning(f"the gateway's unit starts another mmd: {state.program}", _how_to_start_this(state))
    if state.shadowing:
        yield warning(f"{_listed(state.shadowing)} overrides the unit of the package", _REINSTALL)
    elif state.outdated:
        yield warning(f"out of date (another mmd version, or mmd.toml changed): {_listed(state.outdated)}", _REINSTALL)
    if state.other_path:
        yield warning(
            "units have another PATH than this shell, and may find other engines",
            "mmd install   # gives them the PATH of this shell",
        )
    if state.dangling:
        yield warning(f"enabled, but the unit file is gone: {_listed(state.dangling)}", _REINSTALL)
    elif state.disabled:
        yield warning(f"not enabled, so not started at login or boot: {_listed(state.disabled)}", _REINSTALL)
    if state.unread:
        yield warning(
            f"changed on disk since systemd read them: {_listed(state.unread)}", "systemctl --user daemon-reload"
        )
    if state.has_old_gateway:
        yield warning(
            f"the running gateway has version {state.gateway_version}; this is {__version__}",
            f"systemctl --user restart {GATEWAY}   # no request is lost",
        )


def _how_to_start_this(state: InstallState) -> str:
    if state.kind is InstallKind.PACKAGED or state.shadowing:  # `mmd install` keeps using the package's units
        return f"{PACKAGED_COMMAND} doctor   # the package's mmd; to use this one: sudo apt remove mmd && mmd install"
    return "mmd install   # makes the units start this mmd"


def _listed(things: tuple[object, ...]) -> str:
    return f"{things[0]}" + (f" and {len(things) - 1} more" if len(things) > 1 else "")
