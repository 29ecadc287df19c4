"""Files of a repository into the cache that all tools share; what is there already is not fetched again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from mmd.errors import NoSpace
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
            place = hf_hub_download(repository.id, file.name, revision=repository.commit, tqdm_class=meter.bar())
            meter.file_done(file)
            if file.name == selection.file:
                first = Path(place)
    return first.parent if first.suffix == ".safetensors" else first


def _require_space(repository: Repository, selection: Selection) -> None:
    from huggingface_hub import constants, try_to_load_from_cache

    missing = [
        file
        for file in selection.files
        if not isinstance(try_to_load_from_cache(repository.id, file.name, revision=repository.commit), str)
    ]
    blobs = Path(constants.HF_HUB_CACHE, f"models--{repository.id.replace('/', '--')}", "blobs")
    needed = sum(file.size_bytes for file in missing) - sum(_begun_bytes(blobs, file) for file in missing)
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise NoSpace(
            f"{selection.file} needs {needed / 1e9:.1f} GB more, and {existing} has {free / 1e9:.1f} GB left",
            hint=f"hf cache ls; df -h {existing}   # see what takes the space",
        )


def _begun_bytes(blobs: Path, file: HubFile) -> int:
    """What a download that was cut off has left, as far as it is known by its hash."""
    begun = blobs / f"{file.sha256}.incomplete"
    return begun.stat().st_blocks * 512 if file.sha256 and begun.exists() else 0


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
