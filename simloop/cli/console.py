"""Where the command's words go: results to stdout, everything else to stderr."""

from __future__ import annotations

import codecs
import io
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["WIDTH", "give_up_stdout", "say", "stderr", "stdout", "write_plainly"]

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


_PLAIN = str.maketrans({"≤": "<=", "≥": ">=", "×": "x", "µ": "u", "–": "-", "…": "...", "─": "-"})


def write_plainly() -> None:
    """Let stdout and stderr write what their encoding lacks in ASCII, not fail."""

    def replace(error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        lacking = error.object[error.start : error.end].translate(_PLAIN)
        return lacking.encode("ascii", "replace").decode("ascii"), error.end

    codecs.register_error("simloop.plain", replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="simloop.plain")


def give_up_stdout() -> None:
    """Write no more to stdout, not even what is left when the process ends: it is full."""
    with suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
