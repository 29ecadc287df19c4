"""Fetch a segment of a file over HTTP, retrying for as long as that makes sense."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from mmd.errors import HubUnavailable, first_line
from mmd.registry.hub.files import HubFile
from mmd.registry.hub.partial import Partial, Segment
from mmd.registry.hub.program import hf
from mmd.registry.hub.ranges import BadRangeResponse, ByteRange, content, request_range

_MAX_ATTEMPTS = 7  # without progress
_MAX_BAD_RESPONSES = 3
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 8.0
_TRANSIENT_STATUSES = (408, 500, 502, 503, 504)
_ADDRESS_EXPIRED = (400, 401, 403, 410)  # the answers of the hosts behind the hub to an outdated signed address
_NEW_ADDRESS_SECONDS = 30.0
_QUOTA_USED_UP = re.compile(r";\s*r=0;\s*t=(\d+)")  # `"resolvers";r=0;t=55`: no request left for 55 seconds


class Cancelled(Exception):
    """This part ends because another part has failed."""


class Throttle:
    """When to wait and when to stop, shared by all threads that fetch parts of one model."""

    def __init__(self, max_wait_seconds: float) -> None:
        self._notes: dict[int, str] = {}  # by thread
        self._stop = threading.Event()
        self._max_wait_seconds = max_wait_seconds

    @property
    def note(self) -> str:
        """Why a thread is fetching nothing at the moment; "" if each of them is."""
        return next(filter(None, tuple(self._notes.values())), "")

    def stop(self) -> None:
        self._stop.set()

    def check(self) -> None:
        """Raises Cancelled."""
        if self._stop.is_set():
            raise Cancelled

    def wait(self, seconds: float, note: str) -> None:
        """Wait, and show why. Raises Cancelled, and HubUnavailable if the wait is longer than the limit."""
        if seconds > self._max_wait_seconds:
            raise HubUnavailable(
                f"{note} {seconds:.0f} s, which is too long to wait",
                hint=f"{hf()} auth login   # accounts may send more requests; what was fetched is kept",
            )
        self.set_note(f"{note} {seconds:.0f} s" if seconds >= 1 else "")
        self.pause(seconds)
        self.set_note("")

    def set_note(self, note: str) -> None:
        """Say why this thread is fetching nothing; "" if it is."""
        self._notes[threading.get_ident()] = note

    def pause(self, seconds: float) -> None:
        """Raises Cancelled."""
        if self._stop.wait(seconds):
            raise Cancelled


@dataclass(frozen=True, slots=True)
class Address:
    url: str
    headers: dict[str, str]
    resolved: float  # on the monotonic clock


class Source:
    """Where the content of a file is: behind the hub's redirect, at an address that is signed for about an hour."""

    def __init__(self, repository: str, commit: str, file: HubFile) -> None:
        self.file = file
        self._repository = repository
        self._commit = commit
        self._lock = threading.Lock()
        self._address: Address | None = None

    def address(self) -> Address:
        with self._lock:  # threads that begin together ask the hub once
            if self._address is None:
                self._address = self._resolved()
            return self._address

    def expire(self, address: Address) -> bool:
        """Have `address` ask the hub again; False if the address is so new that this would not help."""
        with self._lock:
            if self._address is address:
                self._address = None
        return monotonic() - address.resolved > _NEW_ADDRESS_SECONDS

    def _resolved(self) -> Address:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(self._repository, self.file.name, revision=self._commit)
        metadata = get_hf_file_metadata(url)
        headers = build_hf_headers()
        if _origin(metadata.location) != _origin(url):
            headers.pop("authorization", None)  # no other host may see the token
        return Address(metadata.location, headers, monotonic())


def fetch(source: Source, partial: Partial, segment: Segment, throttle: Throttle) -> None:
    """Fetch a segment. Raises Cancelled, HubUnavailable, OSError, and what huggingface_hub raises."""
    from huggingface_hub import errors

    at, attempts = segment.begin, 0
    while at < segment.end:
        before, problem = at, None
        try:
            with closing(_chunks(source, at, segment.end)) as chunks:
                for chunk in chunks:
                    partial.write(segment, at, chunk)
                    at += len(chunk)
                    throttle.check()
        except (errors.HTTPError, BadRangeResponse) as error:  # type: ignore[attr-defined]  # httpx or httpx2
            problem = error
        if problem is not None:
            attempts = 1 if at > before else attempts + 1
            _wait_after(problem, attempts, source.file, throttle)


def _chunks(source: Source, begin: int, end: int) -> Generator[bytes]:
    from huggingface_hub import constants
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    address = source.address()
    part = ByteRange(begin, end, source.file.size_bytes)
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with request_range(address.url, part, address.headers, timeout_seconds=timeout) as response:
        if response.status_code in _ADDRESS_EXPIRED and source.expire(address):
            raise BadRangeResponse("came from an expired address")
        hf_raise_for_status(response)
        yield from content(response, part)


def _wait_after(problem: Exception, attempts: int, file: HubFile, throttle: Throttle) -> None:
    """Wait until a retry makes sense; raise `problem`, or the MmdError for it, if none does."""
    status, headers = _status_of(problem)
    max_attempts = _MAX_BAD_RESPONSES if isinstance(problem, BadRangeResponse) else _MAX_ATTEMPTS
    if attempts >= max_attempts or status not in (None, 429, *_TRANSIENT_STATUSES):
        raise _as_error(problem, file)
    if status == 429:
        throttle.wait(retry_after_seconds(headers), "rate limited by the hub; retrying in")
    else:
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** (attempts - 1), _MAX_PAUSE_SECONDS)
        throttle.wait(pause, f"{file.name} was interrupted ({first_line(problem)}); retrying in")


def _as_error(problem: Exception, file: HubFile) -> Exception:
    if not isinstance(problem, BadRangeResponse):
        return problem
    return HubUnavailable(
        f"the response for a part of {file.name} {problem}",
        hint="unset HF_ENDPOINT HTTPS_PROXY   # if a mirror or proxy is used; what was fetched is kept",
    )


def retry_after_seconds(headers: Any) -> float:
    """Return the wait that a 429 asks for, by either of the headers that the hub and its hosts send."""
    reset = _QUOTA_USED_UP.search(headers.get("RateLimit", ""))
    values = (headers.get("Retry-After", ""), reset[1] if reset else "")
    return next((float(value) for value in values if value.isdecimal()), _MAX_PAUSE_SECONDS)


def _status_of(problem: Exception) -> tuple[int | None, Any]:
    from huggingface_hub import errors

    if isinstance(problem, errors.HfHubHTTPError):
        return problem.response.status_code, problem.response.headers
    return None, {}


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
