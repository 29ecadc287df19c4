"""The page at `/`: its files, with headers that let a browser run these and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FOLDER = Path(__file__).with_name("page")
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # cached, but revalidated each time: the gateway may have been upgraded
}


@dataclass(frozen=True, slots=True)
class _Asset:
    body: bytes
    media_type: str
    etag: str


def page_routes() -> list[Route]:
    return [Route("/", _index, include_in_schema=False), Route("/page/{name}", _asset, include_in_schema=False)]


async def _index(request: Request) -> Response:
    return _answer(request, ASSETS["index.html"])


async def _asset(request: Request) -> Response:
    asset = ASSETS.get(request.path_params["name"])
    if asset is None:
        raise HTTPException(404)
    return _answer(request, asset)


def _answer(request: Request, asset: _Asset) -> Response:
    headers = _HEADERS | {"etag": asset.etag}
    known = (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(","))
    if asset.etag in known:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, headers=headers, media_type=asset.media_type)


def _read(path: Path) -> _Asset:
    body = path.read_bytes()
    return _Asset(body, _MEDIA_TYPES[path.suffix], f'"{sha256(body).hexdigest()[:20]}"')


# The files by name, a few dozen kilobytes. Read with the module, which the gateway imports in a thread.
ASSETS: Mapping[str, _Asset] = {path.name: _read(path) for path in _FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}
