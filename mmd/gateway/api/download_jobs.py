"""Downloads as jobs, run one at a time. Each can be read and cancelled by its id."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from uuid import uuid4

from mmd.codec import to_builtins
from mmd.errors import MmdError, WrongUsage
from mmd.gateway.api.hub_process import Hub, Registered, Selected
from mmd.gateway.http.error import INTERNAL, ErrorResponse
from mmd.gateway.observe.feed import EventKind, Feed
from mmd.registry.hub.progress import Progress
from mmd.tasks import spawn

_log = logging.getLogger(__name__)
_MAX_ENDED = 100  # jobs
_MAX_WAITING = 100


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


_ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class DownloadJob:
    id: str
    selected: Selected
    state: JobState = JobState.QUEUED
    progress: Progress | None = None
    failure: ErrorResponse | None = None
    model: str | None = None  # the id that it is registered under

    @property
    def is_ended(self) -> bool:
        return self.state in _ENDED

    def json(self) -> dict[str, Any]:
        """Return the record of the API, without `error` and `model` while they are unknown."""
        progress = self.progress or Progress(0, self.selected.total_bytes, 0, self.selected.files_total)
        record: dict[str, Any] = {
            "id": self.id,
            "repo": self.selected.repository,
            "file": self.selected.file,
            "revision": self.selected.commit,
            "state": self.state,
            **to_builtins(progress),
        }
        if self.failure is not None:
            record["error"] = self.failure.record()
        if self.model is not None:
            record["model"] = self.model
        return record


class Downloads:
    def __init__(self, hub: Hub, feed: Feed) -> None:
        self._hub = hub
        self._feed = feed
        self._jobs: dict[str, DownloadJob] = {}  # the oldest first
        self._runner: asyncio.Task[None] | None = None
        self._running: tuple[str, asyncio.Task[None]] | None = None

    def all(self) -> tuple[DownloadJob, ...]:
        return tuple(self._jobs.values())

    def get(self, job_id: str) -> DownloadJob | None:
        return self._jobs.get(job_id)

    async def request(self, repository: str, file: str | None, revision: str | None) -> DownloadJob:
        """Return a job for the model: the unfinished one if there is one. Raise what choosing the files raises."""
        selected = await self._hub.select(repository, file, revision)
        waiting = [job for job in self._jobs.values() if not job.is_ended]
        for job in waiting:
            if job.selected == selected:
                return job
        if len(waiting) >= _MAX_WAITING:
            raise WrongUsage(
                f"{len(waiting)} downloads are waiting already",
                hint="curl http://127.0.0.1:8000/hf/downloads   # shows them",
            )
        job = DownloadJob(uuid4().hex[:12], selected)
        self._keep(job)
        if self._runner is None:
            self._runner = spawn("downloads", self._run())
        return job

    def cancel(self, job_id: str) -> DownloadJob | None:
        """Cancel a job. The downloaded bytes stay in the cache, and the next request continues from there."""
        job = self._jobs.get(job_id)
        if job is None or job.is_ended:
            return job
        job = replace(job, state=JobState.CANCELLED, progress=_final(job.progress))
        self._keep(job)
        if self._running is not None and self._running[0] == job_id:
            self._running[1].cancel()
        return job

    async def close(self) -> None:
        """Cancel the running download."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.gather(self._runner, return_exceptions=True)

    async def _run(self) -> None:
        try:
            while job := next((job for job in self._jobs.values() if job.state is JobState.QUEUED), None):
                task = spawn("download", self._download(job))
                self._running = job.id, task
                try:
                    await asyncio.wait([task])
                finally:
                    self._running = None
                    task.cancel()  # if this task is cancelled
                    await asyncio.gather(task, return_exceptions=True)
        finally:
            self._runner = None

    async def _download(self, job: DownloadJob) -> None:
        try:
            await self._follow(job)
        except MmdError as error:
            self._fail(job.id, ErrorResponse.of(error))
        except Exception:  # noqa: BLE001 - the edge of a job, logged with its traceback
            _log.exception("the download of %s failed", job.selected.repository)
            self._fail(job.id, INTERNAL)

    async def _follow(self, job: DownloadJob) -> None:
        job = replace(job, state=JobState.RUNNING)
        self._keep(job)
        async with aclosing(self._hub.download(job.selected)) as news:
            async for one in news:
                match one:
                    case Progress():
                        job = replace(job, progress=one)
                    case Registered(model):
                        total, files = job.selected.total_bytes, job.selected.files_total
                        job = replace(
                            job, state=JobState.DONE, model=model, progress=Progress(total, total, files, files)
                        )
                self._keep(job)

    def _fail(self, job_id: str, failure: ErrorResponse) -> None:
        job = self._jobs[job_id]
        self._keep(replace(job, state=JobState.FAILED, failure=failure, progress=_final(job.progress)))

    def _keep(self, job: DownloadJob) -> None:
        self._jobs[job.id] = job
        ended = [job.id for job in self._jobs.values() if job.is_ended]
        for old in ended[:-_MAX_ENDED]:
            del self._jobs[old]
        self._feed.publish(EventKind.DOWNLOAD, job.json())


def _final(progress: Progress | None) -> Progress | None:
    """Return the progress of a job that has ended."""
    if progress is None:
        return None
    return replace(progress, rate_bytes_per_second=None, remaining_seconds=None, files=(), note="")
