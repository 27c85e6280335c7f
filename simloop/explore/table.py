"""A comparison as a table for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from simloop.report.table import format_seconds

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from simloop.explore.comparison import Comparison, Figure
    from simloop.explore.run_log import RunLog

__all__ = ["TITLES", "comparison_table", "format_error"]

TITLES = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "e2e": "latency",
    "makespan": "makespan",
    "request_throughput": "requests/s",
    "output_throughput": "output tokens/s",
}


def comparison_table(comparison: Comparison) -> RenderableType:
    """Return a comparison as something rich can print, at most 80 columns wide."""
    from rich.console import Group

    heading = _heading("run ", comparison.run), _heading("real", comparison.real)
    return Group(*heading, _figures(comparison), *_lines(comparison))


def _heading(label: str, log: RunLog) -> RenderableType:
    from rich.text import Text

    count = len(log.requests)
    finished = int(log.requests["finished"].sum())
    sizes = f"{finished:,} of {count:,} requests finished" if count else "figures only, no requests"
    return Text.assemble((f" {label} ", "bold"), f"{log.name}: {sizes}", overflow="ellipsis", no_wrap=True)


def _figures(comparison: Comparison) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=True, padding=(0, 1))
    table.add_column("metric", style="cyan", min_width=15, no_wrap=True)
    table.add_column("", min_width=4, no_wrap=True)
    for title in ("run", "real", "error"):
        table.add_column(title, justify="right", min_width=12, no_wrap=True)
    metric = ""
    for figure in comparison.figures:
        title = TITLES[figure.metric] if figure.metric != metric else ""
        metric = figure.metric
        values = [_value(figure, value) for value in (figure.run, figure.real)]
        table.add_row(title, figure.statistic, *values, format_error(figure.error, signed=True))
    return table


def _value(figure: Figure, value: float) -> str:
    return format_seconds(value) if figure.unit == "s" else f"{value:,.2f}"


def _lines(comparison: Comparison) -> Iterator[RenderableType]:
    from rich.text import Text

    matching, requests = comparison.matching, len(comparison.real.requests)
    if requests:
        by = f" by {matching.by}" if len(matching) else ": they are not the same requests"
        yield Text(f" {len(matching):,} of {requests:,} requests matched{by}")
    if comparison.per_request:
        errors = ", ".join(f"{TITLES[name]} {format_error(one)}" for name, one in comparison.per_request.items())
        yield Text(f" mean absolute percentage error per request: {errors}")
    if comparison.throughput_wape is not None and comparison.token_series is not None:
        sources = " and ".join(dict.fromkeys(series.source for series in comparison.token_series))
        yield Text(f" output tokens per second, WAPE: {format_error(comparison.throughput_wape)} (from {sources})")


def format_error(error: float | None, *, signed: bool = False) -> str:
    """Write a share as a percentage with one digit, two below one percent; ``-`` for ``None``."""
    if error is None:
        return "-"
    percent = error * 100
    digits = 2 if abs(percent) < 0.995 else 1
    return f"{percent:{'+' if signed else ''},.{digits}f} %"
