"""Exceptions in the gateway's own tasks: no request waits forever, and the loops continue."""

from __future__ import annotations

import asyncio

import pytest

from mmd import tasks
from mmd.gateway.schedule.state import SchedulerState
from tests.gateway_peer import PATIENCE_SECONDS, harness, post, until
from tests.unit.gateway.schedule.test_suspend import awake, prepared


async def test_scheduler_failure_reaches_its_waiters(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They waited forever, and the exception was logged when the task was collected, if at all."""
    async with harness("a", "b", "c") as running:
        scheduler = running.gateway.scheduler
        running.models.held["b"] = asyncio.Event()
        clients = [await running.client() for _ in range(3)]
        asking = [
            asyncio.create_task(client.ask(post({"model": name})))
            for client, name in zip(clients, ("b", "c", "c"), strict=True)
        ]
        await until(lambda: "activate b" in running.models.log and scheduler.waiting_count == 3)

        def broken(self: SchedulerState, now: float) -> None:
            monkeypatch.undo()
            raise FileNotFoundError("events.jsonl")

        monkeypatch.setattr(SchedulerState, "_decide", broken)
        running.models.held["b"].set()
        answers = await asyncio.gather(*asking)
        assert [answer.status for answer in answers] == [200, 503, 503]
        assert answers[1].headers["retry-after"] == "1"
        assert answers[1].json()["error"]["message"] == "the gateway's scheduler failed"
        assert "events.jsonl" in caplog.text
        assert (await clients[0].ask(post({"model": "c"}))).status == 200
        assert scheduler.waiting_count == 0


async def test_listener_failure_leaves_no_request_behind() -> None:
    async with harness("a", "b") as running:
        scheduler = running.gateway.scheduler
        failing = [True]

        def listener() -> None:
            if failing.pop():
                failing.append(False)
                raise ValueError("a listener")
            failing.append(False)

        scheduler.follow(listener)
        client = await running.client()
        assert (await client.ask(post({"model": "b"}))).status == 500
        assert (scheduler.waiting_count, list(scheduler.waiting_models)) == (0, [])
        assert (await client.ask(post({"model": "b"}))).status == 200


async def test_observer_loop_starts_again_and_spares_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One OSError in one of its loops ended events, history and metrics until a restart."""
    monkeypatch.setattr(tasks, "_MIN_BACKOFF_SECONDS", 0.0)
    async with harness("a") as running:
        readings = running.models.resources
        failures = [OSError("a reading"), OSError("another")]

        async def resources() -> object:
            if failures:
                raise failures.pop()
            return await readings()

        monkeypatch.setattr(running.models, "resources", resources)
        observer = running.gateway.observer
        await observer.end()
        observer.history.clear()
        observer.begin()
        await until(lambda: bool(observer.history.record().samples))
        assert caplog.text.count("memory history failed and starts again") == 2
        assert observer.running_count == 4


async def test_suspend_whose_clearing_fails_lets_requests_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with harness("a") as running:

        async def suspend(*, drain_seconds: float) -> None:
            raise OSError("no space")

        monkeypatch.setattr(running.models, "suspend", suspend)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await prepared(running)
        assert "no space" in caplog.text
        await awake(running)
        assert (await (await running.client()).ask(post({"model": "a"}))).status == 200
