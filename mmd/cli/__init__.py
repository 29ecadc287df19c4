"""The command line. Data goes to stdout, messages go to stderr."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

import click

from mmd.errors import MmdError, outcome


def main() -> NoReturn:
    """Run the command line; each error becomes two lines and an exit status."""
    gc.disable()  # 5 ms of a short command; mmd.cli.verbs enables it for the others
    from mmd.cli.verbs import mmd

    status = 0
    try:
        # Click returns the status of --help and the like; a verb returns None.
        status = mmd.main(prog_name="mmd", standalone_mode=False) or 0
    except MmdError as error:
        _print_error(error.message, error.hint)
        status = outcome(error).exit_status
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        status = 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "mmd"
        _print_error(error.format_message(), f"{command} --help")
        status = 2
    except click.ClickException as error:
        _print_error(error.format_message(), "mmd --help")
        status = 1
    except BrokenPipeError:
        # `mmd list | head`: the reader has ended. Python must not report it at exit, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except (KeyboardInterrupt, click.exceptions.Abort):
        status = 130
    sys.exit(status)


def _print_error(message: str, hint: str) -> None:
    """Print what is wrong, then what to do."""
    click.echo(click.style("mmd: ", bold=True) + message, err=True)
    click.echo(click.style("  → ", dim=True) + hint, err=True)
