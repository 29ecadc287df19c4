"""Tests of tests/systemd on the systemd of other Debian releases, by an ordinary user with a user manager of its own.

`make test` runs them on this machine's systemd. Run by `make test-boot`: MMD_TEST_SUITES names the Debian releases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.machine.checkout import CHECKOUT, PYTHON, base_with_python, copy_checkout, is_host
from tests.machine.machine import SUITES, USER, Machine, new_machine

_NEED_MORE_PACKAGES = ("metrics", "records", "status_line")
_HARDLY_USE_SYSTEMD = ("doctor", "doors", "expose", "gateway_names", "measure", "pull")
_FILES = sorted(
    name
    for file in (CHECKOUT / "tests/systemd").glob("test_*.py")
    if (name := file.stem.removeprefix("test_")) not in (*_NEED_MORE_PACKAGES, *_HARDLY_USE_SYSTEMD)
)
_FILE_SECONDS = 600

pytestmark = [pytest.mark.timeout(_FILE_SECONDS + 100), pytest.mark.machine]


@pytest.fixture(autouse=True)
def steps_before_succeeded() -> None:
    """Replace the fixture of the other tests here: these do not build on each other."""


@pytest.fixture(scope="module", params=SUITES)
def release(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted machine with this checkout in the home of a user who lingers."""
    suite = request.param
    if is_host(suite):
        pytest.skip(f"make test runs them on this machine, which is {suite} itself")
    with new_machine(suite, base_with_python(suite)) as made:
        copy_checkout(made.home / "mmd")
        made.prepare(f"chown -R {USER}:{USER} /home/{USER}/mmd")
        made.boot()
        made.run(f"loginctl enable-linger {USER}", user="root")
        yield made


@pytest.mark.parametrize("name", _FILES)
def test_systemd_tests_pass_on(release: Machine, name: str, record_property: Callable[[str, object], None]) -> None:
    # An interrupt, so that pytest still shows what has failed when the time is up.
    words = f"timeout --signal=INT --kill-after=20 {_FILE_SECONDS} {PYTHON} -m pytest -q -ra --color=no --durations=3"
    done = release.attempt(f"cd mmd && {words} tests/systemd/test_{name}.py", seconds=_FILE_SECONDS + 60)
    summary = (done.stdout.splitlines() or ["no output"])[-1]
    record_property("summary", f"{release.run('systemctl --version').splitlines()[0]}: test_{name}: {summary}")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
