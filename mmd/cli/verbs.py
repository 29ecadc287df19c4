"""The verbs and their order in `mmd --help`. A verb's module is imported when the verb is needed.

Imports in cli/: click, mmd.quantities and modules of cli/ at the top, everything else in the function that uses it.
Help and completion import all verbs, and must take less than 100 ms.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING

import click

from mmd import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


# Verb -> its command in a module of mmd.cli.
_VERBS = {
    "search": "search.search",
    "pull": "pull.pull",
    "add": "add.add",
    "list": "list_show.list_models",
    "show": "list_show.show",
    "estimate": "estimate.estimate",
    "verify": "verify.verify",
    "remove": "remove.remove",
    "archive": "archive.archive",
    "restore": "archive.restore",
    "disk": "disk.disk",
    "activate": "lifecycle.activate",
    "sleep": "lifecycle.sleep",
    "stop": "lifecycle.stop",
    "lease": "lease.lease",
    "status": "status.status",
    "events": "lifecycle.events",
    "logs": "lifecycle.logs",
    "setup": "setup.setup",
    "default": "startup.default",
    "startup": "startup.startup",
    "boot": "startup.boot",
    "engine": "engine.engine",
    "install": "service.install",
    "gateway": "service.gateway",
    "key": "key.key",
    "expose": "expose.expose",
    "tunnel": "expose.tunnel",
    "machine": "service.machine",
    "doctor": "doctor.doctor",
}


class _Verbs(MutableMapping[str, click.Command]):
    """The commands by name. Importing all modules takes 15 ms, which `mmd list` does not need."""

    def __init__(self) -> None:
        self._loaded: dict[str, click.Command] = {}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self._loaded:
            module, _, command = _VERBS[name].partition(".")
            self._loaded[name] = getattr(import_module(f"mmd.cli.{module}"), command)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_VERBS)

    def __len__(self) -> int:
        return len(_VERBS)

    def __contains__(self, name: object) -> bool:
        return name in _VERBS

    def __setitem__(self, name: str, command: click.Command) -> None:
        raise TypeError("the verbs are in _VERBS")

    def __delitem__(self, name: str) -> None:
        raise TypeError("the verbs are in _VERBS")


_SHORT = frozenset({"list", "status"})  # they end before garbage collection is of use
_UNLIMITED = 200  # characters, more than the first line of any verb


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = super().shell_complete(ctx, incomplete)
        for item in items:
            if item.value in self.commands:
                # Click truncates these; the shell knows how wide its terminal is.
                item.help = self.commands[item.value].get_short_help_str(limit=_UNLIMITED)
        return items


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mmd", message="%(prog)s %(version)s")
@click.pass_context
def mmd(ctx: click.Context) -> None:
    """Run local language models as systemd user units: what fits stays loaded.

    \b
      mmd search qwen         find models that run here, best match first
      mmd pull OWNER/NAME     download and register one; for local files: mmd add PATH
      mmd activate ID         load it, unloading others only if it does not fit
      mmd install             start the gateway: curl http://127.0.0.1:8000/v1/models

    Inspect with: systemctl --user status 'mmd-*'
    """
    if ctx.invoked_subcommand not in _SHORT:
        gc.enable()
    # Imported here: it is a tenth of the time of a help page or a completion.
    from mmd.journal import log_to_journal

    log_to_journal()


mmd.commands = _Verbs()
