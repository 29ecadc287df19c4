"""The hooks of the stress: a copy that is broken on purpose, and in which some are killed in the middle.

What the stress does not notice when it is broken, it does not test.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import mmd.hooks


@dataclass(frozen=True)
class Change:
    """A text of a hook, and what replaces it."""

    file: str
    before: str
    after: str


NO_GATE = Change("gate.py", "if not blockers:", "if True:")
# Between the two the token may go; then its model counts as nothing. Here it always goes.
HELD_READ_TWICE = Change(
    "ledger.py",
    """        if held is not None:
            found[model_id] = held
""",
    """        if held is not None:
            for _ in range(2000):
                if _read(f"{folder}/{model_id}~gpu/held") is None:
                    break
                __import__("time").sleep(0.002)
            found[model_id] = _read(f"{folder}/{model_id}~gpu/held") or {}
""",
)
# An engine that is awake counts as one that sleeps, if the wake and then the release are killed.
KEEPS_REMOVED_AFTER_WAKE = Change(
    "wake.py",
    """    record.remove(f"{folder}/keeps")
    why_not = (device == "gpu" and _lacks_room(folder, gate_words)) or _wake(engine, level or 1, float(seconds))
""",
    """    why_not = (device == "gpu" and _lacks_room(folder, gate_words)) or _wake(engine, level or 1, float(seconds))
    record.remove(f"{folder}/keeps")
""",
)
WAKE_IS_KILLED = Change(
    "wake.py",
    """    for target, body in _FROM_RAM if level == 1 else _FROM_NOTHING:
        if (status := engine.post(target, body, until=until)) != "200":
            return f"{target} answered {status}"
""",
    """    for target, body in _FROM_RAM if level == 1 else _FROM_NOTHING:
        if (status := engine.post(target, body, until=until)) != "200":
            return f"{target} answered {status}"
    record.die_if_endangered()
""",
)
RELEASE_IS_KILLED = Change(
    "release.py",
    """        state = self.engine.state()
        why_not =""",
    """        state = self.engine.state()
        record.die_if_endangered()
        why_not =""",
)
# Late enough for the gate of a newcomer to have seen the model.
RELEASE_IS_KILLED_LATE = Change(
    "release.py",
    RELEASE_IS_KILLED.before,
    RELEASE_IS_KILLED.after.replace("record.die", "__import__('time').sleep(0.8)\n        record.die"),
)
# The engine sleeps, and nothing proves it.
RELEASE_IS_KILLED_ASLEEP = Change(
    "release.py",
    """        says = self.engine.is_sleeping(until=self.until)""",
    """        record.die_if_endangered()
        says = self.engine.is_sleeping(until=self.until)""",
)

_DEADLY = "deadly"  # while this file is beside the hooks, some die
# Every hook but `ready` imports record.py. A process that a timer ends is as dead as a killed one.
_DEATH = """
import _signal as _death
from random import random as _random


def is_endangered():
    return os.path.exists(__file__.rpartition("/")[0] + "/{deadly}")


def die_if_endangered():
    if is_endangered():
        os.kill(os.getpid(), 9)


if is_endangered() and _random() < {share}:
    _death.setitimer(_death.ITIMER_REAL, 0.001 + {seconds} * _random())
"""


def hooks_folder(
    folder: Path, *changes: Change, killed_share: float = 0.0, killed_within_seconds: float = 0.06
) -> Path:
    """Copy the hooks into `folder` with these changes; return their folder.

    `killed_share` of their processes die at a random moment, at the latest after `killed_within_seconds`, until `spare`
    is called.
    """
    made = folder / "hooks"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(Path(mmd.hooks.__file__).parent, made, ignore=shutil.ignore_patterns("__pycache__"))
    for change in changes:
        text = (made / change.file).read_text()
        assert text.count(change.before) == 1, f"{change.file} has changed; write this change of it anew: {change}"
        (made / change.file).write_text(text.replace(change.before, change.after))
    record = made / "record.py"
    record.write_text(
        record.read_text() + _DEATH.format(deadly=_DEADLY, share=killed_share, seconds=killed_within_seconds)
    )
    endanger(made)
    return made


def endanger(hooks: Path) -> None:
    """Let hooks die from now on."""
    (hooks / _DEADLY).touch()


def spare(hooks: Path) -> None:
    """Let no hook die any more."""
    (hooks / _DEADLY).unlink(missing_ok=True)
