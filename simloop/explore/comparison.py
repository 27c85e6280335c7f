"""A run beside what it should have been: the same figures of both, and how far apart they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from simloop.errors import InputError
from simloop.explore.matching import Matching
from simloop.explore.measures import (
    mean_absolute_percentage_error,
    relative_error,
    weighted_absolute_percentage_error,
)
from simloop.explore.real_run import real_run
from simloop.explore.run_log import LATENCIES, STATISTICS, Key, RunLog
from simloop.explore.token_series import TokenSeries
from simloop.metrics import Result

if TYPE_CHECKING:
    import numpy.typing as npt
    from rich.console import RenderableType

__all__ = ["FIGURES", "Comparison", "Figure", "compare"]

FIGURES: dict[Key, str] = {
    **{(metric, statistic): "s" for metric in LATENCIES for statistic in STATISTICS},
    ("makespan", ""): "s",
    ("request_throughput", ""): "requests/s",
    ("output_throughput", ""): "tokens/s",
}
"""The figures that are compared, with their units, in the order in which they are shown."""

_LONGEST_S = 1e7
"""Nobody measured for longer (four months): such times are in another unit than was said."""


@attrs.frozen
class Figure:
    """One figure of both runs.

    Attributes:
        metric: ``ttft``, ``tpot``, ``e2e``, ``makespan``, ``request_throughput`` or ``output_throughput``.
        statistic: ``mean``, ``p50``, ``p90``, ``p95`` or ``p99``; empty where there is one figure only.
        unit: Of both values.
        run: Of the run.
        real: Of the real one.
    """

    metric: str
    statistic: str
    unit: str
    run: float
    real: float

    @property
    def error(self) -> float | None:
        """(run - real) / real; ``None`` where real is 0 and run is not."""
        return relative_error(self.run, self.real)


@attrs.frozen(eq=False, repr=False)
class Comparison:
    """Two logs and what tells them apart; everything is derived when first asked for.

    Attributes:
        run: What is judged, usually a simulation.
        real: What it is held to.
    """

    run: RunLog
    real: RunLog

    def __repr__(self) -> str:
        return f"<Comparison of {self.run.name} with {self.real.name}: {len(self.matching):,} requests matched>"

    @cached_property
    def figures(self) -> list[Figure]:
        """The figures that both have."""
        ours, theirs = self.run.figures, self.real.figures
        both = ours.keys() & theirs
        return [Figure(*key, unit, ours[key], theirs[key]) for key, unit in FIGURES.items() if key in both]

    def figure(self, metric: str, statistic: str = "") -> Figure | None:
        """Return one figure; ``None`` if one of the two does not have it."""
        return next((one for one in self.figures if (one.metric, one.statistic) == (metric, statistic)), None)

    @cached_property
    def matching(self) -> Matching:
        """Which requests are the same in both."""
        return Matching.of(self.run.requests, self.real.requests)

    @cached_property
    def per_request(self) -> dict[str, float]:
        """Mean absolute percentage error of the matched requests, by metric; 0.02 is two percent."""
        errors = {
            metric: mean_absolute_percentage_error(
                self.run.values(f"{metric}_s")[self.matching.run], self.real.values(f"{metric}_s")[self.matching.real]
            )
            for metric in LATENCIES
        }
        return {metric: error for metric, error in errors.items() if error is not None}

    @cached_property
    def token_series(self) -> tuple[TokenSeries, TokenSeries] | None:
        """The output tokens over time of run and real; ``None`` if those of one are not known.

        Where of the real one only first and last tokens are known, both are taken so: what that blurs, it blurs in
        both, and the errors come out smaller than they are.
        """
        both = self.run.tokens, self.real.tokens
        if self.real.tokens is None:
            both = self.run.spread_tokens, self.real.spread_tokens
        ours, theirs = both
        return None if ours is None or theirs is None else (ours, theirs)

    @cached_property
    def tokens_per_second(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
        """Output tokens of run and real in each second, from the first arrival (or the last tick before it)."""
        if self.token_series is None:
            return None
        ours, theirs = self.token_series
        start = self.start_s
        seconds = int(max(ours.end_s, theirs.end_s) - start) + 1
        return ours.per_second(start, seconds), theirs.per_second(start, seconds)

    @property
    def start_s(self) -> float:
        """Where the first second of :attr:`tokens_per_second` begins, since the first arrival: at most 0."""
        if self.token_series is None:
            return 0.0
        grid = next((series.grid_s for series in reversed(self.token_series) if series.grid_s), 0.0)
        return float(grid - np.ceil(max(grid, 0.0)))

    @cached_property
    def throughput_wape(self) -> float | None:
        """Sum of the differences of :attr:`tokens_per_second` over the sum of the real ones; ``None`` if unknown."""
        return None if self.tokens_per_second is None else weighted_absolute_percentage_error(*self.tokens_per_second)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values: figures in s and per second, errors as shares (0.02 is two percent)."""
        figures: dict[str, Any] = {}
        for one in self.figures:
            values = {"run": _plain(one.run), "real": _plain(one.real), "error": _plain(one.error)}
            metric = figures.setdefault(one.metric, {"unit": one.unit})
            metric.update({one.statistic: values} if one.statistic else values)
        return {
            "run": {"name": self.run.name, "requests": len(self.run.requests)},
            "real": {"name": self.real.name, "requests": len(self.real.requests)},
            "figures": figures,
            "matched": {"requests": len(self.matching), "by": self.matching.by if len(self.matching) else None},
            "per_request_mape": {metric: _plain(error) for metric, error in self.per_request.items()},
            "throughput_wape": _plain(self.throughput_wape),
            "throughput_from": None if self.token_series is None else [series.source for series in self.token_series],
        }

    def table(self) -> RenderableType:
        """Return everything as something rich can print, at most 80 columns wide."""
        from simloop.explore.table import comparison_table

        return comparison_table(self)

    def plot(self, path: str | Path) -> Path:
        """Draw distributions and time series of both into a ``.png`` or ``.html`` file; return it.

        Raises:
            InputError: What draws is not installed, there is nothing to draw, or the file cannot be written.
        """
        from simloop.explore.plots import write_plot

        return write_plot(self, path)


