"""`mmd key`: its output and its errors."""

from __future__ import annotations

import json
from pathlib import Path

from mmd.gateway.http.api_keys import KeyFile, Purpose, digest
from tests.unit.cli.test_cli import mmd, refused


def test_key_is_printed_once_and_alone() -> None:
    made = mmd("key", "add", "laptop")
    assert made.returncode == 0
    (key,) = made.stdout.splitlines()
    (kept,) = KeyFile().all()
    assert (kept.sha256, kept.purpose) == (digest(key), Purpose.INFERENCE)
    assert key not in made.stderr
    listed = mmd("key", "list", "--json")
    assert key not in listed.stdout
    assert json.loads(listed.stdout) == [{"name": "laptop", "for": "inference", "made": kept.made}]
    said, hint = refused(mmd("key", "add", "laptop"), 2)
    assert "already" in said and hint.startswith("mmd key remove laptop")


def test_last_key_goes_unless_other_machines_could_connect(own_home: Path) -> None:
    KeyFile().add("a", Purpose.MANAGEMENT)
    file = own_home / ".config/mmd/mmd.toml"
    file.write_text('[gateway]\nembedding_listen = "0.0.0.0:8085"\n')
    said, hint = refused(mmd("key", "remove", "a"), 2)
    assert "other machines" in said and "mmd key add" in hint
    file.write_text("")
    done = mmd("key", "remove", "a")
    assert (done.returncode, done.stdout) == (0, "")
    assert "every user of this machine" in done.stderr
    refused(mmd("key", "remove", "a"), 2)
    assert "none is required" in mmd("key", "list").stderr


def test_exposed_gateway_is_installed_with_a_key_only(own_home: Path) -> None:
    file = own_home / ".config/mmd/mmd.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[gateway]\nlisten = "0.0.0.0:8000"\n')
    said, hint = refused(mmd("install"), 2)
    assert "can be reached from other machines" in said and "mmd key add" in hint
    KeyFile().add("a", Purpose.INFERENCE)
    refused(mmd("install"), 1)  # the user manager is missing here
