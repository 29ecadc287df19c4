"""Tell the user how to start the gateway at boot instead of at login."""

from __future__ import annotations

from mmd.cli.output import say


def say_how_to_linger() -> None:
    """Print the command that enables lingering, unless it is enabled."""
    from mmd.control.install.lingering import linger_command, lingers

    if lingers():
        return
    if command := linger_command():
        say(f"To start it without a login: {command}")
    else:
        say("systemd-logind does not start this user manager: enable it at boot with your service manager.")
