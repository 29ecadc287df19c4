"""Download a model's files into the cache shared with other tools; files that are there are not fetched again.

Large files are fetched here, not by huggingface_hub: it discards what it has fetched of a file whenever a download ends
early (kill, Ctrl-C, an error), over Xet and over plain HTTP, and supports plain HTTP only up to 50 GB. Here every
fetched byte is kept. Xet is faster on fast lines because it requests many parts of a file at once, and so does this
module. Xet's other saving, parts shared between files, does not apply to weights that are not in the cache yet. For
repositories that use Xet the hub serves the same bytes at the addresses used here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from mmd.errors import BadModelFile, HubUnavailable
from mmd.registry.cache_link import cache_folder, cache_link
from mmd.registry.hub.api import Repository, hub_errors
from mmd.registry.hub.cache import blob_of, cached_path, model_path, partial_of, require_space
from mmd.registry.hub.checksum import sha256_as_it_comes
from mmd.registry.hub.fetch import Cancelled, Source, Throttle, fetch
from mmd.registry.hub.files import HubFile, Selection
from mmd.registry.hub.partial import Partial, Segment, done_bytes, locked
from mmd.registry.hub.progress import FileProgress, OnProgress, Progress, Rate

_MAX_REQUESTS = 4  # at once, for one file or several
_MAX_FILES = 4
_REPORT_SECONDS = 0.5
_MAX_WAIT_SECONDS = 330.0  # the hub counts requests over five minutes


@dataclass(frozen=True, slots=True)
class Downloaded:
    path: Path
    sha256: Mapping[str, str]  # of its large files, by absolute path: verified, and equal to the hub's


def download(repository: Repository, selection: Selection, on_progress: OnProgress) -> Downloaded:
    """Fetch what is missing, continuing partial files of earlier downloads.

    Raises NoSpace, if possible before anything is fetched; BadModelFile if a file's hash is wrong; HubUnavailable,
    RepositoryGated and the like.
    """
    with hub_errors(repository.id):
        require_space(repository, selection)
        return _Download(repository, selection).run(on_progress)


class _Download:
    """One download. Each file has a thread that follows it and writes its own keys in `_done`, `_finished`, `_sha256`
    and `_underway`; further threads send its requests.
    """

    def __init__(self, repository: Repository, selection: Selection) -> None:
        self._repository = repository
        self._selection = selection
        self._throttle = Throttle(_MAX_WAIT_SECONDS)
        self._rate = Rate()
        self._done: dict[str, Callable[[], int]] = {file.name: self._initial(file) for file in selection.files}
        self._underway: set[str] = set()
        self._finished: dict[str, Path] = {}
        self._sha256: dict[str, str] = {}

    def run(self, on_progress: OnProgress) -> Downloaded:
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
        with self._threads() as (files, self._requests):
            pending = {files.submit(self._fetch_file, file) for file in self._selection.files}
            while pending:
                ended, pending = wait(pending, _REPORT_SECONDS, FIRST_EXCEPTION)
                if any(future.exception() for future in ended):
                    self._throttle.stop()
                    wait(pending)
                    _raise_first(ended | pending)
                on_progress(self._progress())
        return Downloaded(model_path(self._repository, self._selection), self._sha256)

    @contextmanager
    def _threads(self) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
        """Yield the pools for files and for requests."""
        pools = ThreadPoolExecutor(_MAX_FILES), ThreadPoolExecutor(_MAX_REQUESTS)
        is_interrupted = False
        try:
            yield pools
        except KeyboardInterrupt:
            is_interrupted = True  # the user must not wait for threads that wait for the network
            raise
        finally:
            self._throttle.stop()
            for pool in pools:
                pool.shutdown(wait=not is_interrupted, cancel_futures=True)

    def _fetch_file(self, file: HubFile) -> None:
        from huggingface_hub import hf_hub_download

        self._underway.add(file.name)
        place = cached_path(self._repository, file)
        if place is None:
            blob = blob_of(self._repository.id, file)
            if blob is not None:
                self._fetch_blob(file, blob)
            self._throttle.check()
            # It fetches small files; for a fetched large file it only makes the link that other tools look for.
            place = Path(
                hf_hub_download(
                    self._repository.id, file.name, cache_dir=cache_folder(), revision=self._repository.commit
                )
            )
            _require_link(place, blob, file)
        self._finished[file.name] = place
        if file.sha256 is not None:
            self._sha256[str(place)] = file.sha256
        self._done[file.name] = lambda: file.size_bytes
        self._underway.discard(file.name)

    def _fetch_blob(self, file: HubFile, blob: Path) -> None:
        path = partial_of(blob)
        blob.parent.mkdir(parents=True, exist_ok=True)
        while not blob.exists():
            with locked(path, file.size_bytes) as partial:
                if partial is not None:
                    self._throttle.set_note("")
                    if blob.exists():
                        path.unlink()
                    else:
                        self._done[file.name] = partial.done_bytes
                        self._fetch_segments(file, partial, path, blob)
                    return
            self._done[file.name] = lambda: done_bytes(path, file.size_bytes)
            # Set once for all pauses: cleared in between, it would be missing in some reports.
            self._throttle.set_note(f"another download of {file.name} is under way")
            self._throttle.pause(_REPORT_SECONDS)
        self._throttle.set_note("")

    def _fetch_segments(self, file: HubFile, partial: Partial, path: Path, blob: Path) -> None:
        source = Source(self._repository.id, self._repository.commit, file)
        requests = [
            self._requests.submit(self._fetch_segment, source, partial, segment) for segment in partial.missing()
        ]
        try:
            sha256 = sha256_as_it_comes(partial, self._throttle)
        except BaseException:
            self._throttle.stop()
            raise
        finally:
            wait(requests)  # they write to the file that is closed then
            _raise_first(requests)
        partial.cut_ledger()
        if sha256 != file.sha256:
            raise self._damaged(file, path, sha256)
        path.rename(blob)

    def _fetch_segment(self, source: Source, partial: Partial, segment: Segment) -> None:
        try:
            self._throttle.check()
            fetch(source, partial, segment, self._throttle)
        except BaseException:
            self._throttle.stop()
            raise

    def _damaged(self, file: HubFile, path: Path, sha256: str) -> BadModelFile:
        aside = path.with_name(f"{file.sha256}.damaged")
        path.replace(aside)
        again = f"mmd pull {quote(f'{self._repository.id}:{self._selection.file}')}"
        return BadModelFile(
            f"{file.name} was damaged in transit and is kept as {aside}: its sha256 is {sha256}",
            hint=f"rm {quote(str(aside))}; {again}   # fetches it again",
        )

    def _initial(self, file: HubFile) -> Callable[[], int]:
        blob = blob_of(self._repository.id, file)
        if cached_path(self._repository, file) is not None or (blob is not None and blob.exists()):
            return lambda: file.size_bytes
        fetched_bytes = done_bytes(partial_of(blob), file.size_bytes) if blob is not None else 0
        return lambda: fetched_bytes

    def _progress(self) -> Progress:
        done_by_file = {file.name: self._done[file.name]() for file in self._selection.files}
        done, total = sum(done_by_file.values()), self._selection.total_bytes
        rate = self._rate.after(done)
        underway = (file for file in self._selection.files if file.name in self._underway)
        return Progress(
            done_bytes=done,
            total_bytes=total,
            files_done=len(self._finished),
            files_total=len(self._selection.files),
            rate_bytes_per_second=rate,
            remaining_seconds=(total - done) / rate if rate else None,
            files=tuple(FileProgress(file.name, done_by_file[file.name], file.size_bytes) for file in underway),
            note=self._throttle.note,
        )


def _require_link(place: Path, blob: Path | None, file: HubFile) -> None:
    """Raise HubUnavailable if huggingface_hub, which asks the hub once more, got another file: that is not verified."""
    link = cache_link(place)  # None if the file system has no links and it is a copy
    if blob is not None and link is not None and link.blob != blob:
        place.unlink()
        raise HubUnavailable(
            f"the hub lists {file.name} with one hash and serves it with another",
            hint="unset HF_ENDPOINT   # if it names a mirror; or try again later",
        )


def _raise_first(ended: Iterable[Future[None]]) -> None:
    """Raise the original failure rather than the cancellations that it caused."""
    errors = [error for future in ended if not future.cancelled() and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, Cancelled)):
        raise error
