"""Units of measure as text."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmd.quantities import GIB, MIB, clock_text, count_text, median, rate_text, read_size, size_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (size_text(0), "0.0 MiB"),
        (size_text(102 * MIB), "102.0 MiB"),
        (size_text(GIB // 10), "0.1 GiB"),
        (size_text(4.25 * GIB), "4.2 GiB"),
        (rate_text(1.5 * MIB), "1.5 MiB/s"),
        (rate_text(38.4 * MIB), "38 MiB/s"),
        (clock_text(-1), "0:00"),
        (clock_text(245), "4:05"),
        (clock_text(3845), "1:04:05"),
        (count_text(8_190_000_000), "8.19 B"),
        (count_text(135_000_000), "135 M"),
        (count_text(999), "999"),
    ],
)
def test_text(text: str, expected: str) -> None:
    assert text == expected


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_median(values: list[float]) -> None:
    assert median(values) == statistics.median(values)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("10G", 10 * GIB),
        ("15.5 GiB", int(15.5 * GIB)),
        ("512M", 512 * MIB),
        (" 1 TB ", 1024 * GIB),
        ("10", None),
        ("G", None),
        ("-1G", None),
        ("1 G 2", None),
        ("", None),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size_bytes: int | None) -> None:
    assert read_size(text) == size_bytes
