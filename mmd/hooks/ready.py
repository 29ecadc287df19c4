"""ExecStartPost= of an engine: returns when its health answers 200, so that `active` means that it answers.

    ready.py SOCKET SECONDS [KIND]

It starts while the model loads. systemd lets it go on when the engine dies, so it looks after $MAINPID itself. Only
built-in modules: it must not cost the swap the time to import `http` and `asyncio`.

KIND is of the canary of an engine that can sleep: what it says now is compared with what it says after a wake.
"""

import sys
from _signal import SIGHUP, SIGTERM, signal
from _socket import AF_UNIX, SOCK_STREAM, socket
from os import environ, kill
from time import monotonic, sleep

sys.path.insert(0, __file__.rpartition("/")[0])  # started with -I, which leaves out the script's own folder

_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_RESPONSE_TIMEOUT_SECONDS = 10.0  # a loading engine may be slow to answer; a lost answer must not last for ever
_PROBE_TIMEOUT_SECONDS = 20.0


def main() -> int:
    path, seconds = sys.argv[1], float(sys.argv[2])
    kind = sys.argv[3] if len(sys.argv) > 3 else ""
    engine_pid = int(environ["MAINPID"])
    signal(SIGTERM, lambda *_: _stop_loading(engine_pid))
    if kind:
        _forget(path)
    began = monotonic()
    status = "no answer yet"
    while (elapsed := monotonic() - began) < seconds:
        status = _health(path, min(_RESPONSE_TIMEOUT_SECONDS, seconds - elapsed))
        if status == "200":
            if kind:
                _record_fingerprint(path, kind)
            return 0
        if not _runs(engine_pid):
            return 0  # how the engine ended decides, not this hook: it may have been told to stop
        # 1 ms at first, for models that load in 30 ms; a fiftieth of the wait later, at most 50 ms.
        sleep(min(0.05, max(0.001, elapsed / 50)))
    print(f"Not ready after {seconds:.0f} s; the last answer to /health was: {status}", file=sys.stderr)
    return 1


def _stop_loading(engine_pid: int) -> None:
    """systemd stops the unit, and signals both of us. vLLM loses a SIGTERM that comes while it loads and would be
    waited for; of SIGHUP it dies, and systemd takes that for a clean end.
    """
    if _runs(engine_pid):
        kill(engine_pid, SIGHUP)
    sys.exit(0)


def _forget(path: str) -> None:
    """systemd removes the folder when the engine ends, but not if it was itself killed in between."""
    import record

    for name in ("asleep", "level", "canary"):
        record.remove(f"{record.folder_of(path)}/{name}")


def _record_fingerprint(path: str, kind: str) -> None:
    import record
    from wake_check import probe

    folder = record.folder_of(path)
    fingerprint, why_not = probe(path, folder.rpartition("/")[2], kind, until=monotonic() + _PROBE_TIMEOUT_SECONDS)
    if why_not:
        print(f"Its canary says nothing: {why_not}; after a wake any answer will do", file=sys.stderr)
    else:
        record.write(f"{folder}/canary", fingerprint)


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
