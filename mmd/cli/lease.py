"""The verb lease: keep memory of a GPU for another program than a model."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from mmd.cli import parameters
from mmd.cli.aio import wait_for
from mmd.cli.output import print_json, print_table, say
from mmd.quantities import size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from click.shell_completion import CompletionItem

    from mmd.control.lifecycle.lease import Leased
    from mmd.control.lifecycle.lease_plan import LeaseWish
    from mmd.control.state.leases import LeaseStatus

_COMMAND = "mmd.cli.lease.command"
_NOT_FOUND = 127  # as shells say it


class _BeforeCommand(click.Group):
    """A group whose arguments after `--` are the command line of another program."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta[_COMMAND] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not ctx.resilient_parsing:
            raise click.UsageError(f"a program comes after two hyphens: mmd lease -- {' '.join(args)}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        if _COMMAND in ctx.meta:
            return [CompletionItem(incomplete, type="file")]
        return super().shell_complete(ctx, incomplete)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "[OPTIONS] [-- COMMAND [ARG]...]")
        formatter.write_usage(ctx.command_path, "COMMAND [ARGS]...", prefix="       ")


class _LeaseName(click.ParamType):  # type: ignore[type-arg]  # generic in new versions of click only
    """The name of a lease; completes to those that are held."""

    name = "name"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from mmd.control.state.leases import held_names

        return [CompletionItem(name) for name in held_names() if name.startswith(incomplete)]


@click.group(cls=_BeforeCommand, invoke_without_command=True)
@click.option("--vram", metavar="SIZE", help="Lease this much, like 10G. Default: the whole of one GPU.")
@click.option("--gpu", metavar="N", help="Lease memory of the GPU with this number or UUID. Default: any GPU.")
@click.option("--name", metavar="NAME", help="Name the lease. Default: the name of the program.")
@click.option("--now", is_flag=True, help="Cut running responses of the models that must leave.")
@click.option("--unload-pinned", is_flag=True, help="Unload pinned models, too.")
@click.pass_context
def lease(
    ctx: click.Context, vram: str | None, gpu: str | None, name: str | None, now: bool, unload_pinned: bool
) -> None:
    """Keep memory of a GPU for another program, until it ends.

    Models that do not fit beside it are unloaded, and restored when the program has ended. Requests for models that do
    not fit beside it are refused meanwhile. Without COMMAND, the lease is held until Ctrl-C.

    \b
      mmd lease -- blender -b scene.blend -a        the whole of one GPU
      mmd lease --vram 10G -- python train.py       10 GiB of a GPU; models may use the rest

    COMMAND sees only its GPU, by CUDA_VISIBLE_DEVICES. On a machine without a GPU, RAM is leased.
    """
    command: tuple[str, ...] | None = ctx.meta.get(_COMMAND)
    if ctx.invoked_subcommand is not None:
        if command is not None or any((vram, gpu, name, now, unload_pinned)):
            raise click.UsageError(f"mmd lease {ctx.invoked_subcommand} has no such option", ctx)
        return
    if command == ():
        raise click.UsageError("there is no command after --", ctx)
    if command is not None:
        _require_program(command[0])
    from mmd.control.lifecycle.lease_plan import LeaseWish

    _hold(LeaseWish(name=name, vram=vram, gpu=gpu, by_user=unload_pinned, now=now), command or ())


@lease.command(name="list")
@parameters.as_json
def list_leases(as_json: bool) -> None:
    """List the leases."""
    from mmd.control.state.leases import current_leases

    leases = wait_for(current_leases())
    if as_json:
        print_json(leases)
    elif leases:
        print_table(("NAME", "STATE", "MEMORY", "SINCE (UTC)", "PROGRAM"), [_row(one) for one in leases])
    else:
        say("There is no lease. Take one: mmd lease -- COMMAND")


@lease.command()
@click.argument("name", type=_LeaseName())
def end(name: str) -> None:
    """End a lease. Its program keeps running.

    The models that were unloaded for it are restored if they fit beside what its program still uses.
    """
    from mmd.control.lifecycle.controller import Controller

    async def work() -> LeaseStatus:
        async with Controller() as controller:
            return await (await controller.lessor()).end(name)

    ended = wait_for(work())
    say(f"The lease {name} has ended.")
    if ended.pid is not None and _runs(ended.pid):
        say(f"Process {ended.pid} keeps running; its memory counts as that of a program without a lease.")


def _hold(wish: LeaseWish, command: Sequence[str]) -> None:
    """Take a lease that hangs on this process, and become `command` or wait."""
    from mmd.cli.via_gateway import lease_by_gateway
    from mmd.control.lifecycle.controller import Controller
    from mmd.control.lifecycle.lease import Holder

    read_end, write_end = os.pipe()
    holder = Holder(program=" ".join(command) or "lease until Ctrl-C", pid=os.getpid(), pipe=read_end)

    async def work() -> Leased:
        if (leased := await lease_by_gateway(wish, holder)) is not None:
            return leased
        async with Controller() as controller:
            return await (await controller.lessor()).take(wish, holder)

    leased = wait_for(work())
    os.close(read_end)
    if leased.unloaded:
        say(f"{', '.join(leased.unloaded)} unloaded for the lease {leased.name}")
    if command:
        _become(command, write_end, leased.environment)
    _wait(leased, write_end)


def _become(command: Sequence[str], write_end: int, environment: Mapping[str, str]) -> None:
    """Replace this process by a program. The lease hangs on the pipe, which it inherits, and on its process ID."""
    import signal

    os.set_inheritable(write_end, True)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the program would inherit that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), {**os.environ, **environment})
    except OSError as error:
        say(f"mmd: {command[0]} cannot be run: {error.strerror}")
        sys.exit(126)


def _wait(leased: Leased, write_end: int) -> None:
    """Return at Ctrl-C, or when the lease has been ended."""
    import select

    say(f"The lease {leased.name} has {_memory_text(leased.devices)}. End it: Ctrl-C")
    poller = select.poll()
    poller.register(write_end, 0)  # an error is reported when the holder has closed the other end
    try:
        poller.poll()
    except KeyboardInterrupt:
        say("")
    say(f"The lease {leased.name} has ended.")


def _require_program(program: str) -> None:
    import shutil

    if shutil.which(program) is None:
        say(f"mmd: there is no program {program} on PATH, so nothing was unloaded")
        sys.exit(_NOT_FOUND)


def _runs(pid: int) -> bool:
    from pathlib import Path

    return Path(f"/proc/{pid}").exists()


def _row(one: LeaseStatus) -> tuple[str, ...]:
    process = f" (process {one.pid})" if one.pid is not None else ""
    return one.name, one.state, _memory_text(one.devices), (one.since or "")[:19], one.program + process


def _memory_text(devices: Mapping[str, int]) -> str:
    parts = sorted(devices.items())
    return ", ".join(f"{size_text(size)} of {'RAM' if device == 'ram' else device}" for device, size in parts)
