"""A part of one file over HTTP, into place or not at all: what an answer claims is checked before its bytes count."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from mmd.errors import HubUnavailable, first_line
from mmd.registry.hub.files import HubFile
from mmd.registry.hub.partial import Partial, Segment
from mmd.registry.hub.program import hf

_ATTEMPTS = 7  # since anything has come
_ATTEMPTS_AT_A_LIE = 3
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0
_PASSING = (408, 500, 502, 503, 504)
_ADDRESS_EXPIRED = (400, 401, 403, 410)  # what the hosts behind the hub say of a signed address that is too old
_FRESH_SECONDS = 30.0
_USED_UP = re.compile(r";\s*r=0;\s*t=(\d+)")  # `"resolvers";r=0;t=55`: none left for 55 seconds


class Cancelled(Exception):
    """Somebody else's part has failed, and this one ends with it."""


class Throttle:
    """When to wait and when to end, for all that fetch parts of one model."""

    def __init__(self, patience_seconds: float) -> None:
        self._notes: dict[int, str] = {}  # of each thread, by its number
        self._stop = threading.Event()
        self._patience_seconds = patience_seconds

    @property
    def note(self) -> str:
        """Why nothing comes just now, or less than could."""
        return next(filter(None, tuple(self._notes.values())), "")

    def stop(self) -> None:
        self._stop.set()

    def go_on(self) -> None:
        """Raises Stopped."""
        if self._stop.is_set():
            raise Cancelled

    def wait(self, seconds: float, note: str) -> None:
        """Raises Stopped, and HubUnavailable where it would be longer than anybody wants to wait."""
        if seconds > self._patience_seconds:
            raise HubUnavailable(
                f"{note} {seconds:.0f} s, which is too long to wait",
                hint=f"{hf()} auth login   # who is signed in may ask more; what has come is kept",
            )
        self.say(f"{note} {seconds:.0f} s" if seconds >= 1 else "")
        self.pause(seconds)
        self.say("")

    def say(self, note: str) -> None:
        """Why this thread fetches nothing just now; "" where it does."""
        self._notes[threading.get_ident()] = note

    def pause(self, seconds: float) -> None:
        """Raises Stopped."""
        if self._stop.wait(seconds):
            raise Cancelled


@dataclass(frozen=True, slots=True)
class Address:
    url: str
    headers: dict[str, str]
    resolved: float  # by the monotonic clock


class Source:
    """Where the content of a file is: behind the hub's redirect, at an address that is signed for an hour or so."""

    def __init__(self, repository: str, commit: str, file: HubFile) -> None:
        self.file = file
        self._repository = repository
        self._commit = commit
        self._lock = threading.Lock()
        self._address: Address | None = None

    def address(self) -> Address:
        with self._lock:  # so that those who begin at once ask once
            if self._address is None:
                self._address = self._resolved()
            return self._address

    def expire(self, address: Address) -> bool:
        """Ask the hub anew the next time; False where the address was so new that this would be no use."""
        with self._lock:
            if self._address is address:
                self._address = None
        return monotonic() - address.resolved > _FRESH_SECONDS

    def _resolved(self) -> Address:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(self._repository, self.file.name, revision=self._commit)
        metadata = get_hf_file_metadata(url)
        headers = build_hf_headers() | {"Accept-Encoding": "identity"}
        if _origin(metadata.location) != _origin(url):
            headers.pop("authorization", None)  # the token is the hub's business only
        return Address(metadata.location, headers, monotonic())


def fetch(source: Source, partial: Partial, segment: Segment, pace: Throttle) -> None:
    """Fetch a segment. Raises Stopped, HubUnavailable, OSError, and what huggingface_hub raises."""
    from huggingface_hub import errors

    at, attempts = segment.begin, 0
    while at < segment.end:
        before, problem = at, None
        try:
            with closing(_chunks(source, at, segment.end)) as chunks:
                for chunk in chunks:
                    partial.write(segment, at, chunk)
                    at += len(chunk)
                    pace.go_on()
        except (errors.HTTPError, _Lie) as error:  # type: ignore[attr-defined]  # httpx or httpx2, by version
            problem = error
        if problem is not None:
            attempts = 1 if at > before else attempts + 1
            _wait_after(problem, attempts, source.file, pace)


def _chunks(source: Source, begin: int, end: int) -> Generator[bytes]:
    left = end - begin
    with _answer(source, begin, end) as response:
        for chunk in response.iter_raw():
            if len(chunk) > left:
                raise _Lie("is longer than it says")
            left -= len(chunk)
            yield chunk
    if left:
        raise _Lie("is shorter than it says")


@contextmanager
def _answer(source: Source, begin: int, end: int) -> Iterator[Any]:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status  # type: ignore[attr-defined]

    address = source.address()
    headers = address.headers | {"Range": f"bytes={begin}-{end - 1}"}
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with get_session().stream("GET", address.url, headers=headers, timeout=timeout) as response:
        if response.status_code in _ADDRESS_EXPIRED and source.expire(address):
            raise _Lie("has moved")
        hf_raise_for_status(response)
        _require_part(response, begin, end, source.file.size_bytes)
        yield response


class _Lie(Exception):
    """An answer is not the part of the file that was asked for."""


def _require_part(response: Any, begin: int, end: int, size_bytes: int) -> None:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _Lie("comes compressed")
    if response.status_code == 200 and (begin, end) == (0, size_bytes):
        return  # all of it was asked for
    said = response.headers.get("Content-Range", "nothing")
    if response.status_code != 206 or said != f"bytes {begin}-{end - 1}/{size_bytes}":
        raise _Lie(f"is another one: status {response.status_code}, Content-Range: {said}")


def _wait_after(problem: Exception, attempts: int, file: HubFile, pace: Throttle) -> None:
    """Wait until it makes sense to try again; raises `problem`, or what it means, where it does not."""
    status, headers = _status_of(problem)
    most = _ATTEMPTS_AT_A_LIE if isinstance(problem, _Lie) else _ATTEMPTS
    if attempts >= most or status not in (None, 429, *_PASSING):
        raise _told(problem, file)
    if status == 429:
        pace.wait(retry_after_seconds(headers), "the hub has had too many requests, and wants to be left alone for")
    else:
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** (attempts - 1), _LONGEST_PAUSE_SECONDS)
        pace.wait(pause, f"{file.name} broke off ({first_line(problem)}); it is taken up again in")


def _told(problem: Exception, file: HubFile) -> Exception:
    if not isinstance(problem, _Lie):
        return problem
    return HubUnavailable(
        f"the answer to a request for a part of {file.name} {problem}",
        hint="unset HF_ENDPOINT HTTPS_PROXY   # where a mirror or a proxy is in between; what has come is kept",
    )


def retry_after_seconds(headers: Any) -> float:
    """What a 429 says of when to come back, by either of the headers that the hub and its hosts send."""
    reset = _USED_UP.search(headers.get("RateLimit", ""))
    said = (headers.get("Retry-After", ""), reset[1] if reset else "")
    return next((float(number) for number in said if number.isdecimal()), _LONGEST_PAUSE_SECONDS)


def _status_of(problem: Exception) -> tuple[int | None, Any]:
    from huggingface_hub import errors

    if isinstance(problem, errors.HfHubHTTPError):
        return problem.response.status_code, problem.response.headers
    return None, {}


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
