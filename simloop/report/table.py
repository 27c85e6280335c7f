"""The summary of a run as a table for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

    from simloop.metrics import Result

__all__ = ["format_seconds", "summary_table"]

_LATENCIES = {
    "ttft": "TTFT",
    "tpot": "TPOT",
    "itl": "inter-token gap",
    "max_gap": "longest gap",
    "e2el": "end to end",
    "queueing": "queueing",
}
_STATISTICS = {"mean": "mean", "median": "p50", "p90": "p90", "p99": "p99", "max": "max"}
_LIMITS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "max_gap_s": "longest gap", "e2e_s": "end to end"}
_REASONS_SHOWN = 5
_WIDE = 76
"""Columns from which on the table of latencies keeps its labels."""


def summary_table(result: Result) -> RenderableType:
    """Return the summary of a run as something rich can print, at most 80 columns wide."""
    from rich.console import Group

    summary = result.summary()
    return Group(*_heading(summary), _LatencyBlock(summary), _figures_block(summary))


def _heading(summary: dict[str, Any]) -> Iterator[RenderableType]:
    from rich.text import Text

    workers = len(summary["workers"])
    yield Text.assemble(
        (f" {summary['model_id'] or 'model'}", "bold"),
        f" on {_count(workers, 'worker')}, seed {summary['seed']}",
    )
    if not summary["complete"]:
        yield Text(f" PARTIAL RUN: {summary['incomplete_reason']}", "bold red")
        yield Text(f" {summary['unfinished']:,} unfinished; the figures cover only what was simulated", "red")
    speed = summary["simulated_s_per_wall_s"]
    yield Text(
        f" {summary['completed']:,} of {_count(summary['num_prompts'], 'request')} completed in "
        f"{_number(summary['duration'])} s virtual"
        + (f", {_number(summary['wall_s'])} s real ({_number(speed)}x)" if speed is not None else "")
    )
    missing = [f"{summary[kind]:,} {kind}" for kind in ("rejected", "failed") if summary[kind]]
    if missing:
        yield Text(f" {', '.join(missing)}: the reasons are at the end", "red")


@attrs.frozen
class _LatencyBlock:
    """The latencies: a row each where the terminal is wide enough, a line for each statistic where it is not."""

    summary: dict[str, Any]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield _latency_table(self.summary) if options.max_width >= _WIDE else _latency_lines(self.summary)


def _latency_lines(summary: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for key, title in _LATENCIES.items():
        for number, (statistic, name) in enumerate(_STATISTICS.items()):
            value = summary[f"{statistic}_{key}_ms"]
            seconds = None if value is None else value / 1e3
            table.add_row("" if number else f" {title}", name, format_seconds(seconds))
    return table


def _latency_table(summary: dict[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=True, padding=(0, 1), title_justify="left")
    table.add_column("latency", style="cyan", min_width=17)
    for title in _STATISTICS.values():
        table.add_column(title, justify="right", min_width=8, no_wrap=True)
    for key, title in _LATENCIES.items():
        values = (summary[f"{statistic}_{key}_ms"] for statistic in _STATISTICS)
        table.add_row(title, *(format_seconds(None if value is None else value / 1e3) for value in values))
    return table


def _figures_block(summary: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2), pad_edge=True)
    table.add_column(style="cyan", min_width=17, no_wrap=True)
    table.add_column(max_width=56, overflow="fold")
    for title, text in (*_throughput(summary), *_slo(summary), *_use(summary), *_ranks(summary), *_refused(summary)):
        table.add_row(f" {title}" if title else "", text)
    return table


def _throughput(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield (
        "throughput",
        f"{_number(summary['request_throughput'])} requests/s, "
        f"{_number(summary['output_throughput'])} output tokens/s, "
        f"{_number(summary['total_token_throughput'])} tokens/s",
    )
    yield (
        "peaks",
        f"{_count(summary['max_output_tokens_per_s'], 'output token')} in a second, "
        f"{_count(summary['max_concurrent_requests'], 'request')} at once",
    )


def _slo(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if summary["slo"] is None:
        return
    attained = summary["slo_attainment"]
    for name, limit in summary["slo"].items():
        yield "SLO", f"{_percent(attained[name])} kept {_LIMITS[name]} ≤ {limit:g} s"
    yield "goodput", f"{_number(summary['request_goodput'])} requests/s, {_percent(attained['all'])} kept every limit"


def _use(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    kv_mean, kv_max = _percent(summary["mean_kv_usage"]), _percent(summary["max_kv_usage"])
    swaps = f", {summary['swaps']:,} of them swapped" if summary["swaps"] else ""
    preemptions = _count(summary["preemptions"], "preemption") + swaps
    yield "KV cache", f"{kv_mean} used on average, {kv_max} at most; {preemptions}"
    busy = [worker["utilisation"] for worker in summary["workers"]]
    spread = f" (workers {_percent(min(busy))} to {_percent(max(busy))})" if len(busy) > 1 else ""
    yield (
        "utilisation",
        f"{_percent(summary['mean_utilisation'])}{spread}; {_count(summary['iterations'], 'iteration')}",
    )
    yield from _stages([worker for worker in summary["workers"] if "stage_utilisation" in worker])


def _stages(workers: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Say how busy the pipeline stages were, and what share of the workers' busy time they stood idle."""
    if not workers:
        return
    stages = [worker["stage_utilisation"] for worker in workers]
    busy = sum(sum(each) / len(each) for each in stages)
    working = sum(worker["utilisation"] for worker in workers)
    low, high = min(map(min, stages)), max(map(max, stages))
    bubbles = f"; bubbles {_percent(1 - busy / working)} of the workers' busy time" if working else ""
    yield "pipeline stages", f"busy {_percent(low)} to {_percent(high)} of the time{bubbles}"


