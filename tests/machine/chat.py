"""Requests to the gateway of a machine, sent from a program in the machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from tests.machine.machine import Machine, wait_for

GATEWAY = "http://127.0.0.1:8000"
ANSWER_SECONDS = 60


def ask_until_answered(machine: Machine, **fields: object) -> dict[str, Any]:
    """Return a response of the model, or of the default one if the fields name none. Opens no user session."""
    answers: list[dict[str, Any]] = []

    def is_answered() -> bool:
        done = subprocess.run(_curl(machine, fields), capture_output=True, check=False, timeout=30)
        if done.returncode == 0:
            answers.append(json.loads(done.stdout))
        return bool(answers)

    wait_for(is_answered, ANSWER_SECONDS, f"an answer from {fields.get('model', 'the default model')}")
    return answers[0]


@contextmanager
def streaming(machine: Machine, **fields: object) -> Iterator[IO[bytes]]:
    """Yield a streamed response; a client that does not read it holds it up."""
    command = _curl(machine, {"stream": True} | fields, "--no-buffer")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as curl:
        assert curl.stdout is not None
        try:
            yield curl.stdout
        finally:
            curl.kill()


def gateway_version(machine: Machine) -> str:
    done = subprocess.run(
        machine.on_its_network("curl", "-sf", "--max-time", "60", f"{GATEWAY}/openapi.json"),
        capture_output=True,
        check=True,
        timeout=90,
    )
    version: str = json.loads(done.stdout)["info"]["version"]
    return version


def _curl(machine: Machine, fields: dict[str, object], *options: str) -> list[str]:
    body = json.dumps({"messages": [{"role": "user", "content": "hello"}], "max_tokens": 4} | fields)
    command = ["curl", "-sf", *options, "--max-time", "120", f"{GATEWAY}/v1/chat/completions"]
    return machine.on_its_network(*command, "-H", "content-type: application/json", "-d", body)
