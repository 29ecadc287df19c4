"""Fresh Debian roots, one a suite, and what apt fetches into machines made from them; both are kept in the cache.

Run as a program it makes the roots that are not there yet: python -m tests.machine.debian SUITE…
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

# A small server before anybody installs mmd. Neither dbus-user-session nor libgomp1 nor Python: mmd's package must
# bring what it needs.
PACKAGES = ("ca-certificates", "dbus", "libpam-systemd", "systemd", "systemd-sysv")
_MIRROR = "http://deb.debian.org"
_TESTING = "forky"  # it gets its security updates with all the others
# debootstrap refuses a suite newer than itself; for twenty years they have all been made in the same way.
_SCRIPT = "/usr/share/debootstrap/scripts/sid"
_MAKING_SECONDS = 900


def base(suite: str) -> Path:
    """The folder of a fresh Debian, made where the cache has none of today's recipe."""
    recipe = "\n".join((*PACKAGES, *_apt_files(suite).values()))
    folder = _cache() / f"debian-{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    if not folder.exists():
        for other in _cache().glob(f"debian-{suite}-*"):
            remove(other)
        partial = folder.with_suffix(".partial")
        _debootstrap(suite, partial)
        partial.rename(folder)
    return folder


def in_root(root: Path, command: str, *options: str, seconds: float) -> None:
    """Run a shell command as root in a Debian that is not booted, with this machine's network."""
    words = [*nspawn(root), *options, "--pipe", "/bin/sh", "-ec", f"export DEBIAN_FRONTEND=noninteractive; {command}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def nspawn(root: Path) -> list[str]:
    return ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", f"--directory={root}"]


def apt_cache(suite: str) -> list[str]:
    """Options of systemd-nspawn, with which apt keeps lists and packages here: it fetches each of them once, and a
    machine without a network has those that an earlier one, with a network, has fetched.
    """
    options = []
    for name, place in (("archives", "/var/cache/apt/archives"), ("lists", "/var/lib/apt/lists")):
        folder = _cache() / f"apt-{suite}" / name
        folder.mkdir(parents=True, exist_ok=True)
        options.append(f"--bind={folder}:{place}")
    return options


def remove(folder: Path) -> None:
    if folder.exists():
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(folder)], check=True, timeout=120)


def _debootstrap(suite: str, target: Path) -> None:
    remove(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    run = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    run += [suite, str(target), f"{_MIRROR}/debian", _SCRIPT]
    log = target.with_suffix(".log")
    with log.open("wb") as output:
        done = subprocess.run(run, check=False, stdout=output, stderr=output, timeout=_MAKING_SECONDS)
    assert done.returncode == 0, f"debootstrap {suite}: {log.read_text()[-2000:]}"
    log.unlink()
    for name, text in _apt_files(suite).items():
        (target / "etc/apt" / name).write_text(text)
    # apt_cache() has them; here they would be copied into every machine.
    in_root(target, "apt-get clean; rm -rf /var/lib/apt/lists/*", seconds=60)


def _apt_files(suite: str) -> dict[str, str]:
    security = "" if suite == _TESTING else f"deb {_MIRROR}/debian-security {suite}-security main\n"
    return {
        "sources.list": f"deb {_MIRROR}/debian {suite} main\n{security}",
        "apt.conf.d/50mmd-test": 'Acquire::Languages "none";\n',
    }


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmd-test"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"A fresh Debian {name}, made once, in a minute: {base(name)}", flush=True)
