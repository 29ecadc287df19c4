"""A small Hugging Face hub on this machine: search, model info, files over a redirect to another host, and faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_fakefakefakefakefakefakefakefakefa"
COMMIT = "c0ffee" * 6 + "c0ff"
_LARGE_BYTES = 4096  # what is larger lies in LFS


@dataclass
class FakeRepository:
    files: dict[str, bytes]
    tags: tuple[str, ...] = ("gguf",)
    gated: bool = False  # only a request with TOKEN gets at its files
    downloads: int = 10


@dataclass
class FakeHub:
    url: str
    cdn: str  # the same server by another name, as tokens must not be sent there
    repositories: dict[str, FakeRepository] = field(default_factory=dict)
    refuse_with: int | None = None  # a status for everything
    cut_after_bytes: int | None = None  # the next large file breaks off there, once
    hold: threading.Event = field(default_factory=threading.Event)  # where cleared, large files stop half-way
    held: threading.Event = field(default_factory=threading.Event)  # one has
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)  # method, path, headers in lower case

    def asked_for(self, method: str, part: str) -> list[dict[str, str]]:
        return [headers for asked, path, headers in self.asked if asked == method and part in path]


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    class Handler(_Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    port = server.server_address[1]
    hub = Handler.hub = FakeHub(f"http://127.0.0.1:{port}", f"http://localhost:{port}")
    hub.hold.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()


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
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.hub.asked.append((self.command, self.path, headers))
        words = unquote(target.path).strip("/").split("/")
        if self.hub.refuse_with:
            self._refuse(self.hub.refuse_with, "", "no")
            return
        match words:
            case ["api", "models"]:
                self._search(parse_qs(target.query))
            case ["api", "models", owner, name, *rest] if not rest or rest[0] == "revision":
                self._info(f"{owner}/{name}", rest[1] if rest else "main")
            case [owner, name, "resolve", revision, *path]:
                self._resolve(f"{owner}/{name}", revision, "/".join(path))
            case ["cdn", sha256]:
                self._serve(sha256)
            case _:
                self._refuse(404, "", "no such page")

    def _search(self, query: dict[str, list[str]]) -> None:
        text = query.get("search", [""])[0]
        found = [
            {
                "id": name,
                "modelId": name,
                "downloads": repository.downloads,
                "likes": 3,
                "tags": list(repository.tags),
                "gated": "manual" if repository.gated else False,
                "lastModified": "2026-11-01T10:00:00.000Z",
            }
            for name, repository in self.hub.repositories.items()
            if text.lower() in name.lower()
        ]
        found.sort(key=lambda one: -int(str(one["downloads"])))
        self._json(found[: int(query.get("limit", ["1000"])[0])])

    def _info(self, name: str, revision: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        siblings = [_sibling(path, content) for path, content in repository.files.items()]
        gated = "manual" if repository.gated else False
        self._json({"id": name, "modelId": name, "sha": COMMIT, "gated": gated, "siblings": siblings})

    def _repository(self, name: str, revision: str) -> FakeRepository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            # The real one says 401 to strangers, so that the names of private ones are not given away.
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repository

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401 if "Authorization" not in self.headers else 403, "GatedRepo", f"Access to {name} is gated")
        elif path not in repository.files:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            self._file(repository.files[path])

    def _file(self, content: bytes) -> None:
        sha256 = hashlib.sha256(content).hexdigest()
        if len(content) <= _LARGE_BYTES:
            etag = hashlib.sha1(content).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
            return
        headers = {
            "Location": f"{self.hub.cdn}/cdn/{sha256}",
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{sha256}"',
            "X-Repo-Commit": COMMIT,
        }
        self._send(302, b"", headers)

    def _serve(self, sha256: str) -> None:
        contents = (content for one in self.hub.repositories.values() for content in one.files.values())
        content = next(content for content in contents if hashlib.sha256(content).hexdigest() == sha256)
        begin = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{sha256}"'}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        rest = content[begin:]
        self._head(206 if begin else 200, len(rest), headers)
        cut, self.hub.cut_after_bytes = self.hub.cut_after_bytes, None
        half = cut if cut is not None else len(rest) // 2
        try:
            self.wfile.write(rest[:half])
            self.wfile.flush()
            if cut is not None:
                self.close_connection = True
                return
            if not self.hub.hold.is_set():
                self.hub.held.set()
                self.hub.hold.wait()
            self.wfile.write(rest[half:])
        except ConnectionError:
            self.close_connection = True  # whoever downloaded was ended

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        if status == 429:
            headers["Retry-After"] = "0"
        self._send(status, b"", {name: value for name, value in headers.items() if value})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self._head(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(length), "Date": formatdate(usegmt=True)}.items():
            self.send_header(name, value)
        self.end_headers()


def _sibling(path: str, content: bytes) -> dict[str, Any]:
    sibling: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
    if len(content) > _LARGE_BYTES:
        sha256 = hashlib.sha256(content).hexdigest()
        sibling["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
    return sibling
