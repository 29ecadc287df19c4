"""Suspend of the machine: the real gateway and real units under a fake logind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from dbus_fast import Message
from dbus_fast.aio import MessageBus

from mmd.control.doctor.suspend import SleepLock, read_sleep_lock
from mmd.control.state.suspended_models import suspended_models
from mmd.control.state.swap_events import recent
from mmd.gateway.schedule.suspend import SuspendWatch
from mmd.plan.residency import Pair, Residency, residency
from mmd.units.login1 import LockRefused, Login1, LogindAway
from mmd.units.watch import Pairs, Watch
from tests.fakes.login1 import FakeLogin1, fake_login1, private_bus
from tests.systemd.serving import running, serving
from tests.systemd.world import World, run_mmd, wait_for

PATIENCE_SECONDS = 30.0
LONG = {"chunks": 3000, "chunk_seconds": 0.02}  # a response that outlasts the wait


@pytest.fixture
def system_bus(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a bus that this process, and programs of the manager, take for the system's."""
    socket = world.manager.root / "system-bus"
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={socket}")
    world.manager.systemctl("set-environment", f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={socket}")
    with private_bus(socket):
        yield f"unix:path={socket}"
    world.manager.systemctl("unset-environment", "DBUS_SYSTEM_BUS_ADDRESS")


@pytest.fixture
def gpu(world: World) -> None:
    world.add_gpus(24)


class Scene:
    def __init__(self, client: httpx.AsyncClient, watch: Watch, login1: FakeLogin1) -> None:
        self.client = client
        self.watch = watch
        self.login1 = login1

    async def ask(self, name: str) -> str:
        answer = await self.client.post("/v1/chat/completions", json=_body(name))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["choices"][0]["message"]["content"])

    async def becomes(self, name: str, where: Residency) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.watch.until(lambda pairs: _is(where, name, pairs))


@asynccontextmanager
async def scene(world: World, system_bus: str, **logind: float) -> AsyncIterator[Scene]:
    """A gateway in this process, under this logind."""
    async with (
        fake_login1(system_bus, **logind) as login1,  # type: ignore[arg-type]
        serving(world) as at,
        running(at.watch.run(), SuspendWatch(at.gateway.suspension).run()),
        httpx.AsyncClient(base_url=at.address, timeout=PATIENCE_SECONDS) as client,
    ):
        if not login1.refuses:
            await login1.has_locks(1)
        yield Scene(client, at.watch, login1)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("can_sleep", [True, False])
