#!/usr/bin/env python3
"""The main job as a terminal session: two tiny models, served side by side, then in turn.

Under a real systemd, by real llama.cpp:

    make demo

It has a user manager, a home and a runtime folder of its own, all removed at the end: your own are not touched.
"""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.fakes.hub import FakeHub, fake_hub, repositories_in
from tests.user_manager import UserManager, user_manager

TINY_GGUF = Path(__file__).with_name("tiny_gguf.py")
STEP_SECONDS = 120.0
ADDRESS = "127.0.0.1:8000"  # the gateway's address if mmd.toml sets none

SETTINGS = ".config/mmd/mmd.toml"  # below the home


class StepFailed(Exception):
    """A command of the session failed."""


@dataclass(frozen=True, slots=True)
class Step:
    output: str
    seconds: float


class Session:
    """Commands as a person would type them, each printed before its output."""

    def __init__(self, manager: UserManager, environment: Mapping[str, str]) -> None:
        self._home = manager.home
        self._environment = {**manager.environment, **environment}

    def run(self, *words: str) -> Step:
        print(f"\n$ {shlex.join(words)}", flush=True)
        step = self.ask(*words)
        if step.output:
            print(step.output, flush=True)
        return step

    def ask(self, *words: str, patience_seconds: float = STEP_SECONDS) -> Step:
        """Run a command that the session does not show."""
        began = time.monotonic()
        try:
            done = subprocess.run(
                words,
                env=self._environment,
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=patience_seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailed(f"`{shlex.join(words)}` did not end within {patience_seconds:.0f} s") from error
        step = Step(done.stdout.rstrip("\n"), time.monotonic() - began)
        if done.returncode != 0:
            raise StepFailed(f"`{shlex.join(words)}` ended with status {done.returncode}: {step.output}")
        return step

    def expect_resident(self, *model_ids: str) -> None:
        status = json.loads(self.ask("mmd", "status", "--json").output)
        resident = sorted(model["id"] for model in status["resident"])
        if resident != sorted(model_ids):
            raise StepFailed(f"mmd status lists {resident} as resident, not {sorted(model_ids)}")

    def swaps(self) -> int:
        """Return the number of swaps that `mmd events` lists."""
        return len(json.loads(self.ask("mmd", "events", "--json").output))


def main() -> int:
    # A signal must unwind as well, or the private manager would outlive us.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    print("Starting a systemd user manager for this demo alone")
    with user_manager() as manager, fake_hub() as hub:
        try:
            summary = play(Session(manager, {"HF_ENDPOINT": hub.url}), manager, hub)
        except StepFailed as error:
            print(f"\ndemo: {error}", file=sys.stderr)
            print("  → journalctl -n 50   # shows the messages of systemd and the engines", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
        finally:
            manager.systemctl("stop", "mmd.socket", "mmd.service", "mmd-*")
    print_summary(summary)
    return 0


def play(session: Session, manager: UserManager, hub: FakeHub) -> list[tuple[str, float]]:
    """Run the session. Return the steps with their seconds."""
    summary: list[tuple[str, float]] = []

    say("Two models of 600 kB with random weights: their output is nonsense, their serving is real")
    published = manager.home / "hub/demo/a-GGUF"
    published.mkdir(parents=True)
    for seed, file in enumerate((str(published / "a-F32.gguf"), "b.gguf"), start=1):
        session.run("python", str(TINY_GGUF), file, "--name", "ab"[seed - 1], "--seed", str(seed))
    hub.repositories = repositories_in(manager.home / "hub")

    say("Download the first one from a small local hub that stands in for huggingface.co")
    session.run("mmd", "search", "a-gguf")
    session.run("mmd", "estimate", "demo/a-GGUF")
    session.run("mmd", "pull", "demo/a-GGUF")
    session.run("mmd", "verify", "a")

    say("Register the second one, a local file")
    session.run("mmd", "add", "b.gguf")
    session.run("mmd", "list")
    session.run("mmd", "show", "a")

    say("Install the gateway's units; its socket listens from here on")
    address = ADDRESS if is_free(ADDRESS) else move_gateway(manager)
    session.run("mmd", "install")

    say("Load the first model; it answers through the gateway")
    summary.append(("activate a: no model was loaded", session.run("mmd", "activate", "a").seconds))
    session.expect_resident("a")
    summary.append(("a chat completion by a, which starts the gateway", chat(session, address, "a").seconds))
    summary.append(("a chat completion by a", chat(session, address, "a").seconds))

    say("A request names the other model: both fit, so mmd loads b beside a, then b answers")
    summary.append(("a chat completion by b: b is loaded beside a", chat(session, address, "b").seconds))
    session.expect_resident("a", "b")

    say("From here on both answer without a swap")
    swaps = session.swaps()
    summary += [(f"a chat completion by {name}: no swap", chat(session, address, name).seconds) for name in "ab"]
    if session.swaps() != swaps:
        raise StepFailed("a request for a resident model caused a swap")

    say("What lies where, according to mmd and to systemd")
    session.run("mmd", "status")
    session.run("systemctl", "--user", "--no-pager", "--legend=no", "list-units", "mmd-resident@*", "mmd-model@*")

    say("Where mmd.toml allows one model at a time, mmd unloads a for b")
    add_settings(manager, '[gpu]\nresidency = "one"\n')
    session.run("cat", SETTINGS)
    session.run("mmd", "stop", "b")
    summary.append(("activate b: a is unloaded, b loaded", session.run("mmd", "activate", "b").seconds))
    session.expect_resident("b")
    session.run("mmd", "events")

    say("The engine's log; on your machine: journalctl --user -u mmd-model@a")
    if not session.run("journalctl", "--quiet", "--no-pager", "-t", "a", "-n", "8").output:
        raise StepFailed("the journal has no line of a")

    say("Stop everything")
    session.run("mmd", "stop")
    session.expect_resident()
    session.run("mmd", "install", "--remove")
    return summary


def chat(session: Session, address: str, model_id: str) -> Step:
    """Send a chat completion through the gateway, by the name of the model."""
    question = {"model": model_id, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
    url = f"http://{address}/v1/chat/completions"
    step = session.run("curl", "-sS", "--fail-with-body", url, "--json", json.dumps(question))
    answer = json.loads(step.output)
    if answer["model"] != model_id or "content" not in answer["choices"][0]["message"]:
        raise StepFailed(f"{model_id} did not answer as expected: {step.output}")
    return step


def is_free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        # Like systemd: a closed connection in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True


def move_gateway(manager: UserManager) -> str:
    """Let the gateway listen on a free port, set in mmd.toml as a person would. Return the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    add_settings(manager, f'[gateway]\nlisten = "{address}"\n')
    print(f"\n{ADDRESS} is in use on this machine, so the gateway listens on {address}: ~/{SETTINGS}")
    return address


def add_settings(manager: UserManager, text: str) -> None:
    settings = manager.home / SETTINGS
    settings.parent.mkdir(parents=True, exist_ok=True)
    with settings.open("a") as file:
        file.write(text)


def say(text: str) -> None:
    print(f"\n# {text}", flush=True)


def print_summary(summary: list[tuple[str, float]]) -> None:
    width = max(len(what) for what, _ in summary)
    print(f"\n{'SUMMARY':<{width}}  SECONDS")
    for what, seconds in summary:
        print(f"{what:<{width}}  {seconds:7.2f}")


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
