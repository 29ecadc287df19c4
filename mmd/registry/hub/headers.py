"""The headers of a model on the hub, made into a ghost: files that `detect.examine` reads as if they were downloaded,
though of 30 GB no more than some 10 MB were fetched.
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
from mmd.registry.detect import Found, examine
from mmd.registry.formats import gguf, safetensors
from mmd.registry.hub import stub_cache
from mmd.registry.hub.api import Repository, hub_errors
from mmd.registry.hub.cache import cached_path, model_path
from mmd.registry.hub.files import HubFile, Selection

_AT_ONCE = 8
_PATIENCE_SECONDS = 10.0
_STEP_BYTES = 1 << 22
# No header is as long, nor any configuration; what claims to be is not fetched.
_MOST_HEADER_BYTES = 1 << 26
# Tokenizers say nothing of what a model needs, and are the largest files beside the weights: they stay holes.
_NOT_READ = re.compile(r"(?:tokenizer|vocab)\.json|.+\.(?:model|tiktoken|txt)")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class _Kind:
    """Files whose headers say how long they are."""

    first_bytes: int  # to begin with: what most headers need
    header_end: Callable[[Path, int], int]  # given how many bytes are there; beyond them where it is not known yet


_KINDS = {
    ".gguf": _Kind(MIB, gguf.header_end),
    ".safetensors": _Kind(1 << 17, safetensors.header_end),
}


def look_into(repository: Repository, selection: Selection) -> Found:
    """What a model on the hub is, by its headers; of one that is in the cache, by its files.

    Raises what `ghost` and `detect.examine` raise, in words about the repository.
    """
    folder = stub_cache.folder_for(repository, selection)
    try:
        return examine(ghost(repository, selection))
    except (BadModelFile, NotRunnable) as error:
        if isinstance(error, BadModelFile):
            stub_cache.forget(folder)
        message = error.message.replace(f"{folder}/", f"{repository.id}: ").replace(f"{folder}", repository.id)
        raise type(error)(message, hint=_page(repository)) from error


def ghost(repository: Repository, selection: Selection) -> Path:
    """The path of a model as its download would give it: a GGUF (its first part), or the folder of its safetensors.

    What has been downloaded is taken from the cache. Nothing is kept of what cannot be right. Raises HubUnavailable,
    RepositoryGated, BadModelFile and StorageFailed.
    """
    if all(cached_path(repository, file) for file in selection.files):
        return model_path(repository, selection)
    folder = stub_cache.folder_for(repository, selection)
    if not stub_cache.is_there(folder):
        with stub_cache.made(folder) as unfinished, ThreadPoolExecutor(_AT_ONCE) as pool:
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
        kind = _KINDS.get(name.suffix.lower())
        remote = _Remote(repository, file)
        if kind is not None:
            try:
                _fetch_header(remote, kind, path, out.fileno())
            except BadModelFile as error:
                message = error.message.replace(f"{folder}/", f"{repository.id}: ")
                raise BadModelFile(message, hint=_page(repository)) from error
        elif file.size_bytes <= _MOST_HEADER_BYTES and not _NOT_READ.fullmatch(name.name):
            os.pwrite(out.fileno(), remote.read(0, file.size_bytes), 0)


def _fetch_header(remote: _Remote, kind: _Kind, path: Path, out: int) -> None:
    known_bytes, wanted_bytes = 0, kind.first_bytes
    while known_bytes < (end := min(wanted_bytes, remote.file.size_bytes)):
        if end > _MOST_HEADER_BYTES:
            raise remote.lie(f"its header is to have more than {_MOST_HEADER_BYTES >> 20} MiB")
        os.pwrite(out, remote.read(known_bytes, end), known_bytes)
        known_bytes = end
        header_end = kind.header_end(path, known_bytes)
        if header_end <= known_bytes:
            return
        wanted_bytes = max(header_end, min(4 * known_bytes, known_bytes + _STEP_BYTES))


class _Remote:
    """One file on the hub, read in parts that must be of the same file."""

    def __init__(self, repository: Repository, file: HubFile) -> None:
        from huggingface_hub import hf_hub_url

        self.file = file
        self._repository = repository.id
        self._url = hf_hub_url(repository.id, file.name, revision=repository.commit)
        self._etag = ""

    def read(self, begin: int, end: int) -> bytes:
        """The bytes from `begin` up to `end`. Raises HubUnavailable where the answer is not about these."""
        from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status  # type: ignore[attr-defined]

        if begin == end:
            return b""
        headers = build_hf_headers() | {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        if self._etag and not self._etag.startswith("W/"):
            headers["If-Range"] = self._etag
        with (
            hub_errors(self._repository),
            get_session().stream("GET", self._url, headers=headers, timeout=_PATIENCE_SECONDS) as response,
        ):
            hf_raise_for_status(response)
            self._require_same(response)
            self._require_part(response, begin, end)
            return self._content(response, end - begin)

    def lie(self, what: str) -> HubUnavailable:
        return HubUnavailable(
            f"the hub's answer for {self.file.name} cannot be right: {what}",
            hint=f"curl -sLI {self._url}   # what it says of it; or try again",
        )

    def _require_same(self, response: Any) -> None:
        etag = response.headers.get("etag", "")
        if self._etag and etag != self._etag:
            raise self.lie("it has changed between two reads")
        self._etag = etag
        # The first answer, before any redirection, tells which content it leads to.
        linked = (response.history or [response])[0].headers.get("x-linked-etag", "").strip('W/"')
        if linked and self.file.sha256 and linked != self.file.sha256:
            raise self.lie("it is not the file that the repository lists")

    def _require_part(self, response: Any, begin: int, end: int) -> None:
        size_bytes = self.file.size_bytes
        if response.status_code == 200:
            if (begin, end) != (0, size_bytes):
                raise self.lie("the whole file came where a part was asked for")
            return
        said = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if response.status_code != 206 or said is None:
            raise self.lie(f"it came with status {response.status_code}, and no word about which part it is")
        if (int(said[1]), int(said[2]) + 1) != (begin, end):
            raise self.lie(f"bytes {said[1]} to {said[2]} came where {begin} to {end - 1} were asked for")
        if int(said[3]) != size_bytes:
            raise self.lie(f"it is to have {int(said[3]):,} bytes, and the repository lists {size_bytes:,}")

    def _content(self, response: Any, length: int) -> bytes:
        content = bytearray()
        for chunk in response.iter_raw():
            content += chunk
            if len(content) > length:
                raise self.lie("more came than was asked for")
        if len(content) < length:
            raise self.lie(f"only {len(content):,} of {length:,} bytes came")
        return bytes(content)


def _page(repository: Repository) -> str:
    from huggingface_hub import constants

    return f"xdg-open {constants.ENDPOINT}/{repository.id}/tree/main   # see what it holds"
