"""Files of a repository into the cache that all tools share; what is there already is not fetched again.

Large files are fetched by us, not by huggingface_hub: it throws away what had come of a file whenever a download ends
early (kill, Ctrl-C, an error), whether over Xet or plain HTTP, and has no plain HTTP beyond 50 GB. Here every byte that
has come counts, whatever happens. What Xet is faster by, on fast lines, is that it asks for many parts of a file at
once: so do we, for a few. What it saves by knowing parts of other files is nothing for weights that one has not got.
Where a repository has Xet, the hub serves the same bytes at the addresses that are used here.
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
from mmd.registry.hub.progress import FileProgress, Progress, Rate, Tell

_AT_ONCE = 4  # requests, of one file or of several
_FILES_AT_ONCE = 4
_BETWEEN_REPORTS_SECONDS = 0.5
_PATIENCE_SECONDS = 330.0  # the hub counts requests over five minutes


@dataclass(frozen=True, slots=True)
class Downloaded:
    path: Path
    sha256: Mapping[str, str]  # of its large files, by absolute path; the hub's, and what has come agrees with it


def download(repository: Repository, selection: Selection, tell: Tell) -> Downloaded:
    """Fetch what is missing; what was begun before is taken up where it ended, by whoever began it.

    Raises NoSpace, before anything is fetched where that can be known; BadModelFile where a file came damaged;
    HubUnavailable, RepositoryGated and the like.
    """
    with hub_errors(repository.id):
        require_space(repository, selection)
        return _Download(repository, selection).run(tell)


class _Download:
    def __init__(self, repository: Repository, selection: Selection) -> None:
        self._repository = repository
        self._selection = selection
        self._pace = Throttle(_PATIENCE_SECONDS)
        self._rate = Rate()
        self._come: dict[str, Callable[[], int]] = {file.name: self._begun(file) for file in selection.files}
        self._underway: set[str] = set()
        self._places: dict[str, Path] = {}
        self._sha256: dict[str, str] = {}

    def run(self, tell: Tell) -> Downloaded:
        from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

        disable_progress_bars()
        with self._threads() as (files, self._requests):
            pending = {files.submit(self._get, file) for file in self._selection.files}
            while pending:
                ended, pending = wait(pending, _BETWEEN_REPORTS_SECONDS, FIRST_EXCEPTION)
                if any(future.exception() for future in ended):
                    self._pace.stop()
                    wait(pending)
                    _raise_first(ended | pending)
                tell(self._progress())
        return Downloaded(model_path(self._repository, self._selection), self._sha256)

    @contextmanager
    def _threads(self) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
        """One for each file that is under way, which follows it, and one for each request."""
        pools = ThreadPoolExecutor(_FILES_AT_ONCE), ThreadPoolExecutor(_AT_ONCE)
        is_interrupted = False
        try:
            yield pools
        except KeyboardInterrupt:
            is_interrupted = True  # nobody has the patience for what waits for the network
            raise
        finally:
            self._pace.stop()
            for pool in pools:
                pool.shutdown(wait=not is_interrupted, cancel_futures=True)

    def _get(self, file: HubFile) -> None:
        from huggingface_hub import hf_hub_download

        self._underway.add(file.name)
        place = cached_path(self._repository, file)
        if place is None:
            blob = blob_of(self._repository.id, file)
            if blob is not None:
                self._get_blob(file, blob)
            self._pace.go_on()
            # Small files come with it; of large ones it only makes the link that all tools look for.
            place = Path(
                hf_hub_download(
                    self._repository.id, file.name, cache_dir=cache_folder(), revision=self._repository.commit
                )
            )
            _require_link(place, blob, file)
        self._places[file.name] = place
        if file.sha256 is not None:
            self._sha256[str(place)] = file.sha256
        self._come[file.name] = lambda: file.size_bytes
        self._underway.discard(file.name)

    def _get_blob(self, file: HubFile, blob: Path) -> None:
        path = partial_of(blob)
        blob.parent.mkdir(parents=True, exist_ok=True)
        while not blob.exists():
            with locked(path, file.size_bytes) as partial:
                if partial is not None:
                    self._pace.say("")
                    if blob.exists():
                        path.unlink()
                    else:
                        self._come[file.name] = partial.done_bytes
                        self._fetch(file, partial, path, blob)
                    return
            self._come[file.name] = lambda: done_bytes(path, file.size_bytes)
            # Said once for all pauses: reports come as often as they do, and would fall between two of them.
            self._pace.say(f"another download of {file.name} is under way")
            self._pace.pause(_BETWEEN_REPORTS_SECONDS)
        self._pace.say("")

    def _fetch(self, file: HubFile, partial: Partial, path: Path, blob: Path) -> None:
        source = Source(self._repository.id, self._repository.commit, file)
        requests = [
            self._requests.submit(self._fetch_segment, source, partial, segment) for segment in partial.missing()
        ]
        try:
            sha256 = sha256_as_it_comes(partial, self._pace)
        except BaseException:
            self._pace.stop()
            raise
        finally:
            wait(requests)  # they write into what is closed then
            _raise_first(requests)
        partial.cut_ledger()
        if sha256 != file.sha256:
            raise self._damaged(file, path, sha256)
        path.rename(blob)

    def _fetch_segment(self, source: Source, partial: Partial, segment: Segment) -> None:
        try:
            self._pace.go_on()
            fetch(source, partial, segment, self._pace)
        except BaseException:
            self._pace.stop()
            raise

    def _damaged(self, file: HubFile, path: Path, sha256: str) -> BadModelFile:
        aside = path.with_name(f"{file.sha256}.damaged")
        path.replace(aside)
        again = f"mmd pull {quote(f'{self._repository.id}:{self._selection.file}')}"
        return BadModelFile(
            f"{file.name} came damaged, and is kept as {aside}: its sha256 is {sha256}",
            hint=f"rm {quote(str(aside))}; {again}   # fetch it anew",
        )

    def _begun(self, file: HubFile) -> Callable[[], int]:
        blob = blob_of(self._repository.id, file)
        if cached_path(self._repository, file) is not None or (blob is not None and blob.exists()):
            return lambda: file.size_bytes
        begun_bytes = done_bytes(partial_of(blob), file.size_bytes) if blob is not None else 0
        return lambda: begun_bytes

    def _progress(self) -> Progress:
        come = {file.name: self._come[file.name]() for file in self._selection.files}
        done, total = sum(come.values()), self._selection.total_bytes
        rate = self._rate.after(done)
        underway = (file for file in self._selection.files if file.name in self._underway)
        return Progress(
            done_bytes=done,
            total_bytes=total,
            files_done=len(self._places),
            files_total=len(self._selection.files),
            rate_bytes_per_second=rate,
            remaining_seconds=(total - done) / rate if rate else None,
            files=tuple(FileProgress(file.name, come[file.name], file.size_bytes) for file in underway),
            note=self._pace.note,
        )


def _require_link(place: Path, blob: Path | None, file: HubFile) -> None:
    """What huggingface_hub asks the hub for once more may be another file by now: that one nobody has verified."""
    link = cache_link(place)  # none where the file system has no links, and it is a copy
    if blob is not None and link is not None and link.blob != blob:
        place.unlink()
        raise HubUnavailable(
            f"the hub lists {file.name} by one hash and gives it by another",
            hint="unset HF_ENDPOINT   # where it names a mirror; or try again later",
        )


def _raise_first(ended: Iterable[Future[None]]) -> None:
    """Raise what went wrong first; the others were stopped by it."""
    errors = [error for future in ended if not future.cancelled() and (error := future.exception())]
    for error in sorted(errors, key=lambda error: isinstance(error, Cancelled)):
        raise error
