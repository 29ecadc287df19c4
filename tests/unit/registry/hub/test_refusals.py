"""Errors of the hub, each with its own hint."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mmd.errors import HubUnavailable, MmdError, NoSuchRepository, RepositoryGated
from mmd.registry.hub.api import ask, hub_errors, read_repository
from mmd.registry.hub.search import Query, search
from tests.fakes.hub import STRANGER, TOKEN, FakeHub, FakeRepository, Refusal

_FILE = "/me/model/resolve/main/a.gguf"


@pytest.fixture(autouse=True)
def gated(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub has one gated repository, and `hf` is on PATH."""
    hub.repositories = {"me/model": FakeRepository({"a.gguf": b"GGUF"}, gated=True)}
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))


def refused() -> MmdError:
    """Return the error for a file of a gated repository."""
    with pytest.raises(MmdError) as caught, hub_errors("me/model"):
        ask(_FILE, {})
    assert "\n" not in caught.value.message
    return caught.value


def test_gated_without_sign_in(hub: FakeHub) -> None:
    error = refused()
    assert isinstance(error, RepositoryGated)
    assert error.hint == f"hf auth login   # after you have accepted it at {hub.url}/me/model"


def test_gated_without_acceptance(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    error = refused()
    assert isinstance(error, RepositoryGated) and "no access" in error.message
    assert error.hint.startswith(f"xdg-open {hub.url}/me/model ") and "hf auth whoami" in error.hint


def test_gated_with_a_pending_request(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", STRANGER)
    said = "Your request to access model me/model is awaiting a review from the repo authors."
    hub.faults = [Refusal(403, said, {"X-Error-Code": "GatedRepo"}, on="/resolve/")]
    error = refused()
    assert isinstance(error, RepositoryGated) and "not yet answered" in error.message
    assert error.hint.startswith(f"xdg-open {hub.url}/me/model ")


def test_what_a_gated_repository_holds_may_be_looked_at(hub: FakeHub) -> None:
    assert [file.name for file in read_repository("me/model").files] == ["a.gguf"]


def test_a_token_of_the_environment_that_expired(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    error = refused()
    assert isinstance(error, RepositoryGated) and "expired" in error.message
    assert error.hint.startswith("unset HF_TOKEN; hf auth login ") and f"{hub.url}/settings/tokens" in error.hint


def test_a_token_of_hf_auth_login_that_expired(own_home: Path) -> None:
    token = own_home / ".cache/huggingface/token"
    token.parent.mkdir(parents=True)
    token.write_text("hf_expired")
    assert refused().hint.startswith("hf auth login ")


def test_a_token_without_the_permission(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = (
        "Please enable access to public gated repositories in your fine-grained token settings to view this repository."
    )
    hub.faults = [Refusal(403, said, on="/resolve/")]
    error = refused()
    assert isinstance(error, RepositoryGated)
    assert error.hint.startswith(f"xdg-open {hub.url}/settings/tokens ")


def test_another_reason_is_quoted(hub: FakeHub) -> None:
    hub.faults = [Refusal(403, "Not from your country.", on="/resolve/")]
    assert "Not from your country" in refused().message


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_hub_that_fails(hub: FakeHub, status: int) -> None:
    hub.faults = [Refusal(status, on="/resolve/")]
    error = refused()
    assert isinstance(error, HubUnavailable) and str(status) in error.message


def test_a_repository_that_was_disabled(hub: FakeHub) -> None:
    hub.faults = [Refusal(403, "Access to this resource is disabled.", on="/resolve/")]
    assert isinstance(refused(), NoSuchRepository)


def test_what_is_not_there(hub: FakeHub) -> None:
    with pytest.raises(NoSuchRepository, match="no such repository"):
        read_repository("me/other")
    with pytest.raises(NoSuchRepository, match="no such revision of me/model"):
        read_repository("me/model", "v2")
    hub.repositories["me/model"].gated = False
    gone = r"lists a file of me/model that it does not have: .*/gone\.gguf"
    with pytest.raises(HubUnavailable, match=gone), hub_errors("me/model"):
        ask("/me/model/resolve/main/gone.gguf", {})


def test_html_page_instead_of_a_record(hub: FakeHub) -> None:
    """A login page of a hotel's network has status 200; it ended in a traceback."""
    hub.faults = [Refusal(200, on="/api/")]
    with pytest.raises(HubUnavailable, match="is not valid: it is not JSON"):
        read_repository("me/model")
    with pytest.raises(HubUnavailable, match="is not valid: it is not JSON"):
        search(Query("model", 5))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://[::1", "ftp://proxy.example"])
def test_a_proxy_that_cannot_be_used(proxy: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", proxy)
    with pytest.raises(HubUnavailable, match="the proxy set in the environment cannot be used: ") as caught:
        read_repository("me/model")
    assert caught.value.hint.startswith("env | grep -i _proxy=")


def test_invalid_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://[::1")
    with pytest.raises(HubUnavailable, match="HF_ENDPOINT is not a URL"):
        read_repository("me/model")
