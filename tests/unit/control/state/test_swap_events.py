from __future__ import annotations

import json
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mmd.control.state.swap_events import Outcome, SwapEvent, events_file, expected_seconds, keep, recent


def event(model: str = "a", outcome: Outcome = "resident", *, why: str = "not loaded", **phases: float) -> SwapEvent:
    return SwapEvent(
        at="2026-11-21T05:00:00.000+00:00",
        model=model,
        evicted=(),
        outcome=outcome,
        why=why,
        cause="" if outcome == "resident" else "it died",
        seconds=sum(phases.values()),
        phases=phases,
    )


def test_events_are_kept_in_their_order() -> None:
    kept = [event(load=1.0), event("b", "failed"), event(wake=0.5, canary=0.1)]
    for one in kept:
        keep(one)
    assert recent() == kept
    assert recent(2) == kept[1:]
    assert recent(0) == []


def test_what_an_engine_said_is_on_record_too() -> None:
    failed = replace(event(outcome="failed"), engine_lines=("loading", "gronk \udcff" * 3000))
    keep(failed)
    with events_file().open("a") as file:  # of a version that did not note it
        file.write(json.dumps({k: v for k, v in asdict(event("b")).items() if k != "engine_lines"}) + "\n")
    noted, older = recent()
    assert noted.engine_lines == ("loading", "gronk ?" * 3000)
    assert older == event("b")


@pytest.mark.parametrize(("evicted", "expected"), [(None, ()), ("b", ("b",))])
def test_event_of_an_older_mmd_has_one_evicted_model(evicted: str | None, expected: tuple[str, ...]) -> None:
    """`evicted` was one model or null in mmd 0.1."""
    keep(event("c"))
    old = {k: v for k, v in asdict(event("a")).items() if k != "why_evicted"} | {"evicted": evicted}
    with events_file().open("a") as file:
        file.write(json.dumps(old) + "\n")
    newer, older = recent()
    assert newer == event("c")
    assert older == replace(event("a"), evicted=expected)


def test_nothing_is_on_record_before_the_first() -> None:
    assert recent() == []
    assert expected_seconds("load") == {}


def test_only_the_owner_may_look() -> None:
    keep(event())
    assert stat.S_IMODE(events_file().parent.stat().st_mode) == 0o700


def test_what_to_expect_is_the_median_of_the_newest_that_came_up() -> None:
    for seconds in (100.0, 1.0, 2.0, 3.0, 4.0, 50.0):
        keep(event(load=seconds))
    keep(event(outcome="failed", load=9.0))
    keep(event("b", load=7.0))
    keep(event(wake=0.2))
    assert expected_seconds("load") == {"a": 3.0, "b": 7.0}
    assert expected_seconds("wake") == {"a": 0.2}


def test_old_events_go_and_the_newest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmd.control.state.swap_events._MAX_FILE_BYTES", 2000)
    for number in range(100):
        keep(event(f"m{number}"))
    kept = [one.model for one in recent()]
    assert kept[-1] == "m99"
    assert 5 < len(kept) < 40
    assert kept == [f"m{number}" for number in range(100 - len(kept), 100)]


def test_invalid_line_is_logged_and_skipped(caplog: pytest.LogCaptureFixture) -> None:
    keep(event("a"))
    with events_file().open("a") as file:
        file.write('{"at": "cut sho\n[]\n{"other": 1}\n')
        file.write(json.dumps(asdict(event("c")) | {"phases": None}) + "\n")
    keep(event("b"))
    assert [one.model for one in recent()] == ["a", "b"]
    assert caplog.text.count("has a damaged line") == 4


def test_event_that_cannot_be_written_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    events_file().parent.parent.mkdir(parents=True)
    events_file().parent.write_text("a file where the folder should be")
    keep(event())
    assert "could not be written" in caplog.text


def test_rotated_name_is_beside(own_home: Path) -> None:
    assert events_file().parent == own_home / ".local/state/mmd"


def test_two_that_find_the_file_full_put_it_aside_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second used to put the new file, of one line, in place of all older ones."""
    monkeypatch.setattr("mmd.control.state.swap_events._MAX_FILE_BYTES", 500)
    keep(event("old", why="x" * 500))

    def another_was_first(*_: object) -> None:
        events_file().replace(events_file().with_suffix(".1.jsonl"))
        keep(event("anothers"))

    monkeypatch.setattr("mmd.files.fcntl.flock", another_was_first)
    keep(event("ours"))
    assert [one.model for one in recent()] == ["old", "anothers", "ours"]
