"""ExecStart= of every token: enters the model in the ledger, waits for models that are being unloaded, or refuses.

    gate.py ID FOLDER SECONDS DEVICE=NEED/CAPACITY… [wait=ID,ID…] [alone]

The gate prevents two models from taking the same memory, whichever planner, job or command starts the token. NEED and
CAPACITY are MiB. It waits up to SECONDS, and only while the models of `wait=` still hold what it needs. A refusal exits
with 75, and the file `ID~refused` says why; the token fails, and systemd does not start the engine. With `alone`, which
is residency = "one", an awake model on one of the devices is an obstacle even if both would fit.
"""

import os
import sys
from time import monotonic, sleep

sys.path.insert(0, __file__.rpartition("/")[0])  # -I leaves out the script's own folder
import ledger
import record

REFUSED = 75  # EX_TEMPFAIL

_POLL_SECONDS = 0.002
# An engine without a token is stranded only after this time: systemd may be about to remove the token's folder.
_STRANDED_AFTER_SECONDS = 0.5


class Gate:
    """One model's request to hold memory."""

    def __init__(self, words: list[str]) -> None:
        self.model_id, self.folder, seconds, *rest = words
        self.seconds = float(seconds)
        self.needs: dict[str, int] = {}
        self.capacity: dict[str, int] = {}
        self.waits_for: frozenset[str] = frozenset()
        self.alone = "alone" in rest
        for word in rest:
            if word == "alone":
                continue
            name, _, value = word.partition("=")
            if name == "wait":
                self.waits_for = frozenset(value.split(","))
            else:
                need, _, capacity = value.partition("/")
                self.needs[name], self.capacity[name] = int(need), int(capacity)

    def enter(self) -> str:
        """Enter the model in the ledger. Return "", or the reason for the refusal."""
        began = monotonic()
        lock = ledger.Lock(self.folder)
        stranded_since: dict[str, float] = {}
        while True:
            with lock:
                others = ledger.entries(self.folder)
                own = others.pop(self.model_id, {})
                if own != {} and ledger.size_of(self.folder, self.model_id) != self.needs:
                    return "its engine runs with another share"
                blockers = self._blockers(others) | self._neighbours(others)
                if not blockers:
                    ledger.admit(self.folder, self.model_id, self.needs)
                    break
            now = monotonic()
            leaving = blockers & self.waits_for
            for model_id in leaving:
                if ledger.is_stranded(self.folder, model_id):
                    stranded_since.setdefault(model_id, now)
                else:
                    stranded_since.pop(model_id, None)
            if stuck := [one for one in leaving if now - stranded_since.get(one, now) > _STRANDED_AFTER_SECONDS]:
                return f"the engine of {stuck[0]} is awake without a token, so its memory does not become free"
            if not leaving or now - began > self.seconds:
                return self._refusal(others, blockers)
            sleep(_POLL_SECONDS)
        waited_seconds = monotonic() - began
        record.write(f"{self.folder}/{self.model_id}~gate", record.json_line(began=began, wait_seconds=waited_seconds))
        return ""

    def _left(self, others: dict[str, ledger.Entry]) -> dict[str, int]:
        left = dict(self.capacity)
        for entry in others.values():
            for device in left:
                left[device] -= self.capacity[device] if entry is None else entry.get(device, 0)
        return left

    def _blockers(self, others: dict[str, ledger.Entry]) -> set[str]:
        """Return the models that hold memory of a device that has too little left."""
        left = self._left(others)
        short = {device for device, need in self.needs.items() if need > left[device]}
        return {
            model_id
            for model_id, entry in others.items()
            if short and (entry is None or any(entry.get(device) for device in short))
        } or ({""} if short else set())

    def _neighbours(self, others: dict[str, ledger.Entry]) -> set[str]:
        """Return the awake models on its devices, if it must be the only one there."""
        if not self.alone:
            return set()
        return {
            model_id
            for model_id, entry in others.items()
            if "@" not in model_id  # a lease
            and (entry is None or any(entry.get(device) for device in self.needs))
            and ledger.is_awake(self.folder, model_id)
        }

    def _refusal(self, others: dict[str, ledger.Entry], blockers: set[str]) -> str:
        left = ", ".join(f"{max(0, size_mib)} MiB of {device}" for device, size_mib in self._left(others).items())
        needs = ", ".join(f"{size_mib} MiB of {device}" for device, size_mib in self.needs.items())
        beside = ", ".join(
            f"{model_id} ({'the whole machine' if (entry := others[model_id]) is None else ledger.text(entry)})"
            for model_id in sorted(blockers - {""})
        )
        alone = ' on a device without another model (residency = "one")' if self.alone else ""
        return f"it needs {needs}{alone}; {left} is left" + (f" beside {beside}" if beside else "")


def pass_gate(words: list[str]) -> int:
    """Enter the model; return the exit status of the gate."""
    admission = Gate(words)
    path = f"{admission.folder}/{admission.model_id}~refused"
    record.remove(path)
    why_not = admission.enter()
    if not why_not:
        return 0
    print(f"{admission.model_id} is not admitted: {why_not}", file=sys.stderr)
    record.write(path, why_not)
    return REFUSED


if __name__ == "__main__":
    status = pass_gate(sys.argv[1:])
    sys.stderr.flush()
    # The engine starts when this process exits, and the interpreter's clean-up takes as long as the whole gate.
    os._exit(status)
