"""The table of checks, and how it is gone through.

First stands what others depend on: a thing that cannot be read is the failure of the first check that wants it, and
those after it are not looked at.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mmd.control.doctor.cgroups import judge_cgroups
from mmd.control.doctor.engines import judge_engines, judge_use_of_gpu
from mmd.control.doctor.failures import judge_failures
from mmd.control.doctor.finding import Finding, State, Verdict, failed, ok
from mmd.control.doctor.hub import judge_access
from mmd.control.doctor.left_running import nothing_left_running
from mmd.control.doctor.lingering import judge_lingering
from mmd.control.doctor.manager import judge_manager
from mmd.control.doctor.memory import judge_ram
from mmd.control.doctor.models import judge_model_files, judge_served, judge_tables
from mmd.control.doctor.nvidia import judge_driver
from mmd.control.doctor.places import judge_places, judge_sockets
from mmd.control.doctor.ports import ListeningSocket, judge_doors, judge_status
from mmd.control.doctor.reading import NotRead
from mmd.control.doctor.restarting import judge_gateway
from mmd.control.doctor.seen import Seen
from mmd.control.doctor.storage import judge_file_systems
from mmd.control.doctor.suspend import judge_suspend
from mmd.control.doctor.units import judge_units
from mmd.control.doctor.vram import judge_vram
from mmd.control.install.inspection import Kind, by_socket
from mmd.control.models.startup import default_of, startups
from mmd.errors import WrongUsage
from mmd.paths import config_file

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    judge: Callable[[Seen], Iterable[Verdict]]  # may raise NotRead


def examine(*, offline: bool = False) -> tuple[Finding, ...]:
    """Everything there is to find, in the order of the table; what is wrong first is the cause of what is wrong later.

    Nothing is changed, and nothing waited for longer than its reading's limit. Offline the hub is not asked.
    """
    with nothing_left_running():
        return judged(Seen(offline=offline), CHECKS)


def judged(seen: Seen, checks: Iterable[Check]) -> tuple[Finding, ...]:
    blamed: dict[object, str] = {}  # what could not be read, and the check that says so
    return tuple(verdict.of(check.name) for check in checks for verdict in _verdicts(check, seen, blamed))


def _verdicts(check: Check, seen: Seen, blamed: dict[object, str]) -> Iterator[Verdict]:
    try:
        yield from check.judge(seen)
    except NotRead as failure:
        yield _told_once(failure.what, failure.verdict, check, blamed)
    except Exception as error:  # noqa: BLE001  a fault of mmd's, which is not to hide what else is wrong
        if error not in blamed:  # several checks may ask for what could not be read
            _log.warning("the check of %s failed", check.name, exc_info=True)
        yield _told_once(error, _fault(error), check, blamed)


def _told_once(cause: object, verdict: Verdict, check: Check, blamed: dict[object, str]) -> Verdict:
    if cause in blamed:
        return Verdict(State.SKIPPED, f"not looked at, see: {blamed[cause]}")
    blamed[cause] = check.name
    return verdict


def _fault(error: Exception) -> Verdict:
    why = str(error).partition("\n")[0]
    return failed(
        f"mmd could not look at this: {type(error).__name__}: {why}",
        "mmd doctor 2>&1 >/dev/null   # the whole of it: please report that",
    )


# -- the checks


def _settings(seen: Seen) -> Iterator[Verdict]:
    settings = seen.settings.value()
    try:
        default = default_of(settings)
    except WrongUsage as error:
        yield failed(error.message, error.hint)
    else:
        what = str(config_file()) if seen.has_settings.value() else "none, so the defaults hold"
        yield ok(f"{what}; the default model is {default}" if default else what)


def _registry(seen: Seen) -> Iterator[Verdict]:
    models = seen.models.value()
    yield ok(f"{len(models)} model{'s' if len(models) != 1 else ''}")


def _gateway(seen: Seen) -> Iterator[Verdict]:
    manager, installation, listeners = seen.manager.value(), seen.installation.value(), seen.listeners.value()
    units = {address: unit for unit, address in by_socket(seen.addresses.value()).items()}
    doors = [
        ListeningSocket(
            address, units[address], address in manager.listening, units[address] in installation.masked, listener
        )
        for address, listener in listeners.items()
    ]
    yield from judge_doors(doors, is_installed=installation.kind is not Kind.NONE)
    yield from judge_gateway(manager.restarting)
    if (status := seen.gateway.value()) is not None:
        yield from judge_status(status)


def _ram(seen: Seen) -> Iterator[Verdict]:
    manager, driver = seen.manager.value_or_none(), seen.driver.value_or_none()
    yield from judge_ram(
        seen.ram.value(),
        seen.models.value_or_none() or (),
        manager.sleeping if manager else (),
        has_gpu=driver is not None and bool(driver.gpus),
    )


def _suspend(seen: Seen) -> Iterator[Verdict]:
    if seen.settings.value().gateway.suspend == "leave":
        yield ok("models stay on the GPU, as mmd.toml says")
    else:
        driver = seen.driver.value_or_none()
        yield from judge_suspend(seen.sleep_lock.value(), has_gpu=driver is not None and bool(driver.gpus))


def _use_of_gpu(seen: Seen) -> Iterator[Verdict]:
    driver = seen.driver.value()
    yield from judge_use_of_gpu(seen.engines.value(), seen.devices.value(), seen.torch.value(), driver)


def _models(seen: Seen) -> Iterator[Verdict]:
    models = seen.models.value()
    yield from judge_model_files(seen.model_files.value())
    settings = seen.settings.value()
    yield from judge_tables(settings, [model.id for model in models], startups(settings))
    yield from judge_served(models, seen.engines.value(), settings)


def _hub(seen: Seen) -> Iterator[Verdict]:
    if seen.hub is None:
        yield Verdict(State.SKIPPED, "not asked: --offline")
    else:
        yield from judge_access(seen.hub)


CHECKS = (
    Check("user manager", lambda seen: judge_manager(seen.manager.value())),
    Check("settings", _settings),
    Check("registry", _registry),
    Check("folders", lambda seen: judge_places(seen.places.value())),
    Check("lingering", lambda seen: judge_lingering(seen.lingering.value())),
    Check("control groups", lambda seen: judge_cgroups(seen.cgroups.value())),
    Check("units", lambda seen: judge_units(seen.installation.value())),
    Check("gateway", _gateway),
    Check("sockets", lambda seen: judge_sockets(seen.sockets.value())),
    Check("NVIDIA driver", lambda seen: judge_driver(seen.driver.value())),
    Check("GPU memory", lambda seen: judge_vram(seen.driver.value().gpus)),
    Check("suspend", _suspend),
    Check("RAM", _ram),
    Check("disk", lambda seen: judge_file_systems(seen.file_systems.value())),
    Check("engines", lambda seen: judge_engines(seen.engines.value())),
    Check("use of the GPU", _use_of_gpu),
    Check("models", _models),
    Check("hub", _hub),
    Check("failures", lambda seen: judge_failures(seen.failures)),
)
