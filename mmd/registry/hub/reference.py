"""References to a model on the hub: OWNER/NAME, optionally with a file or quantisation, or the URL of its page."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from mmd.errors import WrongUsage

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_NOT_OWNERS = ("datasets", "spaces", "api")
_VIEWS = ("blob", "resolve", "raw", "tree")


@dataclass(frozen=True, slots=True)
class Reference:
    repository: str
    file: str | None = None  # a file, or a word in its name
    revision: str | None = None


def parse(text: str, endpoint: str) -> Reference:
    """Parse a reference. `endpoint`: the URL of the hub in use, if not the public one. Raises WrongUsage."""
    link = urlsplit(text)
    if link.scheme in ("http", "https"):
        if link.hostname not in _HOSTS and link.netloc != urlsplit(endpoint).netloc:
            raise _unknown(text)
        path = link.path
    else:
        path = text.removeprefix("hf:").removeprefix("//")
        host, _, rest = path.partition("/")
        path = rest if host in _HOSTS else path
    reference = _from_words([unquote(word) for word in path.strip("/").split("/")])
    if reference is None:
        raise _unknown(text)
    return reference


def _from_words(words: list[str]) -> Reference | None:
    match words:
        case [_, _, view, revision, *below] if view in _VIEWS:
            return Reference("/".join(words[:2]), "/".join(below) or None if view != "tree" else None, revision)
        case [owner, name, *_] if owner not in _NOT_OWNERS:
            name, colon, file = "/".join(words[1:]).partition(":")
            if owner and name and "/" not in name and (file or not colon):
                return Reference(f"{owner}/{name}", file or None)
    return None


def _unknown(text: str) -> WrongUsage:
    return WrongUsage(
        f"{text!r} does not name a model on the hub", hint="mmd pull OWNER/NAME:FILE   # or the URL of its page"
    )
