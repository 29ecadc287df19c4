"""Run the hub's library in a child process: it costs 30 MB and 0.1 s, and a kill ends a download at once.

    python -m mmd.control.models.hub_process search QUERY   # as JSON: the fields of mmd.registry.hub.search.Query
    python -m mmd.control.models.hub_process select REPOSITORY [FILE [REVISION]]   # default FILE: what fits here
    python -m mmd.control.models.hub_process download REPOSITORY FILE COMMIT REVISION

Prints lines of JSON, each an object with one key: "hits", "selection", "progress", "model" or "error".
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import Any

from mmd.codec import encode
from mmd.control.models.search import choose_to_run, hub_hit, hub_search, served_formats
from mmd.errors import MmdError, to_record
from mmd.machine import read_machine
from mmd.parent_death import end_with_parent
from mmd.registry.hub.register import choose, download_and_register, resolve
from mmd.registry.hub.search import Query
from mmd.registry.record import ModelType
from mmd.settings import read_settings


def main(arguments: list[str]) -> int:
    # End with the parent. If the parent was killed before this line, the next print raises BrokenPipeError.
    end_with_parent()
    try:
        match arguments:
            case ["search", query]:
                _search(json.loads(query))
            case ["select", repository, *rest] if len(rest) <= 2:
                file, revision = (*(word or None for word in rest), None, None)[:2]
                _select(repository, file, revision)
            case ["download", repository, file, commit, revision]:
                _download(repository, file, commit, revision)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except BrokenPipeError:
        # The parent is gone. Redirect stdout, or Python complains about the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MmdError as error:
        _say("error", to_record(error))
        return 1
    return 0


def _search(asked: dict[str, Any]) -> None:
    kind = ModelType(asked["type"]) if "type" in asked else None
    query = Query(**asked | {"formats": served_formats(read_settings()), "type": kind})
    _say("hits", [hub_hit(hit) for hit in hub_search(query, read_machine()).hits])


def _select(name: str, file: str | None, revision: str | None) -> None:
    snapshot = resolve(name, revision)
    selection = choose_to_run(snapshot, file, read_machine(), read_settings()).selection
    _say(
        "selection",
        {
            "repository": snapshot.repository.id,
            "revision": snapshot.revision,
            "commit": snapshot.repository.commit,
            "file": selection.file,
            "total_bytes": selection.total_bytes,
            "files_total": len(selection.files),
        },
    )


def _download(name: str, file: str, commit: str, revision: str) -> None:
    snapshot = replace(resolve(name, commit), revision=revision)
    model = download_and_register(snapshot, choose(snapshot, file), lambda progress: _say("progress", progress))
    _say("model", model.id)


def _say(key: str, value: Any) -> None:
    # Not print(): the parent expects UTF-8, and the locale may have another encoding.
    sys.stdout.buffer.write(encode({key: value}) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
