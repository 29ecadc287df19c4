"""The fingerprint in responses as vLLM gives them: compact JSON with any token."""

from __future__ import annotations

from types import ModuleType

import pytest

from tests.unit.hooks.test_sleep_hooks import HOOKS


@pytest.fixture
def wake_check(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import it by path, as hooks do."""
    monkeypatch.syspath_prepend(HOOKS)
    import wake_check

    assert isinstance(wake_check, ModuleType)
    return wake_check


@pytest.mark.parametrize("token", ['" Paris"', '""', '","', '", "', r'"\",\""', r'"\\"', '"}"', r'"\u00e9"'])
def test_token_is_cut_out_whole(wake_check: ModuleType, token: str) -> None:
    body = f'{{"object":"text_completion","choices":[{{"index":0,"text":{token},"logprobs":null}}]}}'
    assert wake_check.telling_part(body.encode(), b'"text":') == token


def test_score_is_cut_out(wake_check: ModuleType) -> None:
    body = b'{"data":[{"index":0,"object":"score","score":0.25}],"usage":{}}'
    assert wake_check.telling_part(body, b'"score":') == "0.25"


def test_vector_is_cut_short(wake_check: ModuleType) -> None:
    body = b'{"data":[{"object":"embedding","embedding":[0.5,-1e-05' + b",1" * 4000 + b"]}]}"
    assert wake_check.telling_part(body, b'"embedding":') == "0.5,-1e-05" + ",1" * 14


@pytest.mark.parametrize(
    ("fingerprint", "is_one"),
    [
        ('""', True),
        ("0.5", True),
        ("0.0,0.5", True),
        ("0.0,0.0", False),
        ("NaN,1", False),
        ("null", False),
        ("", False),
    ],
)
def test_nonsense_is_not_a_fingerprint(wake_check: ModuleType, fingerprint: str, is_one: bool) -> None:
    assert wake_check.is_plausible(fingerprint) is is_one


@pytest.mark.parametrize(
    ("fingerprint", "recorded", "is_same"),
    [
        ('" Paris"', '" Paris"', True),
        ('" Paris"', '" paris"', False),
        ('"1.0"', '"1.001"', False),
        ("1.0,0.001", "1.001,0.009", True),
        ("1.0,0.1", "1.0,0.2", False),
        ("1.0", "1.0,0.2", False),
        ("", '" Paris"', False),
    ],
)
def test_fingerprint_is_the_same(wake_check: ModuleType, fingerprint: str, recorded: str, is_same: bool) -> None:
    assert wake_check.is_same(fingerprint, recorded) is is_same
