"""A step as an attention table sees it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf
from typing import Protocol

from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.domain import DomainWatch
from simloop.hardware.profile.skew import SkewFit
from simloop.hardware.profile.tail import Tail
from simloop.hardware.timing import IterationShape

__all__ = ["DecodeGrid", "DecodeRow", "extremes", "merged"]


def merged(shape: IterationShape) -> tuple[int, int, int, int]:
    """Return one prompt chunk and equal decoding requests, which stand for all that a step has.

    Returns:
        Prompt tokens, summed over the chunks; the tokens that these have in the KV cache already, summed likewise;
        requests with one new token, chunks of one token among them; and the mean of their contexts before this token,
        rounded down.
    """
    chunk, history = 0, 0
    decodes, total = shape.num_decodes, shape.decode_context
    for new, cached in shape.chunks:
        if new > 1:
            chunk += new
            history += cached
        else:
            decodes += 1
            total += cached + 1
    return chunk, history, decodes, total // decodes - 1 if decodes else 0


def extremes(shape: IterationShape) -> tuple[int, int]:
    """Return the shortest and the longest context before this token of the requests that have one; 0 without any."""
    contexts = [cached for new, cached in shape.chunks if new == 1]
    if shape.num_decodes:
        contexts += [shape.decode_context_min - 1, shape.decode_context_max - 1]
    return min(contexts, default=0), max(contexts, default=0)


class DecodeGrid(Protocol):
    """Prices the attention of decodes alone."""

    @property
    def last_context(self) -> int:
        """The longest measured context."""
        ...

    def decode_curve(self, decodes: int) -> Curve:
        """Return the time of so many decodes by their mean context."""
        ...


class DecodeRow:
    """Attention of so many decoding requests alone, by their context; it remembers between which points it was last.

    The time at a context is ``base + rise * (context - low) / (high - low)``.

    Args:
        decodes: How many requests.
        grid: The measurements.
        skew: The correction for unequal contexts.
        domain: Whom to tell when a context is longer than any measured one.
        tail: What the longest context adds at least.
    """

    __slots__ = (
        "_alpha",
        "_alphas",
        "_curve",
        "_domain",
        "_last",
        "_longest_from",
        "_longest_to",
        "_per_longest",
        "_per_mean",
        "_rate_from",
        "_rate_to",
        "_top",
        "base",
        "decodes",
        "high",
        "low",
        "rise",
        "skewed",
    )

    def __init__(
        self, decodes: int, grid: DecodeGrid, skew: SkewFit | None, domain: DomainWatch, tail: Tail | None = None
    ) -> None:
        self.decodes = decodes
        waves = 0.0 if tail is None else tail.waves(decodes)
        self._per_longest = tail.ns_per_token if tail is not None and waves else 0.0
        self._per_mean = self._per_longest * waves
        self.skewed = decodes > 1 and (skew is not None or self._per_longest > 0.0)
        self._alphas = ([], [], [[0.0]]) if skew is None else skew.decode_alphas(decodes)
        self._curve = grid.decode_curve(decodes)
        self._domain, self._last = domain, grid.last_context
        self.low, self.high, self.base, self.rise = self._segment(0)
        self._top = self._segment(0)
        self._alpha, self._rate_from, self._rate_to, self._longest_from, self._longest_to = 0.0, 0.0, 0.0, 0.0, 0.0

    def move(self, context: float) -> None:
        """Go to the two points around a context."""
        self.low, self.high, self.base, self.rise = self._segment(context)

    def _segment(self, context: float) -> tuple[int, int, float, float]:
        points, values = self._curve.points, self._curve.values
        if context > self._last:
            self._domain.check("kv_decode", context, self._last)
        if context < points[0] or len(points) == 1:
            return 0, max(1, points[0]), values[0], 0.0
        low = min(bisect_right(points, context), len(points) - 1) - 1
        return points[low], points[low + 1], values[low], values[low + 1] - values[low]

    def corrected(self, time: float, mean: int, shortest: int, longest: int) -> float:
        """Return the time of unequal contexts from that of equal ones: by the measured share, and at least the tail."""
        rate = (mean - shortest) / (longest - shortest)
        if not (self._rate_from < rate <= self._rate_to and self._longest_from < longest <= self._longest_to):
            self._look_up_alpha(rate, longest)
        alpha, tail, more = self._alpha, self._per_longest, 0.0
        if alpha:
            low, high, base, rise = self._top
            if not low <= longest < high:
                low, high, base, rise = self._top = self._segment(longest)
            gap = base + rise * (longest - low) / (high - low) - time
            if gap > 0.0:
                more = alpha * gap
        if tail:
            rest = tail * longest - self._per_mean * mean
            if rest > more:
                more = rest
        return time + more

    def _look_up_alpha(self, rate: float, longest: int) -> None:
        rates, lengths, grid = self._alphas
        row, column = bisect_left(rates, rate), bisect_left(lengths, longest)
        self._alpha = grid[row][column]
        self._rate_from, self._rate_to = _around(rates, row)
        self._longest_from, self._longest_to = _around(lengths, column)


def _around(edges: list[float], place: int) -> tuple[float, float]:
    """Return the edges of a bin; the outermost reach to no end."""
    return (edges[place - 1] if place else -inf), (edges[place] if place < len(edges) else inf)
