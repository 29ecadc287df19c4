"""ExecStartPost= of an engine: exits when /health answers 200, so that `active` means that the engine serves requests.

    ready.py SOCKET SECONDS [KIND]

It starts while the model loads. systemd does not end it when the engine dies, so it checks $MAINPID itself. It imports
built-in modules only, because the swap waits for it.

KIND is the wake check of an engine that can sleep: the fingerprint recorded now is compared with one after each wake.
"""

import sys
from _signal import SIGHUP, SIGTERM, signal
from _socket import AF_UNIX, SOCK_STREAM, socket
from os import environ, kill
from time import monotonic, sleep

sys.path.insert(0, __file__.rpartition("/")[0])  # -I leaves out the script's own folder

_REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_RESPONSE_TIMEOUT_SECONDS = 10.0  # a loading engine may answer slowly, but a lost response must not block the hook
_PROBE_TIMEOUT_SECONDS = 20.0


def main() -> int:
    path, seconds = sys.argv[1], float(sys.argv[2])
    kind = sys.argv[3] if len(sys.argv) > 3 else ""
    engine_pid = int(environ["MAINPID"])
    signal(SIGTERM, lambda *_: _stop_loading(engine_pid))
    if kind:
        _forget(path)
    began = monotonic()
    status = "none yet"
    while (elapsed := monotonic() - began) < seconds:
        status = _health(path, min(_RESPONSE_TIMEOUT_SECONDS, seconds - elapsed))
        if status == "200":
            _record_processes(path)
            if kind:
                _record_fingerprint(path, kind)
            return 0
        if not _runs(engine_pid):
            return 0  # the engine's exit status decides whether the start failed: it may have been stopped
        # 1 ms at first, for models that load in 30 ms; later 2 % of the time so far, at most 50 ms.
        sleep(min(0.05, max(0.001, elapsed / 50)))
    print(f"Not ready after {seconds:.0f} s; the last response to /health: {status}", file=sys.stderr)
    return 1


def _stop_loading(engine_pid: int) -> None:
    """End a loading engine on systemd's SIGTERM, which both processes get.

    vLLM loses a SIGTERM while it loads, and systemd would wait for it until the stop timeout. SIGHUP kills vLLM, and
    systemd counts it as a clean exit.
    """
    if _runs(engine_pid):
        kill(engine_pid, SIGHUP)
    sys.exit(0)


def _forget(path: str) -> None:
    """Remove the records of an earlier process. systemd removes them with the folder, unless it was killed itself."""
    import record

    for name in ("asleep", "keeps", "level", "canary"):
        record.remove(f"{record.folder_of(path)}/{name}")


def _record_processes(path: str) -> None:
    """Record the engine's processes if it has GPU memory: its stop waits until the driver no longer lists them.

    vLLM's memory belongs to a child process. When the engine has ended, only this record names that process.
    """
    if "GPU-" not in environ.get("MMD_SHARE", ""):
        return
    from engine import own_processes
    from record import folder_of, write

    write(f"{folder_of(path)}/pids", " ".join(str(pid) for pid in own_processes()))


def _record_fingerprint(path: str, kind: str) -> None:
    import record
    from wake_check import probe

    folder = record.folder_of(path)
    fingerprint, why_not = probe(path, folder.rpartition("/")[2], kind, until=monotonic() + _PROBE_TIMEOUT_SECONDS)
    if why_not:
        print(f"The wake check has no fingerprint to compare with: {why_not}", file=sys.stderr)
    else:
        record.write(f"{folder}/canary", fingerprint)


def _health(path: str, seconds: float) -> str:
    """Return the status of GET /health, or the reason why there is none."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.settimeout(seconds)
        connection.connect(path)
        connection.sendall(_REQUEST)
        words = connection.recv(64).split(None, 2)
        return words[1].decode("ascii", "replace") if len(words) > 1 else "an empty answer"
    except OSError as error:  # not listening yet, or not any more
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
