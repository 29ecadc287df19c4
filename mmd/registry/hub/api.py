"""What the Hugging Face hub says of its repositories; HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE hold as everywhere."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from mmd.errors import HubUnavailable, NoSpace, StorageFailed, WrongUsage, first_line
from mmd.registry.endpoint import require_usable_endpoint
from mmd.registry.hub.answers import no_sense, record_in
from mmd.registry.hub.files import HubFile
from mmd.registry.hub.listing import Info, base_of, bases_of
from mmd.registry.hub.refusals import refusal
from mmd.registry.licence import licence_of
from mmd.registry.offer import Base
from mmd.registry.record import ModelType

_UNKNOWN = Base(ModelType.CHAT)
_PATIENCE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    id: str
    commit: str
    files: tuple[HubFile, ...]
    licence: str = ""
    base: Base = _UNKNOWN
    bases: tuple[str, ...] = ()  # repositories that it is a quantisation of; itself where it is none


def look(repository: str, revision: str | None = None) -> Repository:
    """A repository's files. Raises NoSuchRepository, RepositoryGated, HubUnavailable and WrongUsage."""
    with hub_errors(repository):
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        validate_repo_id(repository)
        return described(record_in(ask(_address(repository, revision), {"blobs": "true"})), revision)


def _address(repository: str, revision: str | None) -> str:
    return f"/api/models/{repository}" + (f"/revision/{quote(revision, safe='')}" if revision else "")


def described(info: Info, revision: str | None = None) -> Repository:
    """From the hub's record of one, as `record_in` gives it."""
    return Repository(
        id=info["id"],
        commit=info["sha"] or revision or "main",
        files=info["files"],
        licence=licence_of(info.get("cardData") or {}, info["tags"]),
        base=base_of(info),
        bases=bases_of(info),
    )


def ask(path: str, parameters: dict[str, Any]) -> Any:
    """What the hub's API answers. Raises the library's exceptions, see `hub_errors`, and HubUnavailable for no JSON.

    Not by HfApi: that tries six times over half a minute before it says that there is no network.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    headers = build_hf_headers()
    with _proxies_refused():
        response = get_session().get(
            f"{constants.ENDPOINT}{path}", params=parameters, headers=headers, timeout=_PATIENCE_SECONDS
        )
    hf_raise_for_status(response)
    try:
        return response.json()
    except ValueError as error:
        raise no_sense("it is no JSON") from error


@contextmanager
def _proxies_refused() -> Iterator[None]:
    """The environment's proxies are looked at only when the first question is asked."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx or httpx2, by version

    invalid_url: type[Exception] = sys.modules[HTTPError.__module__].InvalidURL
    try:
        yield
    except (invalid_url, ValueError, ImportError) as error:
        why = "SOCKS is not known here" if isinstance(error, ImportError) else first_line(error)
        raise HubUnavailable(
            f"the proxy of the environment cannot be used: {why}",
            hint="env | grep -i _proxy=   # correct it, to one of http:// for instance, or unset it",
        ) from error


@contextmanager
def hub_errors(subject: str) -> Iterator[None]:
    """The library's exceptions as ours; `subject` is what was asked for."""
    require_usable_endpoint()
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise WrongUsage(
            f"{subject!r} is no repository of the hub", hint="mmd search WORDS   # names are OWNER/NAME"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnavailable(
            "HF_HUB_OFFLINE is set, so the hub is not asked",
            hint="unset HF_HUB_OFFLINE   # and systemctl --user unset-environment HF_HUB_OFFLINE",
        ) from error
    except errors.HfHubHTTPError as error:
        raise refusal(subject, error) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(error.__cause__ or error) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # httpx or httpx2, by version
        raise _unreachable(error) from error
    except BrokenPipeError:
        raise  # whom progress was told has gone: neither the hub nor the disk
    except OSError as error:
        raise _storage(error) from error


def _unreachable(error: BaseException) -> HubUnavailable:
    from huggingface_hub import constants

    return HubUnavailable(
        f"the hub cannot be reached: {first_line(error)}", hint=f"curl -I {constants.ENDPOINT}   # see why"
    )


def _storage(error: OSError) -> StorageFailed:
    from huggingface_hub import constants

    kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageFailed
    why = error.strerror or str(error)
    return kind(
        f"the download cannot be written: {why}; what has come is kept",
        hint=f"df -h {constants.HF_HUB_CACHE}   # see what is left",
    )
