"""The verb status: which models lie where, what waits, and why a model had to leave."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import NO_MODEL, print_json, print_named_table, say
from mmd.quantities import age_text, size_text

if TYPE_CHECKING:
    from mmd.cli.via_gateway import RequestCounts
    from mmd.control.state.devices import DeviceUse
    from mmd.control.state.status import Status

_MAX_UNLOADED = 3
_SIZE_WIDTH = 10  # columns

Row = tuple[str, str, str]


@click.command()
@parameters.as_json
def status(as_json: bool) -> None:
    """Show the running models, and what uses the memory of each device."""
    now, requests = wait_for(_read())
    if as_json:
        print_json(now)
    else:
        _print_status(now, requests)


async def _read() -> tuple[Status, RequestCounts]:
    from mmd.cli.via_gateway import requests_of_gateway
    from mmd.control.state.status import current_status

    return await current_status(), await requests_of_gateway()


def _print_status(now: Status, requests: RequestCounts) -> None:
    rows = list(model_rows(now, requests))
    if rows:
        print_named_table(("MODEL", "STATUS", ""), rows)
    else:
        from mmd.registry.store import Registry

        say("No model is running. Start one: mmd activate ID" if Registry().has_models() else NO_MODEL)
    for tunnel in now.exposed:
        click.echo(f"{tunnel.id} is exposed: {tunnel.url}")
    if unloaded := list(unloaded_rows(now, datetime.now(UTC))):
        click.echo()
        print_named_table(("UNLOADED", "AGO", "FOR", "WHY"), unloaded)
    click.echo()
    for device in now.devices:
        click.echo("\n".join(device_lines(device, now)))
    if not now.resources.gpus:
        click.echo("GPU: none found")


def model_rows(now: Status, requests: RequestCounts) -> Iterator[Row]:
    """Yield a row for each model that runs, has failed, or is waited for."""
    rows = [*_resident_rows(now), *_other_rows(now)]
    yield from ((name, state, _joined(text, _request_text(name, requests))) for name, state, text in rows)
    shown = {name for name, _, _ in rows}
    yield from ((name, "waiting", _request_text(name, requests)) for name in requests.waiting if name not in shown)


def _resident_rows(now: Status) -> Iterator[Row]:
    for one in sorted(now.resident, key=lambda one: (one.id != now.active, one.id)):
        yield one.id, "active" if one.id == now.active else "resident", "ready"


def _other_rows(now: Status) -> Iterator[Row]:
    for starting in now.starting:
        yield starting.id, "starting", f"for {starting.seconds:.1f} s{_expected(starting.expected_seconds, 'takes')}"
    for sleeping in now.sleeping:
        text = f"level {sleeping.level}, {size_text(sleeping.ram_bytes)} of RAM"
        yield sleeping.id, "sleeping", f"{text}{_expected(sleeping.wake_seconds, 'wakes in')}"
    for stranded in now.stranded:
        yield stranded.id, "stranded", f"awake without its token; the next swap ends it, or: mmd stop {stranded.id}"
    for failed in now.failed:
        yield failed.id, "failed", f"{failed.reason}; mmd logs {failed.id}"
    asleep = {one.id for one in now.sleeping}
    for name in now.away:
        if name not in asleep:
            yield name, "suspended", "restored when the machine resumes"
    for lease in now.leases:
        yield f"lease {lease.name}", lease.state, lease.program


def unloaded_rows(now: Status, at: datetime) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each model that a swap unloaded, the latest first."""
    for one in now.unloaded[:_MAX_UNLOADED]:
        age_seconds = max(0.0, (at - datetime.fromisoformat(one.at)).total_seconds())
        yield one.id, age_text(age_seconds), one.unloaded_for, one.why


def device_lines(device: DeviceUse, now: Status) -> Iterator[str]:
    """Yield a device, then what lies there: models, leases and other programs."""
    title = device.name if device.index is None else f"GPU {device.index}: {device.name}"
    yield f"{title}, {size_text(device.free_bytes)} of {size_text(device.total_bytes)} free"
    holders = [(name, size, text) for name, size, text in _holders(device, now) if size]
    if not holders and device.mmd_bytes:
        holders.append(("models", device.mmd_bytes, ""))  # units of mmd 0.1 do not say what each of them holds
    if device.others_bytes:
        holders.append(("other programs", device.others_bytes, ""))
    for name, size, text in holders:
        yield f"{size_text(size):>{_SIZE_WIDTH}}  {name}{f', {text}' if text else ''}"


def _holders(device: DeviceUse, now: Status) -> Iterator[tuple[str, int, str]]:
    for one in now.resident:
        used = f"{size_text(one.used[device.id])} used" if device.id in one.used else ""
        yield one.id, one.devices.get(device.id, 0), used
    for starting in now.starting:
        yield starting.id, starting.devices.get(device.id, 0), "starting"
    for stranded in now.stranded:
        yield stranded.id, stranded.devices.get(device.id, 0), "stranded"
    for sleeping in now.sleeping:
        in_ram = sleeping.ram_bytes if device.index is None else 0
        yield sleeping.id, sleeping.devices.get(device.id, 0) + in_ram, "asleep"
    for lease in now.leases:
        yield f"lease {lease.name}", lease.devices.get(device.id, 0), lease.program


def _request_text(model_id: str, requests: RequestCounts) -> str:
    """Return "requests: 2 running, 1 waiting for the responses of qwen3"; "" if there are none."""
    others = " and ".join(requests.waits_for.get(model_id, ()))
    waiting = f"waiting for the responses of {others}" if others else "waiting"
    counts = [(requests.in_flight.get(model_id, 0), "running"), (requests.waiting.get(model_id, 0), waiting)]
    texts = [f"{count} {what}" for count, what in counts if count]
    return f"requests: {', '.join(texts)}" if texts else ""


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _expected(seconds: float | None, verb: str) -> str:
    return "" if seconds is None else f", {verb} {seconds:.1f} s"
