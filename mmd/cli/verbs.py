"""The verbs and their order in `mmd --help`. Each module imports what it works with inside its verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mmd import __version__
from mmd.cli import (
    add,
    archive,
    disk,
    doctor,
    engine,
    estimate,
    expose,
    key,
    lifecycle,
    list_show,
    pull,
    remove,
    search,
    service,
    startup,
    verify,
)

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


_WHOLE = 200  # characters, more than any verb's first line has


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        items = super().shell_complete(ctx, incomplete)
        for item in items:
            if item.value in self.commands:
                # Click cuts them short; a shell that shows them knows better how wide it is.
                item.help = self.commands[item.value].get_short_help_str(limit=_WHOLE)
        return items


@click.group(cls=_InOrder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mmd", message="%(prog)s %(version)s")
def mmd() -> None:
    """Local language models as systemd user units, one resident on the GPU at a time.

    \b
      mmd search qwen         what runs here, the one to take first
      mmd pull OWNER/NAME     download and register it; what is here: mmd add PATH
      mmd activate model      load it; whoever has the GPU goes first
      curl http://127.0.0.1:8000/v1/models      after: mmd install

    Look inside with: systemctl --user status 'mmd-*'
    """
    # Not for a help page or a completion, of which it would be a tenth.
    from mmd.journal import log_to_journal

    log_to_journal()


for _verb in (
    search.search,
    pull.pull,
    add.add,
    list_show.list_models,
    list_show.show,
    estimate.estimate,
    verify.verify,
    remove.remove,
    archive.archive,
    archive.restore,
    disk.disk,
    lifecycle.activate,
    lifecycle.sleep,
    lifecycle.stop,
    lifecycle.status,
    lifecycle.events,
    lifecycle.logs,
    startup.default,
    startup.startup,
    startup.boot,
    engine.engine,
    service.install,
    service.gateway,
    key.key,
    expose.expose,
    expose.tunnel,
    service.machine,
    doctor.doctor,
):
    mmd.add_command(_verb)
