"""One HTTP exchange over a Unix socket. http.client would take longer to import than all of a hook's work."""

from _socket import AF_UNIX, SOCK_STREAM, socket
from time import monotonic


def ask(path: str, method: str, target: str, body: bytes = b"", *, until: float) -> tuple[str, bytes]:
    """The status and the body of the answer; OSError where there is none by `until`, a time of the monotonic clock."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(_left(until))
        connection.connect(path)
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answer = b""
        while not _is_whole(answer):
            connection.settimeout(_left(until))
            if not (chunk := connection.recv(65536)):
                break
            answer += chunk
    finally:
        connection.close()
    status_line, _, content = answer.partition(b"\r\n\r\n")
    words = status_line.split(None, 2)
    return words[1].decode("ascii", "replace") if len(words) > 1 else "an empty answer", content


def _left(until: float) -> float:
    """Seconds for the next step: at least a moment, for zero would mean not to wait at all."""
    return max(0.001, until - monotonic())


def _is_whole(answer: bytes) -> bool:
    """Whether all of the body is there that the head announces; without a length, it ends with the connection."""
    head, ended, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n") if ended else ():
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return False
