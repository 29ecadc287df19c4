"""An engine as its token's hooks see it: a unit, and HTTP on a Unix socket in vLLM's words."""

import json
import subprocess
from http.client import HTTPConnection, HTTPException
from socket import AF_UNIX, SOCK_STREAM, socket


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, seconds: float) -> None:
        super().__init__("localhost", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket(AF_UNIX, SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    def __init__(self, *, unit: str, socket: str) -> None:
        self.unit = unit
        self.socket = socket

    def state(self) -> str:
        """The unit's ActiveState: what systemd knows, which a socket that refuses does not tell."""
        return self._systemctl("show", "--property=ActiveState", "--value", self.unit).strip()

    def post(self, path: str, *, seconds: float) -> int | str:
        """The HTTP status of a POST, or why there was none."""
        try:
            return self._ask("POST", path, seconds)[0]
        except (OSError, HTTPException) as error:
            return str(error) or type(error).__name__

    def is_sleeping(self) -> bool | None:
        """What the engine says of itself; None where it says nothing."""
        try:
            status, body = self._ask("GET", "/is_sleeping", 10.0)
            return bool(json.loads(body)["is_sleeping"]) if status == 200 else None
        except (OSError, HTTPException, ValueError, KeyError):
            return None

    def end(self) -> None:
        """Kill it and wait until the unit is down. vLLM loses a SIGTERM that comes while it loads."""
        self._systemctl("kill", "--signal=SIGKILL", self.unit)
        self._systemctl("stop", self.unit)

    def _ask(self, method: str, path: str, seconds: float) -> tuple[int, bytes]:
        connection = _UnixConnection(self.socket, seconds)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _systemctl(self, *words: str) -> str:
        done = subprocess.run(["systemctl", "--user", *words], stdout=subprocess.PIPE, text=True, check=False)
        return done.stdout
