"""What `mmd status` prints: who lies where, what waits, and why a model had to leave."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mmd import __version__
from mmd.cli.lifecycle import event_text
from mmd.cli.status import device_lines, model_rows, unloaded_rows
from mmd.cli.via_gateway import RequestCounts, requests_of_gateway
from mmd.codec import convert
from mmd.control.install.presence import Presence
from mmd.control.state.status import Status, Stranded
from mmd.control.state.swap_events import SwapEvent
from mmd.quantities import GIB
from tests.page import scene

QWEN, GEMMA = "qwen3-8b-q4_k_m", "gemma-3-12b-it-qat-q4_0"


@pytest.fixture
def now() -> Status:
    return convert(scene.status(), Status)


def test_active_model_is_first_with_its_requests(now: Status) -> None:
    rows = list(model_rows(now, RequestCounts({QWEN: 2}, {QWEN: 1, GEMMA: 3})))
    assert rows[0] == (QWEN, "active", "ready; requests: 2 running, 1 waiting")
    assert (GEMMA, "sleeping", "level 1, 8.0 GiB of RAM, wakes in 1.9 s; requests: 3 waiting") in rows


def test_model_that_only_waits_has_a_row(now: Status) -> None:
    requests = RequestCounts({}, {"bge": 1}, {"bge": (QWEN,)})
    text = f"requests: 1 waiting for the responses of {QWEN}"
    assert list(model_rows(now, requests))[-1] == ("bge", "waiting", text)


def test_lease_has_a_row_with_its_program(now: Status) -> None:
    assert ("lease blender", "held", "blender -b scene.blend -a") in list(model_rows(now, RequestCounts()))


def test_stranded_engine_is_shown_as_what_it_is(now: Status) -> None:
    stranded = replace(now, stranded=(Stranded("s", {"GPU-1": 3 * GIB}),))
    (row,) = (row for row in model_rows(stranded, RequestCounts()) if row[0] == "s")
    assert row[1:] == ("stranded", "awake without its token; the next swap ends it, or: mmd stop s")
    assert "   3.0 GiB  s, stranded" in device_lines(now.devices[0], stranded)


def test_device_shows_models_leases_and_other_programs(now: Status) -> None:
    first, second, ram = ([*device_lines(device, now)] for device in now.devices)
    assert first == [
        "GPU 0: NVIDIA GeForce RTX 4070, 2.2 GiB of 12.0 GiB free",
        "   1.0 GiB  nomic-embed-text-v1.5-f16",
        "   8.0 GiB  qwen3-8b-q4_k_m, 7.0 GiB used",
        "   1.5 GiB  qwen3-4b-awq, asleep",
        "   0.9 GiB  other programs",
    ]
    assert "   4.0 GiB  lease blender, blender -b scene.blend -a" in second
    assert ram[:2] == ["RAM, 9.8 GiB of 31.2 GiB free", "   8.0 GiB  gemma-3-12b-it-qat-q4_0, asleep"]


def test_models_of_older_units_share_one_line(now: Status) -> None:
    """Units of mmd 0.1 do not say what their model holds."""
    older = replace(now, resident=(), starting=(), sleeping=(), leases=())
    assert "   8.9 GiB  models" in device_lines(now.devices[0], older)


def test_unloaded_model_has_the_reason(now: Status) -> None:
    at = datetime.fromisoformat(now.unloaded[0].at) + timedelta(minutes=4, seconds=1)
    assert list(unloaded_rows(now, at.astimezone(UTC))) == [
        (GEMMA, "4 min", QWEN, "the least recently used whose memory is enough")
    ]


async def test_gateway_that_does_not_answer_has_no_requests() -> None:
    """Its lock is held, but nothing listens on its socket."""
    presence = Presence()
    presence.announce(__version__)
    try:
        assert await requests_of_gateway() == RequestCounts()
    finally:
        presence.withdraw()


def test_event_names_each_model_that_left_with_the_reason() -> None:
    event = convert(
        scene.swap("new", 0, evicted=["a", "b"], why_evicted={"b": "in use"}, phases={"load": 2}), SwapEvent
    )
    assert event_text(event) == "load 2.00; a unloaded; b unloaded (in use)"
