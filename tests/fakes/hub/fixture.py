"""The fixture `hub`: the fake hub, for this process and the programs it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.hub.server import FakeHub, fake_hub

_VARIABLES = ("HF_", "HUGGING", "http_", "https_", "HTTP")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, own_home: Path) -> Iterator[FakeHub]:
    """A hub without repositories, in place of huggingface.co; the cache and the token are in the test's home."""
    # huggingface_hub reads its variables once, at import: import it before they are set.
    from huggingface_hub import close_session, constants

    for name in [name for name in os.environ if name.startswith(_VARIABLES)]:
        monkeypatch.delenv(name)
    cache = own_home / ".cache/huggingface"
    with fake_hub() as hub:
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(cache / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub
    close_session()