def compare(
    run: Result | RunLog | str | Path,
    real: Result | RunLog | str | Path,
    *,
    columns: Mapping[str, str] | None = None,
) -> Comparison:
    """Hold a run to a real one.

    Args:
        run: What :func:`simloop.simulate` returned, a folder that ``simloop run --out`` wrote, or anything that
            ``real`` can be.
        real: Whatever :func:`real_run` reads, or what it returned.
        columns: What the columns of ``real`` are, if it is a table; see :func:`real_run`.

    Raises:
        InputError: One of them cannot be read, or they have nothing in common.
    """
    comparison = Comparison(_log(run, None), _log(real, columns))
    for log in (comparison.run, comparison.real):
        if log.end_s > _LONGEST_S:
            raise InputError(f"it took {log.end_s:.3g} s, says the table; are the units right?", file=log.name)
    if not comparison.figures:
        raise InputError(
            f"nothing to compare: {comparison.run.name} has {_listed(comparison.run)}, "
            f"{comparison.real.name} has {_listed(comparison.real)}"
        )
    return comparison


def _log(source: Result | RunLog | str | Path, columns: Mapping[str, str] | None) -> RunLog:
    if isinstance(source, RunLog):
        return source
    if isinstance(source, Result):
        return RunLog.of_result(source)
    return real_run(source, columns=columns)


def _listed(log: RunLog) -> str:
    return ", ".join(dict.fromkeys(metric for metric, _ in log.figures)) or "no figure"


def _plain(value: float | None) -> float | None:
    return None if value is None else round(value, 6) + 0.0
