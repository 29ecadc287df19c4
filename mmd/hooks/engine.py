"""The engine as hooks see it: its unit and processes, and vLLM's sleep API on its socket."""

import os
from time import monotonic, sleep

from engine_http import ask

TYPE_CHECKING = False  # typing itself would have to be imported
if TYPE_CHECKING:
    from vram import Vram

_CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # the second where cgroup v1 is mounted as well
_RELEASE_TIMEOUT_SECONDS = 4.0  # the driver may take so long to notice that a process has ended
_POLL_SECONDS = 0.002


class EngineUnit:
    """The systemd unit of an engine, and the Unix socket that it listens on. systemd owns the unit's state."""

    def __init__(self, *, unit: str, path: str) -> None:
        self.unit = unit
        self.path = path
        # As of the last call of state(): its processes, and whether systemd has begun to restart it.
        self.pids: set[int] = set()
        self.is_restarted = False

    def state(self) -> str:
        """Read the unit's ActiveState. A socket that refuses does not tell loading from dead."""
        shown = _systemctl("show", "--property=ActiveState,SubState,ControlGroup,ExecMainPID", self.unit)
        values = dict(line.partition("=")[::2] for line in shown.splitlines())
        main_pid = int(values.get("ExecMainPID") or 0)
        self.pids = _members(values.get("ControlGroup", "")) | ({main_pid} if main_pid else set())
        self.is_restarted = values.get("SubState") == "auto-restart-queued"
        return values.get("ActiveState", "")

    def post(self, target: str, body: bytes = b"", *, until: float) -> str:
        """Send a POST and return its HTTP status, or the reason why there is none."""
        try:
            return str(ask(self.path, "POST", target, body, until=until)[0])
        except OSError as error:
            return str(error) or type(error).__name__

    def is_sleeping(self, *, until: float) -> bool | None:
        """Ask the engine whether it sleeps; None if it does not answer that."""
        try:
            status, body = ask(self.path, "GET", "/is_sleeping", until=until)
        except OSError:
            return None
        return b"true" in body if status == "200" and b"is_sleeping" in body else None

    def end(self) -> None:
        """Kill all its processes and wait until the unit is down. vLLM loses a SIGTERM while it loads."""
        _systemctl("kill", "--signal=SIGKILL", self.unit)
        # A plain stop would also stop the token, which requires its engine and is starting just now.
        _systemctl("stop", "--job-mode=ignore-requirements", self.unit)
        _systemctl("reset-failed", self.unit)  # it was killed on purpose, so status must not show a failure

    def start_after_token(self) -> None:
        """Have systemd start it after the token that this hook belongs to: tokens are ordered before engines."""
        _systemctl("start", "--no-block", self.unit)

    def wait_until_released(self, vram: "Vram") -> float:
        """Wait until the driver does not list its processes any more; log and return the seconds that took."""
        began = monotonic()
        while (is_listed := vram.lists(self.pids)) and monotonic() - began < _RELEASE_TIMEOUT_SECONDS:
            sleep(_POLL_SECONDS)
        seconds = monotonic() - began
        print(f"GPU {'still in use' if is_listed else 'free'} after {seconds:.3f} s", flush=True)
        return seconds


def own_processes() -> set[int]:
    """Return the processes of this hook's own unit."""
    with open("/proc/self/cgroup", encoding="ascii") as file:  # noqa: PTH123 pathlib is slow to import
        path = next((line.rstrip("\n")[3:] for line in file if line.startswith("0::")), "")
    return _members(path.removesuffix("/.control")) - {os.getpid()}


def _members(cgroup: str) -> set[int]:
    """Return the processes of a control group and of the groups below it."""
    found: set[int] = set()
    for mount in _CGROUPS if cgroup else ():
        for folder, _, _ in os.walk(mount + cgroup):
            try:
                with open(f"{folder}/cgroup.procs", encoding="ascii") as file:  # noqa: PTH123 pathlib is slow to import
                    found |= {int(line) for line in file}
            except OSError:
                continue  # the group has just been removed
    return found


def _systemctl(*words: str) -> str:
    """Run systemctl and return what it prints."""
    read_end, write_end = os.pipe()
    command = ("systemctl", "--user", *words)
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write_end, 1)])
    os.close(write_end)
    with open(read_end, encoding="utf-8", errors="replace") as pipe:  # noqa: PTH123 a descriptor has no path
        text = pipe.read()
    os.waitpid(pid, 0)
    return text
