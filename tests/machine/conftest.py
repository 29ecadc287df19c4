"""Each test is one step in the life of a machine, and takes it as the step before has left it."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.machine.machine import Machine


@pytest.fixture(autouse=True)
def steps_before_succeeded(machine: Machine) -> None:
    if machine.failed_step is not None:
        pytest.skip(f"{machine.failed_step} failed on this machine")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A step that fails shows what the machine says: it is gone when somebody reads the report."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and isinstance(machine, Machine):
        report.sections.append((f"journal of the machine, {machine.suite}", machine.journal()))
        machine.failed_step = item.name
    return report
