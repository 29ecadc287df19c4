"""Verify that the files of models are unchanged."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from shlex import quote

from mmd.registry import manifest
from mmd.registry.cache_link import cache_link
from mmd.registry.companions import files_of
from mmd.registry.hashing import Report, sha256_of
from mmd.registry.manifest import Entry, Manifest, Origin
from mmd.registry.record import Model


class Verdict(StrEnum):
    INTACT = "intact"
    RECORDED = "recorded"  # its hash was unknown and is the reference from now on
    DAMAGED = "damaged"
    MISSING = "missing"
    UNREADABLE = "unreadable"


FAILURES = frozenset({Verdict.DAMAGED, Verdict.MISSING, Verdict.UNREADABLE})


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one file.

    `expected` and `found`: a sha256, "N bytes" if the sizes differ, git's hash of a small file of the cache, or "".
    `reason`: why the file could not be read. `mend`: a command that repairs it, "" if it is intact.
    """

    model: str
    path: str
    verdict: Verdict
    size_bytes: int = 0
    expected: str = ""
    found: str = ""
    origin: Origin | None = None
    reason: str = ""
    mend: str = ""


_Seen = Mapping[str, os.stat_result | OSError]


class Verification:
    """One verification of the files of some models; `bytes_to_read` is known before `run` starts."""

    def __init__(self, models: Sequence[Model], *, trust: bool = False) -> None:
        """With `trust`, record the present hashes as the reference and compare nothing. Raises StorageFailed."""
        self._models = models
        self._trust = trust
        self._expected = {model.id: {} if trust else expected_of(model) for model in models}
        self._paths = {model.id: _paths(model, self._expected[model.id]) for model in models}
        self._seen: _Seen = {path: _look(path) for paths in self._paths.values() for path in paths}
        self._to_hash = self._one_of_each()

    @property
    def bytes_to_read(self) -> int:
        return sum(
            status.st_size for path in self._to_hash.values() if isinstance(status := self._seen[path], os.stat_result)
        )

    def run(self, report: Report) -> tuple[Finding, ...]:
        """Compare sizes, then hashes, and record new hashes. Only reads the model's files. Raises StorageFailed."""
        hashes = sha256_of(self._to_hash.values(), report)
        findings: list[Finding] = []
        for model in self._models:
            of_model = [self._judged(model, path, hashes) for path in self._paths[model.id]]
            _keep(model.id, self._expected[model.id], of_model)
            findings += of_model
        return tuple(findings)

    def _one_of_each(self) -> Mapping[tuple[int, int], str]:
        """Return files of the right size, each once: models may share a projector, two paths may be one file."""
        return {
            _identity(status): path
            for model_id, paths in self._paths.items()
            for path in paths
            if isinstance(status := self._seen[path], os.stat_result)
            and _size_is_right(status, self._expected[model_id].get(path))
        }

    def _judged(self, model: Model, path: str, hashes: Mapping[str, str | OSError]) -> Finding:
        status, entry = self._seen[path], self._expected[model.id].get(path)
        mend = fetch_again(model, path)
        if isinstance(status, FileNotFoundError | NotADirectoryError):
            return Finding(model.id, path, Verdict.MISSING, mend=mend)
        if isinstance(status, OSError):
            return _unreadable(model.id, path, 0, status)
        if not _size_is_right(status, entry):
            assert entry is not None
            sizes = (f"{entry.size_bytes} bytes", f"{status.st_size} bytes")
            return Finding(model.id, path, Verdict.DAMAGED, status.st_size, *sizes, entry.origin, mend=mend)
        found = hashes[self._to_hash[_identity(status)]]
        if isinstance(found, OSError):
            return _unreadable(model.id, path, status.st_size, found)
        if _version(_look(path)) != _version(status):
            mend = f"mmd verify {model.id}   # when no program writes to it"
            return _unreadable(model.id, path, status.st_size, OSError("it changed while it was read"), mend)
        if entry is None or entry.sha256 is None:
            recorded = Finding(model.id, path, Verdict.RECORDED, status.st_size, found=found, origin=Origin.HERE)
            return recorded if self._trust else _by_git(recorded, mend)
        same = found == entry.sha256
        verdict = Verdict.INTACT if same else Verdict.DAMAGED
        mend = "" if same else mend
        return Finding(model.id, path, verdict, status.st_size, entry.sha256, found, entry.origin, mend=mend)


