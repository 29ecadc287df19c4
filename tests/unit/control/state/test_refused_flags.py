from __future__ import annotations

from pathlib import Path

import pytest

from mmd.control.state.refused_flags import RefusedFlags
from mmd.errors import StorageFailed


def test_refused_flags_are_kept_by_model_and_engine_version() -> None:
    RefusedFlags().remember("a", "vllm 0.32.0", ["--kv-cache-dtype"], "fp8 is not supported")
    RefusedFlags().remember("a", "vllm 0.32.0", ["--tool-call-parser"], "no such token")
    RefusedFlags().remember("b", "vllm 0.32.0", ["--tool-call-parser"], "no such token")
    assert RefusedFlags().refused("a") == {
        "vllm 0.32.0": {"--kv-cache-dtype": "fp8 is not supported", "--tool-call-parser": "no such token"}
    }
    assert RefusedFlags().refused("c") == {}


def test_forgotten_model_is_asked_again() -> None:
    RefusedFlags().remember("a", "vllm 0.32.0", ["--x"], "no")
    RefusedFlags().forget("a")
    RefusedFlags().forget("never there")
    assert RefusedFlags().refused("a") == {}


@pytest.mark.parametrize("content", ["{", "[1]", "3", '{"a": 3}', '{"a": {"b": []}}'])
def test_damaged_file_is_kept_aside(content: str, caplog: pytest.LogCaptureFixture) -> None:
    RefusedFlags().remember("a", "vllm 0.32.0", ["--x"], "no")
    file = RefusedFlags().file
    file.write_text(content)
    assert RefusedFlags().refused("a") == {}
    assert [kept.read_text() for kept in file.parent.glob("learned.json.damaged-*")] == [content]
    assert "was damaged" in caplog.text
    RefusedFlags().remember("a", "vllm 0.32.0", ["--x"], "no")
    assert RefusedFlags().refused("a")


def test_file_that_cannot_be_used_is_an_error_with_its_reason(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be")
    with pytest.raises(StorageFailed, match=r"cannot be read: Not a directory"):
        RefusedFlags(blocked / "learned.json").refused("a")
    missing = tmp_path / "missing" / "learned.json"
    missing.parent.symlink_to("nowhere")
    with pytest.raises(StorageFailed, match=r"cannot be written"):
        RefusedFlags(missing).remember("a", "vllm 0.32.0", ["--x"], "no")
