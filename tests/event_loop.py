"""What a test must not do to the event loop, as a plugin: block it, occupy it, or leave tasks behind.

Three checks, of mmd's own code alone. A test fails at its end with all that was found.

- Blocking calls, by blockbuster's list of them: files, sockets that block, sleeps, contended locks. `_MAY_BLOCK` lists
  the few that are allowed. A test's own calls are its own business, a call into a plain function of mmd included.
- Callbacks that use more than 50 ms of the thread's CPU time. Not wall time, which depends on what else the machine
  does; garbage collection, which depends on what other tests have left, is subtracted.
- Tasks that are still pending when their event loop ends.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
from asyncio import events, runners
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import thread_time
from types import CodeType, FrameType
from typing import Any

import pytest
from blockbuster import BlockBuster, BlockBusterFunction

import mmd

_MMD = str(Path(mmd.__file__).parent) + "/"
_TESTS = str(Path(__file__).parent) + "/"
_MAX_CALLBACK_SECONDS = 0.05
_ASYNC = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR

# Functions of mmd that may block the event loop, by file below mmd/, with the reason.
_RUNTIME = "a line in the runtime folder, which is in memory"
_MAY_BLOCK: dict[str, tuple[frozenset[str], str]] = {
    "files.py": (
        frozenset({"_stamp", "_reload"}),
        "a stat of a small file of the user's home, which is read again when it has changed; requests need the result",
    ),
    "cli/via_gateway.py": (frozenset({"_post"}), "imports httpx, on the loop of a command, which serves nothing else"),
    "control/install/inspection.py": (
        frozenset({"read_install_state", "_read"}),
        "on the loop of a command or of a thread of the doctor, which serves nothing else",
    ),
    "control/install/presence.py": (frozenset({"announce", "withdraw"}), "at the start and at the end"),
    "control/state/engine_log.py": (
        frozenset({"_ask", "last_words"}),
        "looks for journalctl on PATH, then starts it; sends a datagram to journald, as the log does",
    ),
    "control/state/sleep_record.py": (frozenset({"_record", "write_level"}), _RUNTIME),
    "control/state/suspended_models.py": (
        frozenset({"note_suspended", "forget_suspended", "suspended_models"}),
        _RUNTIME,
    ),
    "control/state/last_asked.py": (frozenset({"asked_models", "note_asked"}), _RUNTIME),
    "control/state/status.py": (frozenset({"exposed_urls"}), _RUNTIME),
    "control/state/swap_events.py": (
        frozenset({"seconds"}),
        "up to 1 MiB of records in 3 ms, read again after a swap; the queue needs the result",
    ),
    "control/lifecycle/controller.py": (
        frozenset({"remove", "unit_hooks"}),
        "the first is of the command line alone, the second looks once for two programs on PATH",
    ),
    "units/watch.py": (frozenset({"read_kept"}), _RUNTIME),
    "control/lifecycle/boot.py": (frozenset({"_read_mark", "_load_and_sleep", "boot"}), _RUNTIME),
    "control/lifecycle/phases.py": (frozenset({"_hook_record"}), _RUNTIME),
    "control/lifecycle/units.py": (frozenset({"submit", "_not_loaded"}), _RUNTIME),
    "control/memory/measure.py": (
        frozenset({"measure_starts"}),
        "mmd-measure.service runs it in a process of its own, which serves no requests",
    ),
    "units/lock.py": (frozenset({"_opened"}), _RUNTIME),
    "gateway/gateway.py": (frozenset({"__init__"}), "before the gateway serves"),
    "gateway/serve.py": (frozenset({"notify"}), "a datagram to systemd, at the start and at the end"),
    "gateway/observe/metrics_page.py": (frozenset({"_process"}), "/proc is memory"),
    "gateway/observe/scrape.py": (frozenset({"of"}), "/proc is memory"),
}
# The standard library's logging writes to journald or stderr.
_MAY_BLOCK_ELSEWHERE = (("logging/__init__.py", ("emit",)),)

_found: list[str] = []
_gc_seconds = 0.0
_gc_began = 0.0


@pytest.fixture(scope="session", autouse=True)
def event_loop_is_watched() -> Iterator[None]:
    blockbuster = BlockBuster()
    for name, function in blockbuster.functions.items():
        function.can_block_predicate = _noted(name, function)
    run, cancel_all = events.Handle._run, runners._cancel_all_tasks  # type: ignore[attr-defined]
    gc.callbacks.append(_on_gc)
    blockbuster.activate()
    events.Handle._run = _timed(run)  # type: ignore[method-assign, assignment]
    runners._cancel_all_tasks = _checked(cancel_all)  # type: ignore[attr-defined]
    yield
    runners._cancel_all_tasks = cancel_all  # type: ignore[attr-defined]
    events.Handle._run = run  # type: ignore[method-assign]
    blockbuster.deactivate()
    gc.callbacks.remove(_on_gc)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """After all fixtures: an event loop ends in one of them."""
    yield
    found = list(dict.fromkeys(_found))
    _found.clear()
    if found:
        pytest.fail("\n".join(found), pytrace=False)


# -- blocking calls


def _noted(name: str, function: BlockBusterFunction) -> Callable[..., bool]:
    does_not_block = function.can_block_predicate
    elsewhere = (*function.can_block_functions, *_MAY_BLOCK_ELSEWHERE)

    def predicate(*args: Any, **kwargs: Any) -> bool:
        if not does_not_block(*args, **kwargs) and (stack := _offending_stack(elsewhere)):
            _found.append(f"{name} blocks the event loop: {' < '.join(stack)}")
        return True  # the call itself goes on: an exception here could be taken for one of the product's

    return predicate


def _offending_stack(elsewhere: Iterable[tuple[str, Iterable[str]]]) -> list[str]:
    """The frames of mmd that block the event loop, innermost first; none if they are a test's own call, or pass through
    a function that may block: of `_MAY_BLOCK`, or `elsewhere`, as blockbuster knows it.
    """
    stack: list[str] = []
    is_async = False
    frame: FrameType | None = sys._getframe(3)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(_MMD):
            if _may_block(code):
                return []
            stack.append(f"{code.co_filename.removeprefix(_MMD)}:{frame.f_lineno} {code.co_name}")
            is_async |= bool(code.co_flags & _ASYNC)
        elif code.co_filename.startswith(_TESTS):
            return stack if is_async else []
        elif any(code.co_filename.endswith(file) and code.co_name in names for file, names in elsewhere):
            return []
        elif code is _HANDLE_RUN:
            return stack
        frame = frame.f_back
    return []


def _may_block(code: CodeType) -> bool:
    allowed, _ = _MAY_BLOCK.get(code.co_filename.removeprefix(_MMD), (frozenset(), ""))
    return code.co_name in allowed


# -- long callbacks


def _timed(run: Callable[[Any], None]) -> Callable[[Any], None]:
    def timed(handle: Any) -> None:
        callback, began, collecting = handle._callback, thread_time(), _gc_seconds
        run(handle)
        seconds = thread_time() - began - (_gc_seconds - collecting)
        if seconds > _MAX_CALLBACK_SECONDS and _is_ours(callback):
            _found.append(f"a callback used {seconds * 1000:.0f} ms of CPU time on the event loop: {callback!r}")

    return timed


_HANDLE_RUN = events.Handle._run.__code__


def _is_ours(callback: Any) -> bool:
    """Not a step of a test's own coroutine."""
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return True
    code = getattr(task.get_coro(), "cr_code", None)
    return isinstance(code, CodeType) and code.co_filename.startswith(_MMD)


def _on_gc(phase: str, info: dict[str, int]) -> None:
    global _gc_seconds, _gc_began  # noqa: PLW0603 gc calls a plain function
    if phase == "start":
        _gc_began = thread_time()
    else:
        _gc_seconds += thread_time() - _gc_began


# -- tasks left behind

_FINALIZERS = ("async_generator_athrow", "async_generator_asend")  # asyncio closes a generator that was dropped


def _checked(cancel_all: Callable[[asyncio.AbstractEventLoop], None]) -> Callable[[asyncio.AbstractEventLoop], None]:
    def checked(loop: asyncio.AbstractEventLoop) -> None:
        left = [task for task in asyncio.all_tasks(loop) if type(task.get_coro()).__name__ not in _FINALIZERS]
        _found.extend(f"a task is pending at the end: {task!r}" for task in left)
        cancel_all(loop)

    return checked
