"""The routes for the Hugging Face hub: search and download jobs."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mmd.errors import NoSuchModel, WrongUsage
from mmd.gateway.api.body import encoded, json_object
from mmd.gateway.api.download_jobs import Downloads
from mmd.gateway.api.hub_process import Hub
from mmd.registry.hub.size import parse_size
from mmd.registry.record import ModelType

_MAX_RESULTS = 100
_MAX_WORD_LEN = 256
_SEARCH_EXAMPLE = "curl 'http://127.0.0.1:8000/hf/search?q=qwen&limit=10'"
_DOWNLOAD_EXAMPLE = """curl -d '{"repo": "OWNER/NAME", "file": "NAME-Q4_K_M.gguf"}' http://127.0.0.1:8000/hf/download"""


class NoSuchDownload(NoSuchModel):
    """No job has this id. It is defined here because only the API has jobs."""


class HfRoutes:
    def __init__(self, hub: Hub, downloads: Downloads) -> None:
        self._hub = hub
        self._downloads = downloads

    def routes(self) -> list[Route]:
        return [
            Route("/hf/search", self.search),
            Route("/hf/download", self.download, methods=["POST"]),
            Route("/hf/downloads", self.list),
            Route("/hf/downloads/{id}", self.job, methods=["GET", "DELETE"]),
        ]

    async def search(self, request: Request) -> Response:
        text = request.query_params.get("q", "")
        limit = request.query_params.get("limit", "20")
        if not _is_word(text):
            raise WrongUsage(f"q must be the search text, at most {_MAX_WORD_LEN} characters", hint=_SEARCH_EXAMPLE)
        if not (limit.isascii() and limit.isdecimal() and len(limit) < 5 and 1 <= int(limit) <= _MAX_RESULTS):
            raise WrongUsage(f"limit must be a number from 1 to {_MAX_RESULTS}", hint=_SEARCH_EXAMPLE)
        return encoded(await self._hub.search({"text": text, "limit": int(limit), **_filters(request)}))

    async def download(self, request: Request) -> Response:
        body = await json_object(request, _DOWNLOAD_EXAMPLE)
        repository, file, revision = (body.get(key) for key in ("repo", "file", "revision"))
        if not isinstance(repository, str) or not _is_word(repository):
            raise WrongUsage('"repo" must be the name of a repository', hint=_DOWNLOAD_EXAMPLE)
        for key, value in (("file", file), ("revision", revision)):
            if value is not None and not (isinstance(value, str) and _is_word(value)):
                raise WrongUsage(f'"{key}" must be a name, or absent', hint=_DOWNLOAD_EXAMPLE)
        job = await self._downloads.request(repository, file, revision)
        return encoded(job.json(), 202, {"location": f"/hf/downloads/{job.id}"})

    async def list(self, request: Request) -> Response:
        return encoded([job.json() for job in self._downloads.all()])

    async def job(self, request: Request) -> Response:
        find = self._downloads.cancel if request.method == "DELETE" else self._downloads.get
        job = find(request.path_params["id"])
        if job is None:
            hint = "curl http://127.0.0.1:8000/hf/downloads   # shows them"
            raise NoSuchDownload("no download has this id", hint=hint)
        return encoded(job.json())


def _is_word(text: str) -> bool:
    """Return True if a program can take it as an argument: not empty, not an option, no control characters."""
    return 0 < len(text) <= _MAX_WORD_LEN and text.isprintable() and not text.startswith("-")


def _filters(request: Request) -> dict[str, str | bool | int]:
    """Return the optional filters of a search. Raise WrongUsage."""
    asked = request.query_params
    least, most = parse_size(asked.get("size"))
    filters: dict[str, str | bool | int] = {"min_parameters": least, "max_parameters": most}
    if (type_ := asked.get("type")) is not None:
        if type_ not in set(ModelType):
            raise WrongUsage(f"type must be one of {', '.join(ModelType)}", hint=_SEARCH_EXAMPLE)
        filters["type"] = type_
    if (gated := asked.get("gated")) is not None:
        if gated not in ("true", "false"):
            raise WrongUsage("gated must be true or false", hint=_SEARCH_EXAMPLE)
        filters["gated"] = gated == "true"
    if (licence := asked.get("licence")) is not None:
        if not _is_word(licence):
            raise WrongUsage('licence must be a name as on the hub, or "open"', hint=_SEARCH_EXAMPLE)
        filters["licence"] = licence.lower()
    return filters
