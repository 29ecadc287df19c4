"""The verbs and their order in `mmd --help`. Each module imports what it works with inside its verbs."""

from __future__ import annotations

import click

from mmd import __version__
from mmd.cli import (
    adding,
    archives,
    catalogue,
    disk,
    doctor,
    engine,
    estimate,
    expose,
    key,
    pull,
    removal,
    running,
    search,
    service,
    startup,
    verification,
)
from mmd.journal import log_to_journal


class _InOrder(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


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
    log_to_journal()


for _verb in (
    search.search,
    pull.pull,
    adding.add,
    catalogue.list_models,
    catalogue.show,
    estimate.estimate,
    verification.verify,
    removal.remove,
    archives.archive,
    archives.restore,
    disk.disk,
    running.activate,
    running.sleep,
    running.stop,
    running.status,
    running.events,
    running.logs,
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