def _ranks(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for engine in summary["lockstep"]:
        moved = (engine["dispatched_bytes"] + engine["combined_bytes"]) / 1e9
        name = f"{engine['ranks'][0].rpartition('.')[0]}: " if len(summary["lockstep"]) > 1 else ""
        yield (
            "ranks in step",
            f"{name}{_count(len(engine['ranks']), 'rank')}, {_count(engine['waves'], 'wave')}, "
            f"{engine['dummies']:,} dummy batches, {_percent(engine['padding_share'])} of the tokens padding; "
            f"{_number(moved)} GB to each rank for its experts",
        )


def _refused(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in ("rejected", "failed"):
        reasons = summary[f"{kind}_reasons"]
        for reason, count in list(reasons.items())[:_REASONS_SHOWN]:
            yield f"[red]{kind}[/red]", f"{count:,}: {_escape(reason)}"
        rest = list(reasons.values())[_REASONS_SHOWN:]
        if rest:
            yield f"[red]{kind}[/red]", f"{sum(rest):,} for {len(rest):,} other reasons"


def format_seconds(seconds: float | None) -> str:
    """Write a duration with three digits and its unit: ``1.23 s``, ``45.6 ms``, ``789 µs``; ``-`` for ``None``."""
    if seconds is None:
        return "-"
    if seconds >= 1:
        return f"{_number(seconds)} s"
    return f"{_number(seconds * 1e3)} ms" if seconds >= 1e-3 or seconds == 0 else f"{_number(seconds * 1e6)} µs"


def _number(value: float | None) -> str:
    """Write a number with three digits, all of those before the point."""
    if value is None:
        return "-"
    size = abs(value)
    digits = 0 if size >= 99.95 or size == 0 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:,.{digits}f}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _percent(share: float | None) -> str:
    """Write a share as a percentage; one short of all is never written as 100 %."""
    if share is None:
        return "-"
    return f"{min(share * 100, 99.9) if share < 1 else share * 100:.1f} %"


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)
