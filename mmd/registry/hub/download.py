"""Files of a repository into the cache that all tools share; what is there already is not fetched again."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from mmd.errors import HubUnavailable, NoSpace
from mmd.registry.hub.api import Repository, hub_errors
from mmd.registry.hub.files import HubFile, Selection

_BETWEEN_REPORTS_SECONDS = 0.5

Report = Callable[[int, int], None]  # bytes and files that are there


def download(repository: Repository, selection: Selection, report: Report) -> Path:
    """Returns where the model is: its (first) GGUF, or the folder of its safetensors.

    What was begun before is taken up where it ended. Raises NoSpace before anything is fetched, and HubUnavailable.
    """
    from huggingface_hub import hf_hub_download

    _require_space(repository, selection)
    meter = _Meter(report)
    first = Path()
    with hub_errors(repository.id):
        for file in selection.files:
            bar = meter.bar()
            _fetch_large(repository, file, bar)
            place = hf_hub_download(repository.id, file.name, revision=repository.commit, tqdm_class=bar)
            meter.file_done(file)
            if file.name == selection.file:
                first = Path(place)
    return first.parent if first.suffix == ".safetensors" else first


def _fetch_large(repository: Repository, file: HubFile, bar: Any) -> None:
    """Puts a file where huggingface_hub would: a kill there loses all that has come, since it has a new temporary file
    for each attempt. Small files, and those too large for plain HTTP, are left to it.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    if file.sha256 is None or file.size_bytes > constants.MAX_HTTP_DOWNLOAD_SIZE:
        return
    blob = _blobs(repository) / file.sha256
    blob.parent.mkdir(parents=True, exist_ok=True)
    with _partial(blob).open("ab") as partial:
        fcntl.flock(partial, fcntl.LOCK_EX)  # another of ours may be at the same file
        if blob.exists():
            _partial(blob).unlink(missing_ok=True)
            return
        begun_bytes = partial.tell()
        if begun_bytes > file.size_bytes:
            partial.truncate(begun_bytes := 0)
        http_get(
            hf_hub_url(repository.id, file.name, revision=repository.commit),
            partial,
            resume_size=begun_bytes,
            headers=build_hf_headers(),
            expected_size=file.size_bytes,
            _tqdm_bar=bar(initial=begun_bytes),
        )
        partial.flush()
        if begun_bytes:
            _require_hash(repository.id, _partial(blob), file)
        _partial(blob).rename(blob)


def _require_hash(repository: str, partial: Path, file: HubFile) -> None:
    """What came in several attempts may be of several files."""
    with partial.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    if sha256 != file.sha256:
        partial.unlink()
        raise HubUnavailable(
            f"{file.name} came damaged, and was thrown away: its sha256 is {sha256}",
            hint=f"hf download {repository} {file.name}   # or try again: the damaged file is gone",
        )


def _require_space(repository: Repository, selection: Selection) -> None:
    from huggingface_hub import constants, try_to_load_from_cache

    missing = [
        file
        for file in selection.files
        if not isinstance(try_to_load_from_cache(repository.id, file.name, revision=repository.commit), str)
    ]
    needed = sum(file.size_bytes - _begun_bytes(repository, file) for file in missing)
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise NoSpace(
            f"{selection.file} needs {needed / 1e9:.1f} GB more, and {existing} has {free / 1e9:.1f} GB left",
            hint=f"hf cache ls; df -h {existing}   # see what takes the space",
        )


def _begun_bytes(repository: Repository, file: HubFile) -> int:
    partial = _partial(_blobs(repository) / (file.sha256 or "none"))
    return partial.stat().st_size if partial.exists() else 0


def _blobs(repository: Repository) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repository.id, repo_type="model"), "blobs")


def _partial(blob: Path) -> Path:
    return blob.with_name(f"{blob.name}.mmd.incomplete")


class _Meter:
    def __init__(self, report: Report) -> None:
        self._report = report
        self._files_done = 0
        self._whole_bytes = 0  # of the files that are there
        self._current_bytes = 0  # of the one that is under way
        self._reported = 0.0

    def file_done(self, file: HubFile) -> None:
        self._files_done += 1
        self._whole_bytes += file.size_bytes
        self._current_bytes = 0
        self._tell()

    def advance(self, count: int) -> None:
        self._current_bytes += count
        if monotonic() - self._reported >= _BETWEEN_REPORTS_SECONDS:
            self._tell()

    def bar(self) -> Any:
        """A class for huggingface_hub to draw progress with, which draws none."""
        from huggingface_hub.utils.tqdm import tqdm

        meter = self

        class Bar(tqdm):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options | {"disable": True})  # type: ignore[no-untyped-call]
                meter.advance(options.get("initial") or 0)

            def update(self, n: float | None = 1) -> bool | None:
                meter.advance(int(n or 0))
                return None

        return Bar

    def _tell(self) -> None:
        self._reported = monotonic()
        self._report(self._whole_bytes + self._current_bytes, self._files_done)
