"""The language of the project: plain English in what a person reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import words


@pytest.mark.parametrize("group", words.BUDGETS)
def test_archaic_turns_stay_within_the_budget(group: str) -> None:
    found = words.count(group)
    assert found.words > 5000
    assert found.per_thousand <= words.BUDGETS[group], "\n".join(found.hits)


def test_comments_docstrings_and_messages_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "ROOT", tmp_path)
    (tmp_path / "mmd").mkdir()
    (tmp_path / "mmd/a.py").write_text(
        '"""It is to be read."""\n'
        "nobody = 1  # anew\n"
        'print("waits in vain", "anew", f"{nobody} for want of {nobody}")\n'
    )  # fmt: skip
    found = words.count("mmd")
    assert [hit.split(" in: ")[0] for hit in found.hits] == [
        "mmd/a.py:2: 'anew'",
        "mmd/a.py:1: 'is to be'",
        "mmd/a.py:3: 'in vain'",
        "mmd/a.py:3: 'for want of'",
    ]
    assert found.words == 2 + 5 + 3 + 5
