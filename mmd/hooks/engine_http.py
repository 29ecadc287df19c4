"""One HTTP request over a Unix socket. Importing http.client takes longer than all the work of a hook."""

from _socket import AF_UNIX, SOCK_STREAM, socket
from time import monotonic


def ask(path: str, method: str, target: str, body: bytes = b"", *, until: float) -> tuple[str, bytes]:
    """Return the status and body of the response. `until` is a time of the monotonic clock.

    Raises OSError if the response is not complete by then.
    """
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
    """Return the seconds left, at least 0.001: a timeout of 0 would make the socket non-blocking."""
    return max(0.001, until - monotonic())


def _is_whole(answer: bytes) -> bool:
    """True if the body is as long as its Content-Length. Without that header it ends with the connection."""
    head, ended, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n") if ended else ():
        if line.startswith(b"content-length:"):
            return len(body) >= int(line.partition(b":")[2])
    return False
