"""Where the command's words go: results to stdout, everything else to stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["WIDTH", "say", "stderr", "stdout"]

WIDTH = 80
"""Columns that tables are made for, whatever the terminal has."""


def say(message: str, *, label: str = "error", colour: str = "red") -> None:
    """Write one message to stderr, with a label in colour where there are colours."""
    typer.secho(f"{label}: ", fg=colour, bold=True, nl=False, err=True)
    typer.echo(message, err=True)


def stdout() -> Console:
    """Return a console for tables: at most :data:`WIDTH` columns."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.width <= WIDTH else Console(highlight=False, width=WIDTH)


def stderr() -> Console:
    """Return a console for what passes by: progress bars."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)
