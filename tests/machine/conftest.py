"""Each test is a step in the life of a machine, and continues from the state of the step before."""

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
    """Show the machine's state if a step fails: the machine is gone when the report is read."""
    report = yield
    machine = getattr(item, "funcargs", {}).get("machine")
    if report.failed and isinstance(machine, Machine):
        report.sections.append((f"journal of the machine, {machine.suite}", machine.journal()))
        machine.failed_step = item.name
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the summaries of the pytest runs on the machines, also of those that passed."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            for name, value in report.user_properties:
                if name == "summary":
                    terminalreporter.write_line(str(value))
