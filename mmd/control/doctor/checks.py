"""The table of checks, and the loop that runs it.

A check stands after the checks it depends on. If a value cannot be read, the first check that needs it fails, and
later checks that need it are skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from mmd.control.doctor.background_read import ReadFailed, kill_new_children
from mmd.control.doctor.cgroups import check_cgroups
from mmd.control.doctor.diagnosis import CheckResult, Diagnosis, Level, failed, ok
from mmd.control.doctor.disk import check_disks
from mmd.control.doctor.engines import check_builds, check_engines
from mmd.control.doctor.failures import check_failures
from mmd.control.doctor.folders import check_folders, check_sockets
from mmd.control.doctor.hub import check_hub
from mmd.control.doctor.lingering import check_lingering
from mmd.control.doctor.manager import check_manager
from mmd.control.doctor.memory import check_ram
from mmd.control.doctor.models import check_model_files, check_served, check_setups, check_tables
from mmd.control.doctor.nvidia import check_driver
from mmd.control.doctor.ports import GatewayAddress, check_addresses, check_health
from mmd.control.doctor.readings import Readings
from mmd.control.doctor.residents import DeviceHolders, check_residents
from mmd.control.doctor.restart_loops import check_restart_loop
from mmd.control.doctor.suspend import check_suspend
from mmd.control.doctor.units import check_units
from mmd.control.doctor.vram import check_vram
from mmd.control.install.inspection import InstallKind, addresses_by_socket
from mmd.control.models.startup import default_of, startups
from mmd.control.state.devices import devices_now
from mmd.errors import WrongUsage
from mmd.paths import config_file
from mmd.plan.boot import Default, DefaultKind
from mmd.plan.pressure import Ram
from mmd.units.watch import leases_of, pairs_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Check:
    """A row of the table. To add a check: write a function from readings to diagnoses, and a row below its inputs."""

    name: str
    run: Callable[[Readings], Iterable[Diagnosis]]  # may raise ReadFailed


def run_checks(*, offline: bool = False) -> tuple[CheckResult, ...]:
    """Run all checks, in the order of the table: the first failure is the cause of those after it.

    Changes nothing. Each read has a time limit. With `offline`, no request is sent to the hub.
    """
    with kill_new_children():
        return run_all(Readings(offline=offline), CHECKS)


def run_all(readings: Readings, checks: Iterable[Check]) -> tuple[CheckResult, ...]:
    """Run checks in order. A cause is reported by the first check that meets it; the others are skipped."""
    blamed: dict[object, str] = {}  # what could not be read -> name of the check that reports it
    return tuple(diagnosis.of(check.name) for check in checks for diagnosis in _diagnoses(check, readings, blamed))


def _diagnoses(check: Check, readings: Readings, blamed: dict[object, str]) -> Iterator[Diagnosis]:
    try:
        yield from check.run(readings)
    except ReadFailed as failure:
        yield _blame_once(failure.what, failure.diagnosis, check, blamed)
    except Exception as error:  # noqa: BLE001  a bug in one check must not hide the results of the others
        if error not in blamed:  # several checks may ask for the same failed value
            _log.warning("check failed: %s", check.name, exc_info=True)
        yield _blame_once(error, _bug(error), check, blamed)


def _blame_once(cause: object, diagnosis: Diagnosis, check: Check, blamed: dict[object, str]) -> Diagnosis:
    if cause in blamed:
        return Diagnosis(Level.SKIPPED, f"skipped, see: {blamed[cause]}")
    blamed[cause] = check.name
    return diagnosis


def _bug(error: Exception) -> Diagnosis:
    why = str(error).partition("\n")[0]
    return failed(
        f"this check failed by a bug in mmd: {type(error).__name__}: {why}",
        "mmd doctor 2>&1 >/dev/null   # prints the traceback: please report it",
    )


# -- the checks


def _settings(readings: Readings) -> Iterator[Diagnosis]:
    settings = readings.settings.value()
    try:
        default = default_of(settings)
    except WrongUsage as error:
        yield failed(error.message, error.hint)
    else:
        what = str(config_file()) if readings.has_settings.value() else "no mmd.toml: all defaults"
        yield ok(f"{what}; {_what_boot_loads(default)}" if default else what)


def _what_boot_loads(default: Default) -> str:
    if default.kind is DefaultKind.LAST:
        return "a boot restores what was resident before"
    return f"the default {default.kind} is {default.name}"


def _registry(readings: Readings) -> Iterator[Diagnosis]:
    models = readings.models.value()
    yield ok(f"{len(models)} model{'s' if len(models) != 1 else ''}")


def _gateway(readings: Readings) -> Iterator[Diagnosis]:
    manager, here, owners = readings.manager.value(), readings.install_state.value(), readings.port_owners.value()
    units = {address: unit for unit, address in addresses_by_socket(readings.addresses.value()).items()}
    addresses = [
        GatewayAddress(address, units[address], address in manager.listening, units[address] in here.masked, owner)
        for address, owner in owners.items()
    ]
    yield from check_addresses(addresses, is_installed=here.kind is not InstallKind.NONE)
    yield from check_restart_loop(manager.restarting)
    if (status_line := readings.health.value()) is not None:
        yield from check_health(status_line)


def _ram(readings: Readings) -> Iterator[Diagnosis]:
    manager, driver = readings.manager.value_or_none(), readings.driver.value_or_none()
    yield from check_ram(
        readings.ram.value(),
        readings.models.value_or_none() or (),
        manager.sleeping if manager else (),
        has_gpu=driver is not None and bool(driver.gpus),
    )


def _residents(readings: Readings) -> Iterator[Diagnosis]:
    manager, driver, ram = readings.manager.value(), readings.driver.value_or_none(), readings.ram.value()
    gpus = driver.gpus if driver else ()
    pairs, leases = pairs_of(manager.units), leases_of(manager.units)
    here = Ram(ram.available_bytes, ram.total_bytes)
    settings = readings.settings.value_or_none()
    safe_maximum = settings.gpu.safe_maximum if settings else None
    devices = devices_now(gpus, here, pairs, leases, safe_maximum=safe_maximum)
    yield from check_residents(DeviceHolders(pairs, leases, gpus, devices))


def _suspend(readings: Readings) -> Iterator[Diagnosis]:
    if readings.settings.value().gateway.suspend == "leave":
        yield ok('models stay on the GPU: mmd.toml has suspend = "leave"')
    else:
        driver = readings.driver.value_or_none()
        yield from check_suspend(readings.sleep_lock.value(), has_gpu=driver is not None and bool(driver.gpus))


def _gpu_builds(readings: Readings) -> Iterator[Diagnosis]:
    driver = readings.driver.value()
    yield from check_builds((build.value() for build in readings.builds), driver)


def _models(readings: Readings) -> Iterator[Diagnosis]:
    models = readings.models.value()
    yield from check_model_files(readings.model_files.value())
    settings = readings.settings.value()
    yield from check_tables(settings, [model.id for model in models], startups(settings))
    yield from check_setups(settings, {model.id: model for model in models})
    yield from check_served(models, readings.engines.value(), settings)


def _hub(readings: Readings) -> Iterator[Diagnosis]:
    if readings.hub is None:
        yield Diagnosis(Level.SKIPPED, "skipped: --offline")
    else:
        yield from check_hub(readings.hub)


CHECKS = (
    Check("user manager", lambda readings: check_manager(readings.manager.value())),
    Check("settings", _settings),
    Check("registry", _registry),
    Check("folders", lambda readings: check_folders(readings.folders.value())),
    Check("lingering", lambda readings: check_lingering(readings.lingering.value())),
    Check("control groups", lambda readings: check_cgroups(readings.cgroups.value())),
    Check("units", lambda readings: check_units(readings.install_state.value())),
    Check("gateway", _gateway),
    Check("sockets", lambda readings: check_sockets(readings.sockets.value())),
    Check("NVIDIA driver", lambda readings: check_driver(readings.driver.value())),
    Check("GPU memory", lambda readings: check_vram(readings.driver.value().gpus)),
    Check("residents", _residents),
    Check("suspend", _suspend),
    Check("RAM", _ram),
    Check("disk", lambda readings: check_disks(readings.disks.value())),
    Check("engines", lambda readings: check_engines(readings.engines.value())),
    Check("use of the GPU", _gpu_builds),
    Check("models", _models),
    Check("hub", _hub),
    Check("failures", lambda readings: check_failures(readings.failures)),
)
