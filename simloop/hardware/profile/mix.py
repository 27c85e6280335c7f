"""A step as an attention table sees it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf
from typing import Protocol

from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.domain import DomainWatch
from simloop.hardware.profile.skew import SkewFit
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

    The time at a context is ``base + rise * (context - low) / (high - low)``; with ``top_`` before each, at the longest
    one. Of unequal contexts it is that of the mean and ``alpha`` of what the longest one's is beyond. These are plain
    attributes, and read by whoever prices an iteration, because a call more is a fifth of its cost.

    Args:
        decodes: How many requests.
        grid: The measurements.
        skew: The correction for unequal contexts.
        domain: Whom to tell when a context is longer than any measured one.
    """

    __slots__ = (
        "_alphas",
        "_curve",
        "_domain",
        "_last",
        "alpha",
        "base",
        "decodes",
        "high",
        "longest_from",
        "longest_to",
        "low",
        "rate_from",
        "rate_to",
        "rise",
        "skewed",
        "top_base",
        "top_high",
        "top_low",
        "top_rise",
    )

    def __init__(self, decodes: int, grid: DecodeGrid, skew: SkewFit | None, domain: DomainWatch) -> None:
        self.decodes = decodes
        self.skewed = skew is not None and decodes > 1
        self._alphas = ([0.0], [0.0], [[0.0]]) if skew is None else skew.decode_alphas(decodes)
        self._curve = grid.decode_curve(decodes)
        self._domain, self._last = domain, grid.last_context
        self.low, self.high, self.base, self.rise = self._segment(0)
        self.top_low, self.top_high, self.top_base, self.top_rise = self._segment(0)
        self.alpha, self.rate_from, self.rate_to, self.longest_from, self.longest_to = 0.0, 0.0, 0.0, 0.0, 0.0

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

    def move_top(self, context: float) -> None:
        """Go to the two points around the longest context."""
        self.top_low, self.top_high, self.top_base, self.top_rise = self._segment(context)

    def move_alpha(self, rate: float, longest: int) -> None:
        """Go to the bin of a mix of unequal contexts."""
        rates, lengths, grid = self._alphas
        row, column = bisect_left(rates, rate), bisect_left(lengths, longest)
        self.alpha = grid[row][column]
        self.rate_from, self.rate_to = _around(rates, row)
        self.longest_from, self.longest_to = _around(lengths, column)


def _around(edges: list[float], place: int) -> tuple[float, float]:
    """Return the edges of a bin; the outermost reach to no end."""
    return (edges[place - 1] if place else -inf), (edges[place] if place < len(edges) else inf)
