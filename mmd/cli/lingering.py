"""What is said where a start of the machine is not enough: somebody would have to log in."""

from __future__ import annotations

from mmd.cli.output import say


def say_how_it_lingers() -> None:
    """The one command that makes the user manager linger; nothing where it does."""
    from mmd.control.install.lingering import linger_command, lingers

    if lingers():
        return
    if command := linger_command():
        say(f"To have it without logging in: {command}")
    else:
        say("systemd-logind does not start this user manager: whoever does is to start it with the machine.")
