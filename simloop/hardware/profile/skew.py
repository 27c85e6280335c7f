"""Decoding requests with unequal contexts: how far the time moves from the mean context's to the longest one's.

The time of attention at the mean context is too small when a few requests are much longer than the rest, and at the
longest context much too large. Measured, the time lies at ``mean + alpha * (max - mean)``; ``alpha`` stands in bins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs

from simloop.errors import InputError, did_you_mean
from simloop.hardware.profile.reading import number, read_table, whole

__all__ = ["DEFAULT_BINS", "SkewBins", "SkewFit", "fit_skew", "read_skew_fit"]


@attrs.frozen
class SkewBins:
    """Edges of the bins; a value belongs to the bin whose upper edge is the first that is not below it.

    Attributes:
        decodes: By the number of decoding requests.
        rate: By ``(mean - min) / (max - min)`` of their contexts.
        longest: By the longest of them.
        history: By the tokens that the step's prompts already have in the KV cache.
        labels: Names of the bins of each of the four, as ``skew_fit.csv`` has them.
    """

    decodes: list[float]
    rate: list[float]
    longest: list[float]
    history: list[float]
    labels: tuple[list[str], list[str], list[str], list[str]]


DEFAULT_BINS = SkewBins(
    [0, 2, 4, 8, 16, 32, 64, 128, 256, 1_000_000],
    [-0.01, 0.05, 0.15, 0.4, 0.7, 1.01],
    [0, 1024, 4096, 16384, 1_000_000_000],
    [-1, 0, 512, 1024, 2048, 4096, 8192, 1_000_000_000],
    (
        [*(f"n<={n}" for n in (2, 4, 8, 16, 32, 64, 128, 256)), "n>256"],
        ["sr<=5%", "sr<=15%", "sr<=40%", "sr<=70%", "sr>70%"],
        ["kvB<=1k", "kvB<=4k", "kvB<=16k", "kvB>16k"],
        ["kp=0", "kp<=512", "kp<=1k", "kp<=2k", "kp<=4k", "kp<=8k", "kp>8k"],
    ),
)
"""The bins of vLLM 0.19 layer profiles; ``meta.yaml`` may name others."""


@attrs.frozen
class SkewFit:
    """``alpha`` by bin.

    Attributes:
        default: Where no bin was measured; most steps with a prompt, as their ``prefill_chunk`` is seldom a measured
            one.
        table: ``alpha`` by ``(prefill_chunk, decodes bin, rate bin, longest bin, history bin)``.
        bins: The edges.
        chunks: Every ``prefill_chunk`` that was measured.
    """

    default: float
    table: dict[tuple[int, int, int, int, int], float] = attrs.Factory(dict)
    bins: SkewBins = DEFAULT_BINS
    chunks: frozenset[int] = attrs.field(
        init=False, default=attrs.Factory(lambda self: frozenset(key[0] for key in self.table), takes_self=True)
    )

    def alpha(self, chunk: int, history: int, decodes: int, rate: float, longest: int) -> float:
        """Return ``alpha`` of one step; ``chunk`` must equal a measured ``prefill_chunk``, it is not rounded."""
        if chunk not in self.chunks:
            return self.default
        bins = self.bins
        key = (
            chunk,
            bisect_left(bins.decodes, decodes),
            bisect_left(bins.rate, rate),
            bisect_left(bins.longest, longest),
            bisect_left(bins.history, history),
        )
        return self.table.get(key, self.default)

    def decode_alphas(self, decodes: int) -> tuple[list[float], list[float], list[list[float]]]:
        """Return rate edges, longest edges, and ``alpha`` by both bins, for decode-only steps of so many requests."""
        bins, place = self.bins, bisect_left(self.bins.decodes, decodes)
        history = bisect_left(bins.history, 0)
        grid = [
            [
                self.table.get((0, place, rate, longest, history), self.default)
                for longest in range(len(bins.longest) + 1)
            ]
            for rate in range(len(bins.rate) + 1)
        ]
        return bins.rate, bins.longest, grid


def read_skew_fit(file: Path, default: float, bins: SkewBins) -> SkewFit:
    """Return the bins that a ``skew_fit.csv`` lists.

    Raises:
        InputError: The table is not right, or names a bin that there is not.
    """
    names = ("n_label", "skew_rate_label", "kv_big_label", "kp_label")
    columns: dict[str, Any] = {"pc": whole, **dict.fromkeys(names, str), "alpha": number}
    table: dict[tuple[int, int, int, int, int], float] = {}
    for chunk, *labels, alpha in read_table(file, columns):
        places = [_bin(file, name, label, known) for name, label, known in zip(names, labels, bins.labels, strict=True)]
        table[chunk, places[0], places[1], places[2], places[3]] = alpha
    return SkewFit(default, table, bins)


def _bin(file: Path, column: str, label: str, known: list[str]) -> int:
    if label not in known:
        raise InputError(
            f"no bin {label!r}{did_you_mean(label, known)} (there are: {', '.join(known)})", file=file, path=column
        )
    return known.index(label) + 1


def fit_skew(file: Path, default: float, bins: SkewBins) -> SkewFit:
    """Return the bins fitted to the experiments of a ``skew.csv``.

    In each bin ``alpha`` minimises the squared error of ``t_skew - t_mean = alpha * (t_max - t_mean)`` over the
    experiments with ``t_max > t_mean``, and is rounded to four digits, as the profiler does it.

    Raises:
        InputError: The table is not right.
    """
    sums: dict[tuple[int, int, int, int, int], tuple[float, float]] = {}
    for key, gap, moved in _experiments(file, bins):
        xy, xx = sums.get(key, (0.0, 0.0))
        sums[key] = (xy + gap * moved, xx + gap * gap)
    return SkewFit(default, {key: round(xy / xx, 4) for key, (xy, xx) in sums.items()}, bins)


def _experiments(file: Path, bins: SkewBins) -> Iterable[tuple[tuple[int, int, int, int, int], float, float]]:
    names: dict[str, Any] = {"pc": whole, "n": whole, "kvs": whole, "kv_big": whole, "kv_mean": number, "kp": whole}
    times = dict.fromkeys(("t_mean_us", "t_max_us", "t_skew_us"), number)
    for chunk, n, small, big, mean, history, t_mean, t_max, t_skew in read_table(file, {**names, **times}):
        if t_max > t_mean and big > small:
            key = (
                chunk,
                bisect_left(bins.decodes, n),
                bisect_left(bins.rate, (mean - small) / (big - small)),
                bisect_left(bins.longest, big),
                bisect_left(bins.history, history),
            )
            yield key, t_max - t_mean, t_skew - t_mean
