"""What mmd.toml says about idle models, and how a change of it is noticed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mmd.codec import encode
from mmd.control.lifecycle.idle_rules import IdleRules, pinned_models, rules_of
from mmd.paths import config_file
from mmd.plan.idle import Rules
from mmd.settings import read_settings


@pytest.fixture
def file(own_home: Path) -> Path:
    config_file().parent.mkdir(parents=True)
    return config_file()


def test_without_a_word_models_stay(own_home: Path) -> None:
    assert rules_of("a", read_settings()) == Rules(math.inf, math.inf, pinned=False)
    assert encode(Rules()) == b'{"sleep_seconds":null,"stop_seconds":null,"pinned":false}'


def test_what_a_model_is_given_goes_before_what_all_are(file: Path) -> None:
    file.write_text(
        "[gateway]\nidle_sleep_seconds = 600\nidle_stop_seconds = 3600\n"
        "[models.a]\nidle_sleep_seconds = 0\n[models.b]\nidle_stop_seconds = 60\npinned = true\n"
    )
    settings = read_settings()
    assert rules_of("a", settings) == Rules(math.inf, 3600)
    assert rules_of("b", settings) == Rules(600, 60, pinned=True)
    assert rules_of("c", settings) == Rules(600, 3600)
    assert pinned_models(settings) == {"b"}


def test_a_change_is_noticed_and_a_damaged_file_changes_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    idleness = IdleRules(read_settings())
    assert (idleness.rules_of("a"), idleness.pinned()) == (Rules(), frozenset())
    file.write_text("[models.a]\nidle_sleep_seconds = 5\npinned = true\n")
    assert (idleness.rules_of("a"), idleness.pinned()) == (Rules(5, pinned=True), {"a"})
    file.write_text("[models.a\n")
    assert (idleness.rules_of("a"), idleness.pinned()) == (Rules(5, pinned=True), {"a"})
    assert "is not TOML" in caplog.text
    assert len(caplog.records) == 1, "said once"
    file.unlink()
    assert (idleness.rules_of("a"), idleness.pinned()) == (Rules(), frozenset())
