"""Requests to the Hugging Face hub's API; HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE apply as in other tools."""

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
from mmd.registry.hub.files import HubFile
from mmd.registry.hub.listing import Info, base_of, bases_of
from mmd.registry.hub.records import malformed, parse_record
from mmd.registry.hub.refusals import refusal
from mmd.registry.licence import licence_of
from mmd.registry.offer import Base
from mmd.registry.record import ModelType

_UNKNOWN = Base(ModelType.CHAT)
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    id: str
    commit: str
    files: tuple[HubFile, ...]
    licence: str = ""
    base: Base = _UNKNOWN
    bases: tuple[str, ...] = ()  # the repositories that it quantises; itself if none


def read_repository(repository: str, revision: str | None = None) -> Repository:
    """Ask the hub for a repository and its files.

    Raises NoSuchRepository, RepositoryGated, HubUnavailable and WrongUsage.
    """
    with hub_errors(repository):
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        validate_repo_id(repository)
        return described(parse_record(ask(_address(repository, revision), {"blobs": "true"})), revision)


def _address(repository: str, revision: str | None) -> str:
    return f"/api/models/{repository}" + (f"/revision/{quote(revision, safe='')}" if revision else "")


def described(info: Info, revision: str | None = None) -> Repository:
    """Return the repository that a record, as `parse_record` returns it, describes."""
    return Repository(
        id=info["id"],
        commit=info["sha"] or revision or "main",
        files=info["files"],
        licence=licence_of(info.get("cardData") or {}, info["tags"]),
        base=base_of(info),
        bases=bases_of(info),
    )


def ask(path: str, parameters: dict[str, Any]) -> Any:
    """Return the JSON of the hub's API. Raises the library's exceptions, see `hub_errors`, and HubUnavailable.

    Without HfApi, which retries six times over half a minute before it reports that the network is down.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

    headers = build_hf_headers()
    with _proxies_refused():
        response = get_session().get(
            f"{constants.ENDPOINT}{path}", params=parameters, headers=headers, timeout=_TIMEOUT_SECONDS
        )
    hf_raise_for_status(response)
    try:
        return response.json()
    except ValueError as error:
        raise malformed("it is not JSON") from error


@contextmanager
def _proxies_refused() -> Iterator[None]:
    """Report unusable proxy settings, which the library reads with its first request."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx or httpx2, by version

    invalid_url: type[Exception] = sys.modules[HTTPError.__module__].InvalidURL
    try:
        yield
    except (invalid_url, ValueError, ImportError) as error:
        why = "SOCKS is not supported here" if isinstance(error, ImportError) else first_line(error)
        raise HubUnavailable(
            f"the proxy set in the environment cannot be used: {why}",
            hint="env | grep -i _proxy=   # set an http:// proxy, or unset it",
        ) from error


@contextmanager
def hub_errors(subject: str) -> Iterator[None]:
    """Raise the library's exceptions as MmdError; `subject` is the repository or the words of a search."""
    require_usable_endpoint()
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError as error:
        raise WrongUsage(
            f"{subject!r} is not the name of a repository on the hub", hint="mmd search WORDS   # names are OWNER/NAME"
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise HubUnavailable(
            "HF_HUB_OFFLINE is set, so the hub is not used",
            hint="unset HF_HUB_OFFLINE   # and systemctl --user unset-environment HF_HUB_OFFLINE",
        ) from error
    except errors.HfHubHTTPError as error:
        raise refusal(subject, error) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(error.__cause__ or error) from error
    except errors.HTTPError as error:  # type: ignore[attr-defined]  # httpx or httpx2, by version
        raise _unreachable(error) from error
    except BrokenPipeError:
        raise  # the reader of the progress has ended: neither the hub nor the disk is at fault
    except OSError as error:
        raise _storage(error) from error


def _unreachable(error: BaseException) -> HubUnavailable:
    from huggingface_hub import constants

    return HubUnavailable(
        f"the hub cannot be reached: {first_line(error)}", hint=f"curl -I {constants.ENDPOINT}   # shows why"
    )


def _storage(error: OSError) -> StorageFailed:
    from huggingface_hub import constants

    kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else StorageFailed
    why = error.strerror or str(error)
    return kind(
        f"the download cannot be written: {why}; what was fetched is kept",
        hint=f"df -h {constants.HF_HUB_CACHE}   # shows the space left",
    )
