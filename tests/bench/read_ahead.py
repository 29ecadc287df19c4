"""The gain of reading ahead: a swap to a model that is not in the page cache, while the other is slow to stop."""

from __future__ import annotations

import os
from pathlib import Path

from mmd.control.lifecycle.controller import Controller
from mmd.registry.store import Registry
from tests.bench.measure import Row
from tests.bench.stack import write_settings
from tests.fakes.engine import install_fake_llama_server
from tests.tiny_models import tiny_gguf

_REPETITIONS = 4
_LINGERS = '{"ignore_sigterm": true}'  # the old model is killed after TimeoutStopSec=5


class _NotAhead(Controller):
    def files_to_read_ahead(self, model_id: str) -> tuple[str, ...]:
        return ()


async def measure(folder: Path) -> list[Row]:
    """The old model is a fake that lingers; the new one is a real file of 0.4 GB in the embedded engine."""
    program = install_fake_llama_server(folder)
    write_settings(
        f'[engines]\nllama-server = "{program}"\n'
        '[models.old]\nengine = "llama-server"\n[models.new]\nengine = "embedded"\n'
    )
    old = tiny_gguf(folder / "old.gguf", name="old")
    old.with_name("old.gguf.fake.json").write_text(_LINGERS)
    new = tiny_gguf(folder / "new.gguf", name="new", n_layers=8, dim=2048)
    for name, path in (("old", old), ("new", new)):
        Registry().add(path, id=name)
    loads: dict[type[Controller], list[float]] = {Controller: [], _NotAhead: []}
    for _ in range(_REPETITIONS):
        for kind, seconds in loads.items():
            async with kind() as mmd:
                await mmd.activate("old")
                _drop_from_cache(new)
                seconds.append((await mmd.activate("new")).phases["load"])
    async with Controller() as mmd:
        await mmd.stop()
    size = f"{new.stat().st_size / 1e9:.1f} GB, not in the page cache"
    return [
        Row(f"load, {size}, read ahead during the release", "s", loads[Controller]),
        Row(f"load, {size}, not read ahead", "s", loads[_NotAhead]),
    ]


def _drop_from_cache(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # data that is not on the disk yet stays in the cache
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