async def test_model_leaves_the_gpu_and_comes_back(
    world: World, system_bus: str, can_sleep: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world.add("a", can_sleep=can_sleep)
    with caplog.at_level(logging.INFO):
        async with scene(world, system_bus) as at:
            await at.ask("a")
            [lock] = at.login1.locks
            assert (lock.what, lock.who, lock.mode) == ("sleep", "mmd", "delay")
            assert await at.login1.prepare() < at.login1.limit_seconds
            assert _is(Residency.ASLEEP if can_sleep else Residency.ABSENT, "a", at.watch.pairs)
            assert suspended_models() == ("a",)
            status = run_mmd("status").stdout.split("\n")[1]
            assert ("sleeping" if can_sleep else "restored when the machine resumes") in status
            asking = asyncio.create_task(at.ask("a"))
            at.login1.awaken()
            await at.becomes("a", Residency.RESIDENT)
            assert "a-0" in await asking
            await at.login1.has_locks(1)
            assert suspended_models() == ()
    suspend, back = recent(2)
    assert (suspend.outcome, suspend.model, suspend.why) == ("away", "a", "the machine suspends")
    assert set(suspend.phases) >= {"drain", "release"}
    assert (back.outcome, back.model) == ("resident", "a")
    assert back.why.startswith("the machine is awake again: ")
    said = {record.getMessage(): record.__dict__.get("MMD_MODEL") for record in caplog.records}
    assert [name for line, name in said.items() if "released the GPU in" in line] == ["a"]
    assert "the machine suspends" in run_mmd("events").stdout
    assert not world.events("overlap")


async def test_all_residents_leave_and_come_back(world: World, system_bus: str) -> None:
    """Two lie beside each other. Requests for the one that is back first do not wait for the other."""
    world.add_gpus(24, 16)
    world.settings("", residency="many")
    world.add_sized("chat", 12)
    world.add_sized("embed", 1, embedding=True)
    async with scene(world, system_bus) as at:
        await at.ask("chat")
        await at.client.post("/v1/embeddings", json={"model": "embed", "input": "hi"})
        assert all(_is(Residency.RESIDENT, name, at.watch.pairs) for name in ("chat", "embed"))
        assert await at.login1.prepare() < at.login1.limit_seconds
        assert all(_is(Residency.ABSENT, name, at.watch.pairs) for name in ("chat", "embed"))
        assert set(suspended_models()) == {"chat", "embed"}
        world.behave("embed", load_seconds=1.0)
        asking = asyncio.create_task(at.ask("chat"))
        at.login1.awaken()
        assert "chat-0" in await asking
        assert not _is(Residency.RESIDENT, "embed", at.watch.pairs)
        await at.becomes("embed", Residency.RESIDENT)
        assert _is(Residency.RESIDENT, "chat", at.watch.pairs)
        await asyncio.to_thread(wait_for, lambda: suspended_models() == (), what="the end of the sleep")
    outcomes = [(event.outcome, event.evicted) for event in recent(4)]
    assert outcomes == [("away", ()), ("away", ()), ("resident", ()), ("resident", ())]


@pytest.mark.usefixtures("gpu")
async def test_stream_that_outlasts_what_logind_waits_is_cut_in_time(world: World, system_bus: str) -> None:
    world.add("a", **LONG)
    async with scene(world, system_bus, limit_seconds=8.0) as at:
        async with at.client.stream("POST", "/v1/chat/completions", json=_body("a", stream=True)) as answer:
            lines = answer.aiter_lines()
            async for line in lines:
                if '"content": "' in line:
                    break
            preparing = asyncio.create_task(at.login1.prepare())
            said: list[str] = []
            with pytest.raises(httpx.RemoteProtocolError):  # the stream breaks
                async for line in lines:
                    said += [line] if line else []
        error = json.loads(said[-1].removeprefix("data: "))["error"]
        assert (error["code"], error["source"]) == ("machine_suspends", "mmd")
        assert await preparing < at.login1.limit_seconds
        await at.becomes("a", Residency.ABSENT)


@pytest.mark.usefixtures("gpu")
async def test_model_that_loads_is_stopped_and_loaded_after(world: World, system_bus: str) -> None:
    world.add("a")
    world.add("b", load_seconds=1.0)
    async with scene(world, system_bus) as at:
        await at.ask("a")
        asking = asyncio.create_task(at.ask("b"))
        await _happens(world, "load-begin", "b")
        assert await at.login1.prepare() < at.login1.limit_seconds
        assert all(_is(Residency.ABSENT, name, at.watch.pairs) for name in "ab")
        assert suspended_models() == ("b",)
        at.login1.awaken()
        assert "b-0" in await asking
    assert world.events("ready") == [("ready", "a"), ("ready", "b")]


@pytest.mark.usefixtures("gpu")
async def test_second_sleep_while_the_model_comes_back(world: World, system_bus: str) -> None:
    world.add("a")
    async with scene(world, system_bus) as at:
        await at.ask("a")
        await at.login1.prepare()
        world.behave("a", load_seconds=1.0)
        at.login1.awaken()
        await at.login1.has_locks(1)
        await at.becomes("a", Residency.STARTING)
        assert await at.login1.prepare() < at.login1.limit_seconds
        assert _is(Residency.ABSENT, "a", at.watch.pairs)
        at.login1.awaken()
        await at.becomes("a", Residency.RESIDENT)


@pytest.mark.usefixtures("gpu")
async def test_who_was_activated_meanwhile_keeps_the_gpu(world: World, system_bus: str) -> None:
    world.add("a", "b")
    async with scene(world, system_bus) as at, world.controller() as mmd:
        await at.ask("a")
        await at.login1.prepare()
        await mmd.activate("b")
        at.login1.awaken()
        await asyncio.to_thread(wait_for, lambda: suspended_models() == (), what="the end of the sleep")
        assert _is(Residency.RESIDENT, "b", at.watch.pairs)
        assert "b-0" in await at.ask("b")


@pytest.mark.usefixtures("gpu")
async def test_model_that_does_not_stop_delays_suspend_to_its_limit(
    world: World, system_bus: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.add("a", ignore_sigterm=True)
    world.change_launch("a", stop_seconds=120)
    async with scene(world, system_bus, limit_seconds=5.0) as at:
        await at.ask("a")
        assert await at.login1.prepare() < at.login1.limit_seconds
        assert "models are still on a GPU" in caplog.text
        world.behave("a")
        at.login1.awaken()
        world.kill("a", signal.SIGKILL)
        await asyncio.to_thread(wait_for, lambda: world.events("ready") == [("ready", "a")] * 2, what="its return")


async def test_model_on_the_cpu_stays(world: World, system_bus: str) -> None:
    world.add("a")
    async with scene(world, system_bus) as at:
        await at.ask("a")
        await at.login1.prepare()
        at.login1.awaken()
        await at.ask("a")
    assert world.events("load-begin", "exit") == [("load-begin", "a")]


@pytest.mark.usefixtures("gpu")
async def test_models_leave_the_gpu_without_a_lock_too(
    world: World, system_bus: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.add("a")
    with caplog.at_level(logging.INFO):
        async with scene(world, system_bus, refuses=True) as at:
            await at.ask("a")
            for _ in range(2):
                await at.login1.prepare()
                await at.becomes("a", Residency.ABSENT)
                at.login1.awaken()
                await at.becomes("a", Residency.RESIDENT)
    told = [record.getMessage() for record in caplog.records if "refuses to delay" in record.getMessage()]
    assert told == [
        "logind refuses to delay a suspend: Access denied; responses are cut short when the machine suspends: "
        "sudo apt install polkitd"
    ]


@pytest.mark.usefixtures("gpu")
async def test_logind_that_goes_and_comes_is_followed_again(world: World, system_bus: str) -> None:
    """A logind that is restarted while models are suspended does not announce the end of that sleep."""
    world.add("a")
    async with scene(world, system_bus) as at:
        await at.ask("a")
        await at.login1.prepare()
        at.login1.close()
        await at.becomes("a", Residency.RESIDENT)
        async with fake_login1(system_bus) as another:
            await another.has_locks(1)
            await another.prepare()
            assert _is(Residency.ABSENT, "a", at.watch.pairs)


async def test_missing_logind_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/bus")
    monkeypatch.setattr("mmd.gateway.schedule.suspend._FIRST_RETRY_SECONDS", 1e-4)
    tries = 0
    connect = Login1.connect

    async def counted() -> Login1:
        nonlocal tries
        tries += 1
        return await connect()

    class Nothing:
        def restore(self) -> None: ...
        async def close(self) -> None: ...

    monkeypatch.setattr(Login1, "connect", counted)
    with caplog.at_level(logging.INFO):
        watching = asyncio.create_task(SuspendWatch(Nothing()).run())  # type: ignore[arg-type]
        await asyncio.to_thread(wait_for, lambda: tries > 3, what="another try")
        watching.cancel()
        await asyncio.wait([watching])
    [record] = caplog.records
    assert record.getMessage() == (
        "the system bus does not answer: No such file or directory; models stay on the GPUs when the machine suspends"
    )


async def test_lock_is_held_until_it_is_closed_and_no_child_has_it(system_bus: str) -> None:
    with pytest.raises(LogindAway, match="logind does not answer"):
        await Login1.connect()
    async with fake_login1(system_bus, limit_seconds=7.5) as fake, await Login1.connect() as login1:
        assert await login1.max_delay_seconds() == 7.5
        with await login1.delay_sleep("a test") as lock:
            assert not os.get_inheritable(lock.fileno())
            await fake.has_locks(1)
        await fake.has_locks(0)
        fake.refuses = True
        with pytest.raises(LockRefused, match="Access denied"):
            await login1.delay_sleep("a test")


async def test_doctor_reports_whether_logind_gives_a_lock(system_bus: str) -> None:
    assert await asyncio.to_thread(read_sleep_lock) is None
    async with fake_login1(system_bus, limit_seconds=7.5) as fake:
        assert await asyncio.to_thread(read_sleep_lock) == SleepLock(7.5)
        await fake.has_locks(0)
        fake.refuses = True
        refused = await asyncio.to_thread(read_sleep_lock)
    assert refused is not None
    assert (refused.seconds, refused.hint) == (7.5, "sudo apt install polkitd")
    assert refused.refusal.endswith("Access denied")


async def test_sleep_signal_of_another_sender_is_ignored(system_bus: str) -> None:
    async with fake_login1(system_bus) as fake, await Login1.connect() as login1:
        sleeps = login1.sleeps()
        assert await anext(sleeps) is False
        other = await MessageBus(bus_address=system_bus).connect()
        forged = Message.new_signal(
            "/org/freedesktop/login1", "org.freedesktop.login1.Manager", "PrepareForSleep", "b", [True]
        )
        forged.destination = login1.peer.bus.unique_name
        await other.send(forged)
        await other.call(Message("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetId"))
        fake.awaken()
        assert await anext(sleeps) is False
        other.disconnect()


async def test_unreadable_bus_message_ends_the_connection(system_bus: str) -> None:
    async with fake_login1(system_bus), await Login1.connect() as login1:
        sleeps = login1.sleeps()
        assert await anext(sleeps) is False
        login1.peer.bus._finalize(ValueError("what dbus-fast says of a message that it cannot read"))
        assert [one async for one in sleeps] == []


@pytest.mark.usefixtures("gpu")
async def test_restarted_gateway_restores_the_suspended_models(world: World, installed: str, system_bus: str) -> None:
    world.add("a")
    async with fake_login1(system_bus) as login1, httpx.AsyncClient(base_url=installed, timeout=30) as client:
        assert (await client.post("/v1/chat/completions", json=_body("a"))).status_code == 200
        await login1.has_locks(1)
        await login1.prepare()
        assert suspended_models() == ("a",)
        assert (await client.get("/status")).json()["away"] == ["a"]
        login1.is_preparing = False  # and no log line
        world.manager.systemctl("kill", "--signal=SIGKILL", "mmd.service")
        await asyncio.to_thread(wait_for, lambda: world.events("ready") == [("ready", "a")] * 2, what="its return")
        await login1.has_locks(1)


@pytest.mark.usefixtures("gpu")
async def test_installed_gateway_leaves_models_where_it_is_told_to(
    world: World, installed: str, system_bus: str
) -> None:
    world.add("a")
    settings = Path(os.environ["XDG_CONFIG_HOME"]) / "mmd/mmd.toml"
    settings.write_text(settings.read_text().replace("[gateway]\n", '[gateway]\nsuspend = "leave"\n'))
    async with fake_login1(system_bus) as login1, httpx.AsyncClient(base_url=installed, timeout=30) as client:
        assert (await client.post("/v1/chat/completions", json=_body("a"))).status_code == 200
        assert login1.locks == []
        await login1.prepare()
        login1.awaken()
        assert (await client.post("/v1/chat/completions", json=_body("a"))).status_code == 200
        world.manager.systemctl("stop", "mmd.service")
    assert world.events("load-begin", "exit") == [("load-begin", "a")]


def _is(where: Residency, name: str, pairs: Pairs) -> bool:
    return residency(pairs.get(name, Pair())) is where


def _body(name: str, **more: object) -> dict[str, object]:
    return {"model": name, "messages": [{"role": "user", "content": "hello"}]} | more


async def _happens(world: World, event: str, name: str) -> None:
    await asyncio.to_thread(wait_for, lambda: (event, name) in world.events(), what=f"{event} of {name}")
