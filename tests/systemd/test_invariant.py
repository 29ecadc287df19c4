"""An invariant over random histories: two models are never awake at once, and every activation ends in *ready* or in an
error that names the cause.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmd.control.lifecycle.activation import Activation
from mmd.control.lifecycle.controller import Controller
from mmd.errors import EngineFailed, MmdError, SwapSuperseded
from mmd.registry.store import Registry
from tests.systemd.world import World
from tests.user_manager import UserManager

# b loads slowly enough to be interrupted, c sleeps instead of stopping and is interrupted in that, too, d is broken.
MODELS = "abcd"
# A little longer than the engines of these tests wait before they are restarted.
RESTART_SECONDS = 0.4


@dataclass(frozen=True)
class Activate:
    model: str


@dataclass(frozen=True)
class Stop:
    model: str | None


@dataclass(frozen=True)
class Sleep:
    model: str


@dataclass(frozen=True)
class Crash:
    model: str  # its engine gets a SIGKILL


@dataclass(frozen=True)
class Abandon:
    """The client of the newest activation disconnects in the middle."""


@dataclass(frozen=True)
class Wait:
    """Wait for all running activations."""


@dataclass(frozen=True)
class Rest:
    """Wait until systemd has restarted what crashed."""


Action = Activate | Stop | Sleep | Crash | Abandon | Wait | Rest

models = st.sampled_from(MODELS)
actions = st.one_of(
    st.builds(Activate, models),
    st.builds(Activate, models),
    st.builds(Activate, models),
    st.builds(Stop, models | st.none()),
    st.builds(Sleep, models),
    st.builds(Crash, models),
    st.builds(Crash, models),
    st.just(Abandon()),
    st.just(Wait()),
    st.just(Rest()),
)


@given(history=st.lists(actions, min_size=3, max_size=14))
@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_never_two_awake(systemd: UserManager, fake_llama_server: Path, history: Sequence[Action]) -> None:
    with tempfile.TemporaryDirectory(dir=fake_llama_server.parent) as folder:
        world = World(systemd, Path(folder))
        for model in list(Registry().load()):
            Registry().remove(model)
        world.add("a")
        world.add("b", load_seconds=0.15)
        world.add("c", can_sleep=True, sleep_seconds=0.05, wake_seconds=0.05)
        world.add("d", exit_while_loading_seconds=0.05)
        asyncio.run(live(world, history))
        assert not world.events("overlap")


async def live(world: World, history: Sequence[Action]) -> None:
    async with world.controller() as mmd:
        under_way: list[asyncio.Task[Activation]] = []
        others: list[asyncio.Task[object]] = []
        for action in history:
            match action:
                case Activate(model):
                    under_way.append(asyncio.create_task(mmd.activate(model)))
                case Stop(model):
                    others.append(asyncio.create_task(mmd.stop(model)))
                case Sleep(model):
                    others.append(asyncio.create_task(mmd.sleep(model)))
                case Crash(model):
                    world.kill(model, signal.SIGKILL)
                case Abandon():
                    if under_way:
                        under_way.pop().cancel()
                case Wait():
                    check(await asyncio.gather(*under_way, return_exceptions=True))
                    under_way.clear()
                case Rest():
                    await asyncio.sleep(RESTART_SECONDS)
            await asyncio.sleep(0.02)  # no wait: actions must meet each other half done
        async with asyncio.timeout(40):
            check(await asyncio.gather(*under_way, return_exceptions=True))
            await asyncio.gather(*others)
            await the_world_still_works(mmd)


def check(ends: Sequence[Activation | BaseException]) -> None:
    for end in ends:
        match end:
            case Activation():
                pass
            case EngineFailed() | SwapSuperseded():
                assert end.message
                assert end.hint
            case _:
                raise AssertionError(f"neither ready nor an error of ours: {end!r}")


async def the_world_still_works(mmd: Controller) -> None:
    """Whatever happened before: nothing is stuck."""
    await mmd.activate("a")
    status = await mmd.status()
    assert (status.active, status.resident_ids) == ("a", ("a",))
    try:
        await mmd.stop()
    except MmdError as error:
        raise AssertionError(f"stop after all failed: {error}") from error
    assert (await mmd.status()).resident_ids == ()
