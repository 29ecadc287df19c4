"""The verb add: register models that are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.output import print_json, print_named_table, say, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mmd.registry.scan import Scan, Skipped
    from mmd.registry.store import AddResult

_MAX_SHOWN_PER_REASON = 3


@click.command()
@click.argument("path", type=click.Path(path_type=Path, readable=False), required=False)
@parameters.new_id
@parameters.as_json
def add(path: Path | None, model_id: str | None, as_json: bool) -> None:
    """Register a model, or every model below a folder.

    Without PATH, register every model in the Hugging Face cache. The folders of LM Studio and Ollama (~/.ollama/models)
    work as well. No file is copied or moved.
    """
    if path is not None and not path.is_dir():
        _add_one(path, model_id, as_json)
    else:
        _add_below(path or _cache(), model_id, as_json)


def _add_one(path: Path, model_id: str | None, as_json: bool) -> None:
    from mmd.control.state.model_info import model_info
    from mmd.registry.store import Registry

    model = Registry().add(path, id=model_id)
    if as_json:
        print_json(model_info(model))
        return
    click.echo(model.id)
    say(f"{summary(model)}; start it: mmd activate {model.id}")


def _add_below(root: Path, model_id: str | None, as_json: bool) -> None:
    from mmd.errors import WrongUsage
    from mmd.registry.scan import scan
    from mmd.registry.store import Registry

    registry = Registry()
    result = scan(root, registry.all())
    if _is_one_model(root, result):
        _add_one(root, model_id, as_json)
        _print_skipped(result.skipped)
        return
    if not result.news:
        _print_skipped(result.skipped)
        _add_one(root, model_id, as_json)  # raises the reason
        return
    if model_id is not None:
        raise WrongUsage(
            f"{root} contains {len(result.news)} models, but --id names only one",
            hint=f"mmd add {result.news[0].found.path}",
        )
    added = registry.add_many(result.news)
    if as_json:
        _print_json(added, result.skipped)
        return
    print_named_table(
        ("ID", "", "MODEL"),
        [(one.model.id, "added" if one.is_new else "already registered", summary(one.model)) for one in added],
    )
    _print_skipped(result.skipped)


def _is_one_model(root: Path, result: Scan) -> bool:
    """Return whether the folder is one model, without others below it."""
    paths = [Path(new.found.path) for new in result.news]
    return len(paths) == 1 and root.absolute() in (paths[0], paths[0].parent)


def _cache() -> Path:
    from mmd.errors import WrongUsage
    from mmd.registry.cache_link import cache_folder

    cache = cache_folder()
    if not cache.is_dir():
        raise WrongUsage(f"there is no Hugging Face cache at {cache}", hint="mmd add PATH   # a file or folder")
    return cache


def _print_json(added: Sequence[AddResult], skipped: Sequence[Skipped]) -> None:
    from mmd.control.state.model_info import model_info

    def models(new: bool) -> list[object]:
        return [model_info(one.model) for one in added if one.is_new is new]

    print_json({"added": models(True), "known": models(False), "skipped": skipped})


def _print_skipped(skipped: Sequence[Skipped]) -> None:
    """Print the skipped files by reason, the most frequent first."""
    groups: dict[str, list[Skipped]] = {}
    for one in skipped:
        groups.setdefault(one.reason.partition(":")[0], []).append(one)
    for group in sorted(groups.values(), key=len, reverse=True):
        count = f" ({len(group)} files)" if len(group) > 1 else ""
        say(f"skipped{count}: {group[0].reason}")
        for one in group[:_MAX_SHOWN_PER_REASON]:
            say(f"  {one.path}")
        if len(group) > _MAX_SHOWN_PER_REASON:
            say(f"  and {len(group) - _MAX_SHOWN_PER_REASON} more; list all: mmd add --json")
