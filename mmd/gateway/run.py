"""`mmd gateway`: run the gateway over the user manager."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

from mmd.control.lifecycle.controller import Controller
from mmd.control.lifecycle.memory_pressure import PressureRelief, PsiMonitor
from mmd.control.memory.measurement_scheduler import MeasurementScheduler
from mmd.control.state.last_resident import ResidentRecorder
from mmd.errors import CannotListen, ManagerUnreachable, MmdError, WrongUsage
from mmd.gateway.http.api_keys import Keyring
from mmd.gateway.http.limits import Limits
from mmd.gateway.http.listener_kind import ListenerKind
from mmd.gateway.http.origins import AllowedHosts, own_hostnames
from mmd.gateway.http.policy import RequestPolicy
from mmd.gateway.http.sockets import AddressTaken, Listener, bind_tcp, bind_unix, inherited_listeners, keys_required
from mmd.gateway.schedule.systemd_models import SystemdModels
from mmd.gateway.serve import serve
from mmd.paths import gateway_socket
from mmd.setting_values import is_listen
from mmd.settings import Settings
from mmd.tasks import keep_running, spawn
from mmd.units.bus import Manager
from mmd.units.watch import Watch

_log = logging.getLogger(__name__)


def run(listen: str | None, report: Callable[[str], None]) -> None:
    """Serve until a signal. Uses systemd's sockets if it passed any; otherwise binds `listen` (HOST:PORT, default: from
    mmd.toml), the embedding address and the Unix socket, and reports them with `report`.
    """
    if listen is not None and not is_listen(listen):
        raise WrongUsage(f"{listen!r} is not HOST:PORT", hint="mmd gateway --listen 127.0.0.1:8000")
    asyncio.run(_serve(listen, report))


async def _serve(listen: str | None, report: Callable[[str], None]) -> None:
    async with AsyncExitStack() as stack:
        controller = await stack.enter_async_context(Controller())
        settings = controller.settings
        limits = Limits(
            drain_seconds=settings.gateway.drain_seconds or math.inf,
            max_wait_seconds=settings.gateway.max_wait_seconds,
            min_residency_seconds=settings.gateway.min_residency_seconds,
        )
        watch = Watch(controller.manager)
        await watch.refresh()
        models = SystemdModels(controller, watch)
        relief = PressureRelief(controller, stack.enter_context(PsiMonitor()))
        keyring = Keyring()
        try:
            listeners = stack.enter_context(_listeners(settings, listen, report, keyring))
        except AddressTaken as error:
            raise await _name_owner(error, controller.manager) from error
        policy = _policy(settings, limits, listeners, keyring)
        follows_sleep, yields = settings.gateway.suspend == "release", settings.gpu.games == "yield"
        # The first task to end ends all: without the bus or the watch the state of the units would be stale, so systemd
        # restarts the gateway. No TaskGroup: it would wrap the error that the user sees.
        tasks = [
            spawn(name, work, logs=False)
            for name, work in {
                "gateway": serve(
                    models,
                    listeners,
                    limits=limits,
                    policy=policy,
                    follows_sleep=follows_sleep,
                    yields_to_games=yields,
                ),
                "unit watch": watch.run(),
                "memory pressure": keep_running("memory pressure", relief.run),
                "resident record": keep_running("resident record", ResidentRecorder(controller.manager, watch).run),
                "measurements": keep_running("measurements", MeasurementScheduler(controller.manager, watch).run),
                "bus": _until_closed(controller),
            }.items()
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


@contextmanager
def _listeners(
    settings: Settings, listen: str | None, report: Callable[[str], None], keyring: Keyring
) -> Iterator[Sequence[Listener]]:
    """Yield systemd's sockets, or bind new ones and close them at the end. Raises CannotListen if the main address
    cannot be bound, and what `_require_keys` raises.
    """
    passed = inherited_listeners()
    if passed:
        if settings.gateway.embedding_listen and all(one.kind is not ListenerKind.EMBEDDING for one in passed):
            _log.warning("systemd passed no embedding socket: systemctl --user status mmd-embedding.socket")
        _require_keys(passed, keyring)
        yield passed
        return
    own = [bind_tcp(*_address(listen or settings.gateway.listen))]
    for bind in _other_listeners(settings):
        try:
            own.append(bind())
        except MmdError as error:
            report(f"{error.message}; the gateway continues without it: {error.hint}")
    try:
        _require_keys(own, keyring)
        report("The gateway listens on " + ", ".join(map(str, own)))
        yield own
    finally:
        for listener in own:
            listener.socket.close()
            if listener.kind is ListenerKind.LOCAL:
                gateway_socket().unlink(missing_ok=True)


async def _name_owner(error: AddressTaken, manager: Manager) -> MmdError:
    """Name the unit if the installed gateway has the address: `ss` would only show systemd."""
    from mmd.control.install.service import socket_unit_at

    unit = await socket_unit_at(manager, error.port)
    if unit is None:
        return error
    hint = f"systemctl --user stop 'mmd*.socket' mmd.service   # or: mmd gateway --listen 127.0.0.1:{error.port + 1}"
    return CannotListen(f"{error.message}: {unit} listens there, for mmd.service", hint=hint)


def _other_listeners(settings: Settings) -> Iterator[Callable[[], Listener]]:
    if address := settings.gateway.embedding_listen:
        yield lambda: bind_tcp(*_address(address), ListenerKind.EMBEDDING)
    yield lambda: bind_unix(gateway_socket())


def _require_keys(listeners: Sequence[Listener], keyring: Keyring) -> None:
    """Raises WrongUsage if other machines could connect and no key exists."""
    exposed = [listener for listener in listeners if listener.is_exposed]
    if exposed and not keyring.current():
        raise keys_required(str(exposed[0]))


def _policy(settings: Settings, limits: Limits, listeners: Sequence[Listener], keyring: Keyring) -> RequestPolicy:
    is_exposed = any(listener.is_exposed for listener in listeners)
    hosts = {*settings.gateway.hosts, *(own_hostnames() if is_exposed else ())}
    return RequestPolicy(limits, hosts=AllowedHosts(hosts, settings.gateway.origins), keyring=keyring)


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    return host, int(port)


async def _until_closed(controller: Controller) -> None:
    await controller.manager.closed()
    raise ManagerUnreachable("the connection to the user manager ended", hint="systemctl --user status")
