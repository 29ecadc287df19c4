"""Fresh Debian roots, one for each suite, and what apt fetches into machines made from them; both are kept in the
cache.

Run as a program it makes the missing roots: python -m tests.machine.debian SUITE…
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests import cgroups

# A small server before mmd is installed. Neither dbus-user-session nor libgomp1 nor Python: mmd's package must bring
# what it needs.
PACKAGES = ("ca-certificates", "dbus", "libpam-systemd", "systemd", "systemd-sysv")
_MIRROR = "http://deb.debian.org"
_TESTING = "forky"  # it gets its security updates with all the others
# debootstrap refuses a suite newer than itself; for twenty years all suites have been made in the same way.
_SCRIPT = "/usr/share/debootstrap/scripts/sid"
_MAKING_SECONDS = 900
# Read at import: each test has a home of its own.
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmd-test"


def base(suite: str) -> Path:
    """Return the folder of a fresh Debian."""
    recipe = repr((PACKAGES, _apt_files(suite)))
    return kept(f"debian-{suite}", recipe, lambda target: _debootstrap(suite, target))


def kept(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return this folder of the cache; make it if its recipe has changed."""
    folder = _CACHE / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:8]}"
    with _only_one(_CACHE / f"{name}.lock"):
        if not folder.exists():
            for other in _CACHE.glob(f"{name}-*"):
                remove(other)
            partial = folder.with_suffix(".partial")
            make(partial)
            partial.rename(folder)
    return folder


def in_root(root: Path, command: str, *options: str, seconds: float) -> None:
    """Run a shell command as root in a Debian that is not booted, with this machine's network."""
    words = [*nspawn(root), *options, "--pipe", "/bin/sh", "-ec", f"export DEBIAN_FRONTEND=noninteractive; {command}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def nspawn(root: Path) -> list[str]:
    name = root.parent.name.replace("_", "0")  # a host name does not end with "-" either
    words = ["systemd-nspawn", "--quiet", "--register=no", f"--directory={root}", f"--machine={name}"]
    # Without it systemd makes a scope, if it runs.
    return words if cgroups.booted_with_systemd() else [*words, "--keep-unit"]


def apt_install(suite: str, root: Path, packages: Sequence[str], *options: str, seconds: float) -> None:
    """Run apt-get install with these options in a Debian that is not booted. It fetches what the cache lacks; if the
    archive is out of reach, what the cache has must do.
    """
    command = f"apt-get -qq update || true; apt-get -qq --yes {shlex.join(options)} install {shlex.join(packages)}"
    with _only_one(_apt_folder(suite) / "lock"):  # apt itself would not wait
        in_root(root, command, *apt_cache(suite, "--bind"), seconds=seconds)


def apt_cache(suite: str, bind: str = "--bind-ro") -> list[str]:
    """Return options of systemd-nspawn with which apt finds lists and packages in the cache."""
    folder = _apt_folder(suite)
    return [f"{bind}={folder}/archives:/var/cache/apt/archives", f"{bind}={folder}/lists:/var/lib/apt/lists"]


def copy(root: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", str(root), str(target)], check=True, timeout=300)


def remove(folder: Path) -> None:
    if folder.exists():
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", str(folder)], check=True, timeout=120)


@contextmanager
def _only_one(lock_file: Path) -> Iterator[None]:
    """Two runs of the tests may share the cache."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _debootstrap(suite: str, target: Path) -> None:
    remove(target)
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


def _apt_folder(suite: str) -> Path:
    folder = _CACHE / f"apt-{suite}"
    for name in ("archives", "lists"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def _apt_files(suite: str) -> dict[str, str]:
    security = "" if suite == _TESTING else f"deb {_MIRROR}/debian-security {suite}-security main\n"
    return {
        "sources.list": f"deb {_MIRROR}/debian {suite} main\n{security}",
        # A mirror that is frozen on purpose has an old Release file.
        "apt.conf.d/50machine": 'Acquire::Languages "none";\nAcquire::Check-Valid-Until "false";\n',
    }


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"A fresh Debian {name}: where there is none yet, it is made in a minute or two", flush=True)
        base(name)
