"""A line on stderr that is redrawn in place, if stderr is a terminal."""

from __future__ import annotations

import sys

import click


class LiveLine:
    """The state of one such line. If stderr is not a terminal, `draw` and `clear` do nothing."""

    def __init__(self) -> None:
        self.is_on_terminal = sys.stderr.isatty()
        self._is_drawn = False

    def draw(self, text: str) -> None:
        """Replace the line, cut to the width of the terminal."""
        if self.is_on_terminal:
            import shutil

            self._is_drawn = True
            click.echo(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", err=True, nl=False)

    def clear(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            click.echo("\r\x1b[K", err=True, nl=False)
