"""The fake hub as an HTTP server: model info, files over a redirect to another host, tokens, and faults."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from tests.fakes.hub import transfer
from tests.fakes.hub.content import Content, blob_id, is_large, sha256, size_bytes
from tests.fakes.hub.faults import Changed, Cut, Fault, Refusal
from tests.fakes.hub.repository import FakeRepository, shown, tree
from tests.fakes.hub.search import search

TOKEN = "hf_fakefakefakefakefakefakefakefakefa"  # has accepted every licence
STRANGER = "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"  # a valid token that has accepted none
_TOKENS = {f"Bearer {TOKEN}", f"Bearer {STRANGER}"}  # any other has expired


@dataclass
class FakeHub:
    url: str
    cdn: str  # the same server by another name, where tokens must not be sent
    repositories: dict[str, FakeRepository] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)  # the old names of repositories, with the new ones
    faults: list[Fault] = field(default_factory=list)
    refuse_with: int | None = None  # a status for every request
    cut_after_bytes: int | None = None  # the next large file breaks off there, once
    hold: threading.Event = field(default_factory=threading.Event)  # while cleared, large files stop half-way
    held: threading.Event = field(default_factory=threading.Event)  # one has stopped
    closing: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers in lower case
    sent: list[int] = field(default_factory=list)  # bytes of large files, piece by piece
    published: dict[str, Content] = field(default_factory=dict)  # what the CDN serves, by sha256
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def asked_for(self, method: str, part: str) -> list[dict[str, str]]:
        return [headers for asked, path, headers in self.asked if asked == method and part in path]

    def befalling(self, path: str) -> list[Fault]:
        """Return the faults of a request, and count them as used."""
        with self._lock:
            meant = [fault for fault in self.faults if fault.on in path and fault.times != 0]
            found = [fault for fault in meant if fault.spare == 0]
            for fault in meant:
                fault.spare = max(fault.spare - 1, 0)
            for fault in found:
                fault.times = fault.times - 1 if fault.times is not None else None
        return found


@contextmanager
def fake_hub(port: int = 0) -> Iterator[FakeHub]:
    class Handler(_Handler):
        pass

    server = _Server(("127.0.0.1", port), Handler)
    port = server.server_address[1]
    hub = Handler.hub = FakeHub(f"http://127.0.0.1:{port}", f"http://localhost:{port}")
    hub.hold.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        hub.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    """Closing it ends the kept connections of clients in this process, and the threads that serve them."""

    daemon_threads = False
    block_on_close = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the client may have been killed
            super().handle_error(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        for connection in tuple(self._connections):
            with suppress(OSError):  # it may close at this very moment
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._route()

    def do_GET(self) -> None:
        self._route()

    def _route(self) -> None:
        target = urlsplit(self.path)
        self.hub.asked.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        self.faults = self.hub.befalling(self.path)
        refusals = [fault for fault in self.faults if isinstance(fault, Refusal)]
        words = unquote(target.path).strip("/").split("/")
        if self.hub.refuse_with:
            self._refuse(self.hub.refuse_with, "", "no")
        elif refusals:
            self._refuse(refusals[0].status, "", refusals[0].message, refusals[0].headers)
        elif words[0] != "cdn" and self.headers.get("Authorization") not in {None, *_TOKENS}:
            self._refuse(401, "", "Invalid credentials in Authorization header")
        else:
            self._answer(words, parse_qs(target.query))

    def _answer(self, words: list[str], query: dict[str, list[str]]) -> None:
        match words:
            case ["api", "models"]:
                self._list(query)
            case ["api", "models", owner, name, *rest] if not rest or rest[0] == "revision":
                self._info(f"{owner}/{name}", "/".join(rest[1:]) or "main", query)
            case ["api", "models", owner, name, "tree", revision, *folder]:
                self._tree(f"{owner}/{name}", revision, "/".join(folder))
            case ["api", "models", owner, name, "auth-check"]:
                self._check_access(f"{owner}/{name}")
            case ["api", "whoami-v2"] if "Authorization" in self.headers:
                self._json({"type": "user", "name": "me", "auth": {"type": "access_token"}})
            case ["api", "whoami-v2"]:
                self._refuse(401, "", "Invalid username or password.")
            case [owner, name, "resolve", revision, *path]:
                self._resolve(f"{owner}/{name}", revision, "/".join(path))
            case ["cdn", sha256] if sha256 in self.hub.published:
                self._content(self.hub.published[sha256], {"ETag": f'"{sha256}"'})
            case _:
                self._refuse(404, "", "no such page")

    def _list(self, query: dict[str, list[str]]) -> None:
        records, cursor = search(self.hub.repositories, query)
        following = urlencode({**query, "cursor": cursor}, doseq=True)
        self._json(records, {"Link": f'<{self.hub.url}/api/models?{following}>; rel="next"'} if cursor else {})

    def _info(self, name: str, revision: str, query: dict[str, list[str]]) -> None:
        if repository := self._repository(name, revision):
            self._json(shown(name, repository, query.get("expand", []), with_sizes="blobs" in query))

    def _tree(self, name: str, revision: str, folder: str) -> None:
        if repository := self._repository(name, revision):
            self._json(tree(repository, folder))

    def _repository(self, name: str, revision: str) -> FakeRepository | None:
        if name in self.hub.moved:
            path = self.path.replace(quote(name), quote(self.hub.moved[name]))
            self._send(307, b"", {"Location": path})
            return None
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self._has_access()):
            # The real one responds 401 to strangers, so that names of private repositories stay secret.
            status = 404 if "Authorization" in self.headers else 401
            self._refuse(status, "RepoNotFound", "Repository not found")
            return None
        if revision not in ("main", repository.commit):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository

    def _has_access(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _is_open(self, name: str, repository: FakeRepository) -> bool:
        if repository.gated and not self._has_access():
            self._refuse(401 if "Authorization" not in self.headers else 403, "GatedRepo", f"Access to {name} is gated")
            return False
        return True

    def _check_access(self, name: str) -> None:
        if (repository := self._repository(name, "main")) and self._is_open(name, repository):
            self._send(200, b"", {})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, revision)
        if repository is None or not self._is_open(name, repository):
            return
        if path not in repository.files:
            self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": repository.commit})
        else:
            self._file(repository.files[path], {"X-Repo-Commit": repository.commit})

    def _file(self, content: Content, headers: dict[str, str]) -> None:
        if not is_large(content):
            self._content(content, headers | {"ETag": f'"{blob_id(content)}"'})
            return
        digest = sha256(content)
        self.hub.published[digest] = content
        headers |= {
            "Location": f"{self.hub.cdn}/cdn/{digest}",
            "X-Linked-Size": str(size_bytes(content)),
            "X-Linked-ETag": f'"{digest}"',
        }
        self._send(302, b"", headers)

    def _content(self, content: Content, headers: dict[str, str]) -> None:
        if self.hub.cut_after_bytes is not None and self.command == "GET":
            self.faults.append(Cut(self.hub.cut_after_bytes))
            self.hub.cut_after_bytes = None
        part = transfer.part(content, self._range(headers["ETag"]), self.faults)
        headers |= {"Accept-Ranges": "bytes"} | ({"Content-Range": part.content_range} if part.content_range else {})
        self._head(part.status, part.count, headers)
        if self.command == "HEAD":
            return
        gate = transfer.Gate(self.hub.hold, self.hub.held, self.hub.closing)
        try:
            self.hub.sent.extend(transfer.send(self.connection, content, part, self.faults, gate))
        except ConnectionError:
            self.close_connection = True  # a fault cut the response, or the client was killed
        self._change()

    def _range(self, etag: str) -> str | None:
        """Return the requested range, if it is requested of this version."""
        return self.headers.get("Range") if self.headers.get("If-Range", etag) == etag else None

    def _change(self) -> None:
        for fault in self.faults:
            if isinstance(fault, Changed):
                fault.after_answers -= 1
                if fault.after_answers == 0:
                    self._replace(fault.name, fault.into)

    def _replace(self, name: str, into: Content) -> None:
        for repository in self.hub.repositories.values():
            if name in repository.files:
                self.hub.published[sha256(repository.files[name])] = into
                repository.files = {**repository.files, name: into}

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        said = {"X-Error-Code": code, "X-Error-Message": message, **({"Retry-After": "0"} if status == 429 else {})}
        self._send(status, b"", {name: value for name, value in (said | (headers or {})).items() if value})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(length), "Date": formatdate(usegmt=True)}.items():
            self.send_header(name, value)
        self.end_headers()
