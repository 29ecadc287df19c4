"""What the maintainer scripts ask of each user manager, recorded by a fake systemctl."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[4] / "packaging/user-managers"
OURS = "{ path=/usr/bin/mmd ; argv[]=/usr/bin/mmd gateway ; ignore_errors=no }"
PIPX = "{ path=/home/ada/.local/bin/python3 ; argv[]=/home/ada/.local/bin/python3 -P -m mmd gateway }"
# An argument is --machine=USER@; what the user's mmd.service starts is in the file of that name.
SYSTEMCTL = """#!/bin/sh
cd "${0%/*}"
case $* in
list-units*) for user in 1???; do echo "user@$user.service loaded active running User Manager"; done ;;
*" show "*) user=${2#--machine=}; cat "${user%@}" && { [ ! -p "${user%@}" ] || rm "${user%@}"; } ;;
*) echo "$*" >>told; [ ! -p 1000 ] || cat 1001 >1000 ;;
esac
"""


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """A folder with one file per user."""
    for path, text in (("systemctl", SYSTEMCTL), ("user-managers", SCRIPT.read_text())):
        here = text.replace("/run/systemd/system", str(tmp_path))
        (tmp_path / path).write_text(here.replace("/usr/sbin/policy-rc.d", str(tmp_path / "policy-rc.d")))
        (tmp_path / path).chmod(0o755)
    return tmp_path


def call(users: Path, *words: str) -> tuple[set[str], str]:
    """Return the recorded calls and the output."""
    environment = os.environ | {"PATH": f"{users}:{os.environ['PATH']}"}
    done = subprocess.run(
        [users / "user-managers", *words], env=environment, capture_output=True, text=True, check=True, timeout=30
    )
    told = users / "told"
    return set(told.read_text().splitlines() if told.exists() else ()), done.stderr


def test_models_of_another_mmd_run_on(users: Path) -> None:
    for user, starts in {"1000": PIPX, "1001": OURS, "1002": ""}.items():
        (users / user).write_text(starts)
    assert call(users, "stop", "mmd.slice") == (
        {f"--user --machine={user}@ --quiet stop mmd.slice" for user in ("1001", "1002")},
        "",
    )


def test_slow_manager_does_not_delay_others(users: Path) -> None:
    """The first answers only after the second was called, and then fails."""
    os.mkfifo(users / "1000")
    (users / "1001").write_text(OURS)
    (users / "1002").mkdir()  # makes cat fail
    told, said = call(users, "daemon-reload")
    assert told == {f"--user --machine={user}@ --quiet daemon-reload" for user in ("1000", "1001")}
    assert said.splitlines()[-1] == "mmd: user@1002.service did not daemon-reload"


def test_policy_rc_d_is_obeyed(users: Path) -> None:
    (users / "1000").write_text(OURS)
    (users / "policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    (users / "policy-rc.d").chmod(0o755)
    assert call(users, "stop", "mmd.slice") == (set(), "")
