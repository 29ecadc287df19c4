"""A stand-in for vLLM 0.32: `engine` with vLLM's command line, phases and behaviour.

    python -I -S tests/fakes/vllm_engine.py VERSION serve MODEL --uds /run/x.sock --served-model-name NAME

`MODEL.fake.json` makes it misbehave (see `engine.Behaviour`); sleep needs VLLM_SERVER_DEV_MODE=1 only, as on a CPU.
Like the real one it binds its socket before it loads and listens after, and loses a SIGTERM in between.
"""

# ruff: noqa: PTH100, PTH118, PTH120, PTH123
from __future__ import annotations

import json
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from tests.fakes.engine import Engine, fail
from tests.fakes.http import TASKS, Api, send, send_json
from tests.vllm_options import UsageError, parse, sections

TYPE_CHECKING = False  # see engine.py
if TYPE_CHECKING:
    from typing import NoReturn

_PARSERS = (("--tool-call-parser", "tool call parser"), ("--reasoning-parser", "reasoning parser"))
_ABORT_SECONDS = 0.3  # in which aborted responses are still sent


class VllmEngine(Engine):
    listens_while_loading = False

    def __init__(self, options: dict[str, list[str]], version: str) -> None:
        first = {name: values[0] if values else name for name, values in options.items()}
        names = options.get("--served-model-name", options["--model"])
        super().__init__(first | {"--alias": names[0]})
        self.version = version
        self.names = names
        self.context = 0
        self.behaviour.can_sleep = os.environ.get("VLLM_SERVER_DEV_MODE") == "1"
        self.behaviour.lose_sigterm_while_loading = True
        self.api = VllmApi(self)

    def bind(self) -> socket.socket:
        """Bind the socket. Raises OSError if that fails: the real one ends in a traceback, too."""
        if path := self.options.get("--uds"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
        else:
            listener = socket.socket()
            listener.bind((self.options.get("--host", "127.0.0.1"), int(self.options.get("--port", "8000"))))
        return listener

    def load(self) -> None:
        print(f"(EngineCore pid={os.getpid()}) INFO Initializing a V1 LLM engine", file=sys.stderr, flush=True)
        super().load()

    def read_model(self) -> None:
        try:
            with open(os.path.join(self.model, "config.json"), encoding="utf-8") as file:
                config = json.load(file)
        except (OSError, ValueError) as error:
            self.fail_load(f"Invalid repository ID or local directory specified: '{self.model}' ({error})")
        asked = self.options.get("--max-model-len", "auto")
        self.context = int(asked) if asked.isdigit() else config.get("max_position_embeddings", 2048)

    def fail_load(self, reason: str) -> NoReturn:
        print(f"(EngineCore pid={os.getpid()}) ValueError: {reason}", file=sys.stderr)
        print("RuntimeError: Engine core initialization failed. See root cause above.", file=sys.stderr, flush=True)
        self.exit(1)


class VllmApi(Api):
    def __init__(self, engine: VllmEngine) -> None:
        super().__init__(engine)
        self.vllm = engine

    def route(self, connection: socket.socket, method: str, target: str, body: bytes) -> bool:
        if method == "POST" and target in TASKS and (name := self.foreign_name(body)):
            message = f"The model `{name}` does not exist. Valid aliases: {', '.join(self.vllm.names)}."
            error = {"message": message, "type": "NotFoundError", "param": "model", "code": 404}
            return send_json(connection, {"error": error}, 404)
        match method, target:
            case "GET", "/health" | "/ping":
                return send(connection, 200, "text/plain", b"")
            case "GET", "/version":
                return send_json(connection, {"version": self.vllm.version.partition("+")[0]})
            case "GET", "/v1/models":
                about = {"object": "model", "owned_by": "vllm", "max_model_len": self.vllm.context}
                data = [{"id": name} | about for name in self.vllm.names]
                return send_json(connection, {"object": "list", "data": data})
            case "GET", "/metrics":
                return send(connection, 200, "text/plain; version=0.0.4", self.vllm.sleeper.metrics().encode())
            case "GET", "/props":
                return send_json(connection, {"detail": "Not Found"}, 404)
            case _:
                return super().route(connection, method, target, body)

    def foreign_name(self, body: bytes) -> str | None:
        """Return the model that is requested, if it is not this one and that matters."""
        if os.environ.get("VLLM_SKIP_MODEL_NAME_VALIDATION") == "1":
            return None
        try:
            name = json.loads(body).get("model")
        except ValueError:
            return None  # the task itself refuses it
        return name if name and name not in self.vllm.names else None

    def drain(self) -> None:
        """Cut running responses short and send them; requests that wait for a sleeping model get none."""
        self.vllm.sleeper.abort()
        with self.idle:
            self.idle.wait_for(lambda: self.in_flight == 0, _ABORT_SECONDS)


def main(version: str, argv: list[str]) -> None:
    lists = sections()
    lines = lists["engine"] + lists["server"]
    if argv == ["--version"]:
        print(version)
    elif argv == ["serve", "--help=all"]:
        print("\n".join(f"  {line}" for line in lines))
    elif argv[:1] != ["serve"]:
        fail("usage: vllm [-h] [-v] {serve} ...", 2)
    else:
        serve(argv[1:], lists, version)


def serve(argv: list[str], lists: dict[str, list[str]], version: str) -> None:
    try:
        options = parse(argv, lists["engine"] + lists["server"])
    except UsageError as error:
        fail(f"usage: vllm serve [model_tag] [options]\n            ...\nvllm: error: {error}", 2)
    for option, kind in _PARSERS:
        known = sorted(lists[f"{kind}s".replace("tool call", "tool")])
        if option in options and options[option][0] not in known:
            fail(f"KeyError: 'invalid {kind}: {options[option][0]} (chose from {{ {','.join(known)} }})'")
    VllmEngine(options, version).run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
