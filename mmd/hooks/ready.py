"""ExecStartPost= of an engine: returns when its health answers 200, so that `active` means that it answers.

    ready.py SOCKET SECONDS

It starts while the model loads. systemd lets it go on when the engine dies, so it looks after $MAINPID itself. Only
built-in modules: it must not cost the swap the time to import `http` and `asyncio`.
"""

import sys
from _socket import AF_UNIX, SOCK_STREAM, socket
from os import environ, kill
from time import monotonic, sleep

_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_ANSWER_SECONDS = 10.0  # a loading engine may be slow to answer; a lost answer must not last for ever


def main() -> int:
    path, seconds = sys.argv[1], float(sys.argv[2])
    engine_pid = int(environ["MAINPID"])
    began = monotonic()
    status = "no answer yet"
    while (elapsed := monotonic() - began) < seconds:
        status = _health(path, min(_ANSWER_SECONDS, seconds - elapsed))
        if status == "200":
            return 0
        if not _runs(engine_pid):
            return 0  # how the engine ended decides, not this hook: it may have been told to stop
        # 1 ms at first, for models that load in 30 ms; a fiftieth of the wait later, at most 50 ms.
        sleep(min(0.05, max(0.001, elapsed / 50)))
    print(f"Not ready after {seconds:.0f} s; the last answer to /health was: {status}", file=sys.stderr)
    return 1


def _health(path: str, seconds: float) -> str:
    """The status of GET /health, or why there was none."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect(path)
        connection.sendall(_REQUEST)
        words = connection.recv(64).split(None, 2)
        return words[1].decode("ascii", "replace") if len(words) > 1 else "an empty answer"
    except OSError as error:  # not listening yet, or gone again
        return str(error)
    finally:
        connection.close()


def _runs(pid: int) -> bool:
    try:
        kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
