"""The check of commit subjects, as the commit-msg hook runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commit_subject import main, objection


@pytest.mark.parametrize(
    "subject",
    ["gateway: drop the second timer", "cli, man: name the unit of --idle", 'Revert "cli: add x"', "fixup! cli: add x"],
)
def test_subject_in_the_imperative_passes(subject: str) -> None:
    assert objection(f"{subject}\n\nWhy.\n") == ""


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        ("Add a timer", "area"),
        ("gateway: added a timer", "`added` is not in the list"),
        ("gateway: a timer", "`a` is not in the list"),
        (f"gateway: add {'a' * 48}", "61 characters"),
        ("gateway: add a timer.", "full stop"),
    ],
)
def test_other_subject_is_refused(subject: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = tmp_path / "COMMIT_EDITMSG"
    message.write_text(f"{subject}\n")
    assert main(str(message)) == 1
    assert why in capsys.readouterr().err