def _by_git(finding: Finding, mend: str) -> Finding:
    """Verify a file without a known sha256 by git's hash, which names small files of the cache."""
    link = cache_link(finding.path)
    if link is None or link.git_hash is None:
        return finding
    content = link.blob.read_bytes()
    found = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
    if found == link.git_hash:
        return replace(finding, verdict=Verdict.INTACT, origin=Origin.HUB)
    return replace(finding, verdict=Verdict.DAMAGED, expected=link.git_hash, found=found, origin=Origin.HUB, mend=mend)


def fetch_again(model: Model, path: str) -> str:
    """Return the command that replaces a damaged or missing file."""
    link = cache_link(path)
    if link is not None:
        words = ("hf", "download", link.repository, link.file, "--revision", link.commit, "--force-download")
        return " ".join(map(quote, words))
    came_from = "where you got it" if model.source == "file" else model.source
    return f"mmd verify {model.id}   # after you have put the file back from {came_from}"


def _paths(model: Model, expected: Manifest) -> tuple[str, ...]:
    """Return the present files, and the small ones that the manifest lists.

    Weights are those of the record: others in the manifest belong to a version from before the model was added again.
    """
    there_were = (path for path in expected if not path.endswith((".gguf", ".safetensors")))
    return tuple(dict.fromkeys((*files_of(model), *there_were)))


def expected_of(model: Model) -> Manifest:
    """Return the manifest; a missing hash is taken from the name of the blob in the Hugging Face cache."""
    known = dict(manifest.read(model.id))
    for path in files_of(model):
        if path not in known or known[path].sha256 is None:
            link = cache_link(path)
            if link is None or link.sha256 is None:
                continue
            if isinstance(status := _look(str(link.blob)), os.stat_result):
                known[path] = Entry.learned(status.st_size, link.sha256, Origin.HUB)
    return known


def _keep(model_id: str, expected: Manifest, findings: Iterable[Finding]) -> None:
    """Record hashes, so that the next verification needs neither the hub nor its cache."""
    learned = {
        finding.path: Entry.learned(finding.size_bytes, finding.found, finding.origin)
        for finding in findings
        if finding.verdict in (Verdict.INTACT, Verdict.RECORDED) and finding.origin and not finding.expected
    }
    entries = {**expected, **learned}
    if entries != manifest.read(model_id):
        manifest.write_entries(model_id, entries)


def _look(path: str) -> os.stat_result | OSError:
    try:
        status = os.stat(path)  # noqa: PTH116  a string, as the record has it
    except OSError as error:
        return error
    # Opening a named pipe would wait for a writer.
    return status if stat.S_ISREG(status.st_mode) else OSError("it is not a regular file")


def _version(status: os.stat_result | OSError) -> tuple[int, ...]:
    """Return what changes when a file is written to; () if it is missing."""
    return (*_identity(status), status.st_size, status.st_mtime_ns) if isinstance(status, os.stat_result) else ()


def _unreadable(model_id: str, path: str, size_bytes: int, error: OSError, mend: str = "") -> Finding:
    reason, mend = error.strerror or str(error), mend or f"ls -lL {quote(path)}"
    return Finding(model_id, path, Verdict.UNREADABLE, size_bytes, reason=reason, mend=mend)


def _size_is_right(status: os.stat_result, entry: Entry | None) -> bool:
    return entry is None or entry.size_bytes == status.st_size


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
