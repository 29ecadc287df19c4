"""Mark the unit tests that need a C compiler: `make test-unit` leaves them out."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "nvml_folder" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.tools)
