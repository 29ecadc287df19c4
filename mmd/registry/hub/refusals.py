"""Errors of the hub's API as MmdError: no such repository, gated, invalid token, too many requests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mmd.errors import HubUnavailable, MmdError, NoSuchRepository, RepositoryGated
from mmd.registry.hub.program import hf

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

_MAX_QUOTE_LENGTH = 200


def refusal(subject: str, error: HfHubHTTPError) -> MmdError:
    """Return the error for a failed request about `subject`: a repository, or the words of a search."""
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{subject}"
    match error:
        case errors.GatedRepoError():
            return _gated(subject, page, error)
        case errors.RevisionNotFoundError():
            return _absent(f"the hub has no such revision of {subject}, or this account may not see it")
        case errors.RemoteEntryNotFoundError():
            return HubUnavailable(
                f"the hub lists a file of {subject} that it does not have: {urlsplit(str(error.response.url)).path}",
                hint=f"xdg-open {page}   # lists its files; or try again later",
            )
        case errors.RepositoryNotFoundError():
            return _absent(f"the hub has no such repository: {subject}; or this account may not see it")
        case errors.DisabledRepoError():
            return NoSuchRepository(f"the hub has disabled {subject}", hint=f"xdg-open {page}   # it may say why")
        case _:
            return _by_status(subject, page, error)


def _gated(subject: str, page: str, error: HfHubHTTPError) -> RepositoryGated:
    """Tell apart: not signed in, licence not accepted, and access requested but not granted yet."""
    if "authorization" not in error.response.request.headers:
        return RepositoryGated(
            f"{subject} is gated: downloading requires an account that has accepted its licence",
            hint=f"{hf()} auth login   # after you have accepted it at {page}",
        )
    if "awaiting a review" in (error.server_message or ""):
        return RepositoryGated(
            f"{subject} is gated, and its authors have not yet answered your request for access",
            hint=f"xdg-open {page}   # the hub sends an e-mail when they do",
        )
    return RepositoryGated(
        f"{subject} is gated, and the account of this token has no access to it",
        hint=f"xdg-open {page}   # accept its licence there, with the account shown by: {hf()} auth whoami",
    )


def _absent(message: str) -> NoSuchRepository:
    return NoSuchRepository(
        message,
        hint=f"{hf()} auth login   # if it is private; or find its name: mmd search WORDS",
    )


def _by_status(subject: str, page: str, error: HfHubHTTPError) -> MmdError:
    status = error.response.status_code
    reason = _quote(error.response.headers.get("x-error-message") or "")
    if status == 429:
        return HubUnavailable(
            "rate limited by the hub: too many requests from this address",
            hint=f"{hf()} auth login   # accounts may send more requests; or try again in five minutes",
        )
    if status == 401:
        return RepositoryGated(
            "the hub rejects this token: it has expired, was revoked, or is damaged", hint=_with_a_new_token()
        )
    if status == 403 and "fine-grained" in reason:
        # https://github.com/huggingface/huggingface_hub/issues/2844
        return RepositoryGated(
            f"the hub denies {subject} to this token: a fine-grained token needs access to gated repositories",
            hint=f"xdg-open {_tokens()}   # tick: Read access to contents of all public gated repos you can access",
        )
    if status == 403:
        return RepositoryGated(
            f"the hub denies {subject} to this token: {reason or 'status 403'}", hint=_with_a_new_token()
        )
    return HubUnavailable(f"the hub failed on {subject}: status {status}", hint=f"curl -I {page}   # try again later")


def _with_a_new_token() -> str:
    """A token in the environment takes precedence over the one stored by `hf auth login`."""
    in_environment = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    unset = f"unset {' '.join(in_environment)}; " if in_environment else ""
    return f"{unset}{hf()} auth login   # with a new token from {_tokens()}"


def _tokens() -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/settings/tokens"


def _quote(reason: str) -> str:
    return "".join(letter for letter in reason if letter.isprintable())[:_MAX_QUOTE_LENGTH].rstrip(".")
