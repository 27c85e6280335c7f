"""The bar that shows a run: requests done, virtual time, real time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from simloop.cli.console import stderr

if TYPE_CHECKING:
    from simloop import Progress

__all__ = ["progress_bar", "virtual_time"]


@contextmanager
def progress_bar(*, wanted: bool) -> Iterator[Callable[[Progress], None] | None]:
    """Show a bar on stderr while the block runs; it vanishes at the end.

    Yields:
        What the run is to call with its progress; None where no bar is wanted, or stderr is no terminal.
    """
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(bar_width=None), TextColumn("{task.description}"), TextColumn("real"), TimeElapsedColumn())
    with Bar(*columns, console=stderr(), transient=True, expand=True) as bar:
        task = bar.add_task("starting", total=None)

        def show(progress: Progress) -> None:
            """Draw the bar anew."""
            bar.update(task, completed=progress.finished, total=progress.total, description=describe(progress))

        yield show


def describe(progress: Progress) -> str:
    """Say how far a run is; with the real time beside it, a line of 80 columns holds millions of requests."""
    of = f"/{progress.total:,}" if progress.total else ""
    load = f"{progress.running:,} running {progress.waiting:,} waiting"
    return f"{progress.finished:,}{of} done {load} virtual {virtual_time(progress.virtual_s)}"


def virtual_time(seconds: float) -> str:
    """Return ``0:12:34`` for 754 seconds."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
