"""An engine as its token's hooks see it: a unit, and HTTP on a Unix socket in vLLM's words.

http.client, json and subprocess would take longer to import than all of the hook's work.
"""

import os
from _socket import AF_UNIX, SOCK_STREAM, socket


class Engine:
    def __init__(self, *, unit: str, path: str) -> None:
        self.unit = unit
        self._path = path

    def state(self) -> str:
        """The unit's ActiveState: what systemd knows, which a socket that refuses does not tell."""
        return _systemctl("show", "--property=ActiveState", "--value", self.unit).strip()

    def post(self, target: str, *, seconds: float) -> str:
        """The status of a POST, or why there was none."""
        try:
            return self._ask("POST", target, seconds)[0]
        except OSError as error:
            return str(error) or type(error).__name__

    def is_sleeping(self) -> bool | None:
        """What the engine says of itself; None where it says nothing."""
        try:
            status, body = self._ask("GET", "/is_sleeping", 10.0)
        except OSError:
            return None
        return b"true" in body if status == "200" and b"is_sleeping" in body else None

    def end(self) -> None:
        """Kill it and wait until the unit is down. vLLM loses a SIGTERM that comes while it loads."""
        _systemctl("kill", "--signal=SIGKILL", self.unit)
        _systemctl("stop", self.unit)

    def _ask(self, method: str, target: str, seconds: float) -> tuple[str, bytes]:
        connection = socket(AF_UNIX, SOCK_STREAM)
        try:
            connection.settimeout(seconds)
            connection.connect(self._path)
            head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            connection.sendall(head.encode())
            answer = b""
            while not _is_whole(answer) and (chunk := connection.recv(65536)):
                answer += chunk
        finally:
            connection.close()
        status_line, _, body = answer.partition(b"\r\n\r\n")
        words = status_line.split(None, 2)
        return words[1].decode("ascii", "replace") if len(words) > 1 else "an empty answer", body


def _is_whole(answer: bytes) -> bool:
    """Whether all of the body is there that the head announces; without a length, it ends with the connection."""
    head, ended, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n") if ended else ():
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return False


def _systemctl(*words: str) -> str:
    """What systemctl prints."""
    read_end, write_end = os.pipe()
    command = ("systemctl", "--user", *words)
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1)])
    os.close(write_end)
    with open(read_end, encoding="utf-8", errors="replace") as pipe:  # noqa: PTH123 a descriptor has no path
        text = pipe.read()
    os.waitpid(pid, 0)
    return text
