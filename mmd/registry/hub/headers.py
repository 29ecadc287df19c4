"""Header stubs: sparse files with the headers of a model on the hub, which `detect.examine` reads like the model.

Of a model of 30 GB about 10 MB are fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from mmd.errors import BadModelFile, HubUnavailable, NotRunnable
from mmd.quantities import MIB
from mmd.registry.detect import DetectedModel, examine
from mmd.registry.formats import gguf, safetensors
from mmd.registry.hub import stub_cache
from mmd.registry.hub.api import Repository, hub_errors
from mmd.registry.hub.cache import cached_path, model_path
from mmd.registry.hub.files import HubFile, Selection
from mmd.registry.hub.ranges import BadRangeResponse, ByteRange, content, request_range

_MAX_REQUESTS = 8
_TIMEOUT_SECONDS = 10.0
_STEP_BYTES = 1 << 22
# No header or configuration is as long; larger ones are not fetched.
_MAX_HEADER_BYTES = 1 << 26
# Tokenizers do not affect the estimate, and are the largest files beside the weights: they stay holes.
_NOT_READ = re.compile(r"(?:tokenizer|vocab)\.json|.+\.(?:model|tiktoken|txt)")


@dataclass(frozen=True, slots=True)
class _HeaderFormat:
    """A file format whose header says how long it is."""

    first_bytes: int  # enough for most headers
    header_end: Callable[[Path, int], int]  # given the bytes fetched so far; beyond them if it is not known yet


_FORMATS = {
    ".gguf": _HeaderFormat(MIB, gguf.header_end),
    ".safetensors": _HeaderFormat(1 << 17, safetensors.header_end),
}


def examine_remote(repository: Repository, selection: Selection) -> DetectedModel:
    """Detect what a model on the hub is, from its headers, or from its files if they are in the cache.

    Raises what `header_stub` and `detect.examine` raise, with messages that name the repository.
    """
    folder = stub_cache.folder_for(repository, selection)
    try:
        return examine(header_stub(repository, selection))
    except (BadModelFile, NotRunnable) as error:
        if isinstance(error, BadModelFile):
            stub_cache.delete(folder)
        message = error.message.replace(f"{folder}/", f"{repository.id}: ").replace(f"{folder}", repository.id)
        raise type(error)(message, hint=_page(repository)) from error


def header_stub(repository: Repository, selection: Selection) -> Path:
    """Return the path of a model's header stub: its (first) GGUF, or the folder of its safetensors.

    If the model is in the cache of downloads, that path is returned. A stub that turns out wrong is not kept. Raises
    HubUnavailable, RepositoryGated, BadModelFile and StorageFailed.
    """
    if all(cached_path(repository, file) for file in selection.files):
        return model_path(repository, selection)
    folder = stub_cache.folder_for(repository, selection)
    if not stub_cache.mark_used(folder):
        with stub_cache.building(folder) as unfinished, ThreadPoolExecutor(_MAX_REQUESTS) as pool:
            fetches = [pool.submit(_fetch, repository, file, unfinished) for file in selection.files]
            try:
                for fetch in fetches:
                    fetch.result()
            finally:
                pool.shutdown(cancel_futures=True)
    return selection.path_in(folder)


def _fetch(repository: Repository, file: HubFile, folder: Path) -> None:
    path = folder / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as out:
        os.truncate(out.fileno(), file.size_bytes)
        name = PurePosixPath(file.name)
        form = _FORMATS.get(name.suffix.lower())
        remote = _Remote(repository, file)
        if form is not None:
            try:
                _fetch_header(remote, form, path, out.fileno())
            except BadModelFile as error:
                message = error.message.replace(f"{folder}/", f"{repository.id}: ")
                raise BadModelFile(message, hint=_page(repository)) from error
        elif file.size_bytes <= _MAX_HEADER_BYTES and not _NOT_READ.fullmatch(name.name):
            os.pwrite(out.fileno(), remote.read(0, file.size_bytes), 0)


def _fetch_header(remote: _Remote, form: _HeaderFormat, path: Path, out: int) -> None:
    known_bytes, wanted_bytes = 0, form.first_bytes
    while known_bytes < (end := min(wanted_bytes, remote.file.size_bytes)):
        if end > _MAX_HEADER_BYTES:
            raise remote.wrong_response(f"its header claims more than {_MAX_HEADER_BYTES >> 20} MiB")
        os.pwrite(out, remote.read(known_bytes, end), known_bytes)
        known_bytes = end
        header_end = form.header_end(path, known_bytes)
        if header_end <= known_bytes:
            return
        wanted_bytes = max(header_end, min(4 * known_bytes, known_bytes + _STEP_BYTES))


class _Remote:
    """One file on the hub, read in parts that must all be of the same version of it."""

    def __init__(self, repository: Repository, file: HubFile) -> None:
        from huggingface_hub import hf_hub_url

        self.file = file
        self._repository = repository.id
        self._url = hf_hub_url(repository.id, file.name, revision=repository.commit)
        self._etag = ""

    def read(self, begin: int, end: int) -> bytes:
        """Return the bytes from `begin` up to `end`. Raises HubUnavailable if the response is not about these."""
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

        if begin == end:
            return b""
        headers = build_hf_headers()
        if self._etag and not self._etag.startswith("W/"):
            headers["If-Range"] = self._etag
        part = ByteRange(begin, end, self.file.size_bytes)
        with (
            hub_errors(self._repository),
            request_range(self._url, part, headers, timeout_seconds=_TIMEOUT_SECONDS) as response,
        ):
            hf_raise_for_status(response)
            self._require_same_file(response)
            try:
                return b"".join(content(response, part))
            except BadRangeResponse as error:
                raise self.wrong_response(f"it {error}") from error

    def wrong_response(self, why: str) -> HubUnavailable:
        return HubUnavailable(
            f"the hub's response for {self.file.name} is wrong: {why}",
            hint=f"curl -sLI {self._url}   # shows the response; or try again",
        )

    def _require_same_file(self, response: Any) -> None:
        etag = response.headers.get("etag", "")
        if self._etag and etag != self._etag:
            raise self.wrong_response("the file has changed between two reads")
        self._etag = etag
        # The first response, before any redirection, names the content it leads to.
        linked = (response.history or [response])[0].headers.get("x-linked-etag", "").strip('W/"')
        if linked and self.file.sha256 and linked != self.file.sha256:
            raise self.wrong_response("it is not the file that the repository lists")


def _page(repository: Repository) -> str:
    from huggingface_hub import constants

    return f"xdg-open {constants.ENDPOINT}/{repository.id}/tree/main   # lists its files"
