"""Distributions and time series of two runs, drawn into a file."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from simloop.errors import InputError
from simloop.explore.run_log import LATENCIES, RunLog
from simloop.explore.table import TITLES

if TYPE_CHECKING:
    import numpy.typing as npt

    from simloop.explore.comparison import Comparison

    Floats = npt.NDArray[np.float64]
    Line = tuple[Floats, Floats]

__all__ = ["Panel", "check_plot", "panels", "write_plot"]

_RUN, _REAL = "#d1495b", "#30638e"
_COLUMNS = 3
_MOST_POINTS = 4_000
_LIBRARIES = {".png": "matplotlib", ".html": "plotly"}


@attrs.frozen(eq=False)
class Panel:
    """One diagram.

    Attributes:
        title: What it shows.
        x: Label of the horizontal axis.
        y: Label of the vertical axis.
        run: The run's horizontal and vertical values.
        real: The real run's.
        points: Draw points; else steps, each value until the next.
    """

    title: str
    x: str
    y: str
    run: Line
    real: Line
    points: bool = False


def panels(comparison: Comparison) -> list[Panel]:
    """Return what can be drawn of a comparison: distributions, tokens and requests over time, TTFT by arrival."""
    return [*_distributions(comparison), *_over_time(comparison)]


def check_plot(path: str | Path) -> Path:
    """Return the path of a plot that could be drawn; worth asking before a long run.

    Raises:
        InputError: It ends neither in ``.png`` nor in ``.html``, its folder does not exist, or what draws such a file
            is not installed.
    """
    target = Path(path)
    library = _LIBRARIES.get(target.suffix.lower())
    if library is None:
        raise InputError(f"found {target.suffix or 'no ending'!r}, expected .png or .html", file=path)
    if not target.resolve().parent.is_dir():
        raise InputError(f"there is no folder {str(target.parent)!r}", file=path)
    if importlib.util.find_spec(library) is None:
        raise InputError(f"{library} draws these, and is not installed: pip install 'simloop-llm[plot]'", file=path)
    return target


def write_plot(comparison: Comparison, path: str | Path) -> Path:
    """Draw a comparison into a file.

    Args:
        comparison: What to draw.
        path: ``.png`` is drawn by matplotlib, ``.html`` by plotly; it holds all that it needs.

    Raises:
        InputError: As :func:`check_plot`; there is nothing to draw; the file cannot be written.
    """
    target = check_plot(path)
    drawn = panels(comparison)
    if not drawn:
        raise InputError("nothing to draw: the times of requests are not known of both runs", file=path)
    names = comparison.run.name, comparison.real.name
    data = _png(drawn, *names) if target.suffix.lower() == ".png" else _html(drawn, *names)
    staging = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        staging.write_bytes(data)
        staging.replace(target)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=path) from error
    finally:
        staging.unlink(missing_ok=True)
    return target


def _distributions(comparison: Comparison) -> Iterator[Panel]:
    for metric in LATENCIES:
        run, real = (_distribution(log.values(f"{metric}_s")) for log in (comparison.run, comparison.real))
        yield from _if_known(Panel(TITLES[metric], "s", "share of requests", run, real))


def _distribution(values: Floats) -> Line:
    ordered = np.sort(values[~np.isnan(values)])
    return _thinned(ordered, np.arange(1, len(ordered) + 1) / max(len(ordered), 1))


def _over_time(comparison: Comparison) -> Iterator[Panel]:
    if comparison.tokens_per_second is not None:
        run, real = comparison.tokens_per_second
        seconds = np.arange(len(run), dtype=np.float64) + comparison.start_s
        yield Panel("output tokens", "s", "tokens/s", (seconds, run), (seconds, real))
    both = comparison.run, comparison.real
    inside, first = [_in_system(log) for log in both], [_by_arrival(log) for log in both]
    yield from _if_known(Panel("requests in the system", "s", "requests", inside[0], inside[1]))
    yield from _if_known(Panel("TTFT by arrival", "s", "s", first[0], first[1], points=True))


def _if_known(panel: Panel) -> Iterator[Panel]:
    if len(panel.run[0]) and len(panel.real[0]):
        yield panel


def _in_system(log: RunLog) -> Line:
    """Return how many requests have arrived and not ended, at every arrival and end."""
    arrivals, ends = log.values("arrival_s"), log.values("arrival_s") + log.values("e2e_s")
    arrivals, ends = arrivals[~np.isnan(ends)], ends[~np.isnan(ends)]
    times = np.concatenate([arrivals, ends])
    order = times.argsort(kind="stable")
    changes = np.repeat([1.0, -1.0], [len(arrivals), len(ends)])
    return _thinned(times[order], changes[order].cumsum())


def _by_arrival(log: RunLog) -> Line:
    arrivals, ttfts = log.values("arrival_s"), log.values("ttft_s")
    known = ~np.isnan(arrivals + ttfts)
    return _thinned(arrivals[known], ttfts[known])


def _thinned(x: Floats, y: Floats) -> Line:
    """Keep as many points as a screen can show, evenly chosen, the first and the last among them."""
    if len(x) <= _MOST_POINTS:
        return x, y
    kept = np.linspace(0, len(x) - 1, _MOST_POINTS).astype(np.int64)
    return x[kept], y[kept]


def _png(drawn: list[Panel], run: str, real: str) -> bytes:
    figures: Any = importlib.import_module("matplotlib.figure")
    rows = -(-len(drawn) // _COLUMNS)
    figure = figures.Figure(figsize=(14, 3.8 * rows), dpi=110, layout="constrained")
    for place, panel in enumerate(drawn, 1):
        axes = figure.add_subplot(rows, _COLUMNS, place)
        for name, colour, (x, y) in ((real, _REAL, panel.real), (run, _RUN, panel.run)):
            if panel.points:
                axes.plot(x, y, ".", color=colour, markersize=3, label=name)
            else:
                axes.step(x, y, color=colour, where="post", linewidth=1.2, label=name)
        axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        axes.grid(alpha=0.25)
        if place == 1:
            axes.legend(fontsize="small")
    data = io.BytesIO()
    figure.savefig(data, format="png")
    return data.getvalue()


def _html(drawn: list[Panel], run: str, real: str) -> bytes:
    subplots: Any = importlib.import_module("plotly.subplots")
    rows = -(-len(drawn) // _COLUMNS)
    figure = subplots.make_subplots(rows, _COLUMNS, subplot_titles=[panel.title for panel in drawn])
    for place, panel in enumerate(drawn):
        row, column = place // _COLUMNS + 1, place % _COLUMNS + 1
        for name, colour, (x, y) in ((real, _REAL, panel.real), (run, _RUN, panel.run)):
            style = {"mode": "markers", "marker": {"size": 4}} if panel.points else {"line": {"shape": "hv"}}
            figure.add_scatter(
                x=x, y=y, name=name, legendgroup=colour, showlegend=place == 0, row=row, col=column, **style
            ).data[-1].update(marker_color=colour, line_color=colour)
        figure.update_xaxes(title_text=panel.x, row=row, col=column)
        figure.update_yaxes(title_text=panel.y, row=row, col=column)
    figure.update_layout(template="plotly_white", height=380 * rows, title=f"{run} and {real}")
    page: str = figure.to_html(include_plotlyjs=True, full_html=True)
    return page.encode()
