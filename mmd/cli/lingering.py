"""Advice for models and gateways that should start with the machine and not at login."""

from __future__ import annotations

from mmd.cli.output import say


def say_how_it_lingers() -> None:
    """Print the command that makes the user manager linger, unless it does."""
    from mmd.control.install.lingering import linger_command, lingers

    if lingers():
        return
    if command := linger_command():
        say(f"To start it without a login: {command}")
    else:
        say("systemd-logind does not start this user manager: enable it at boot with your service manager.")
