"""Measured points along one axis, and what lies between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import attrs

__all__ = ["Curve", "blend", "bracket"]


def bracket(points: list[int], x: float) -> tuple[int, int]:
    """Return the indices of the two points that ``x`` is interpolated from.

    Between two points: these. Below the first: the first, twice. Above the last: the last two, to go on along them.
    """
    if x <= points[0] or len(points) == 1:
        return 0, 0
    high = min(bisect_right(points, x), len(points) - 1)
    return high - 1, high


def blend(low: float, high: float, x: float, x_low: float, x_high: float) -> float:
    """Return the value at ``x`` on the line through ``(x_low, low)`` and ``(x_high, high)``."""
    return low if x_low == x_high else low + (high - low) * (x - x_low) / (x_high - x_low)


@attrs.frozen
class Curve:
    """A function given by points, straight lines between them; it need not rise.

    Below the first point it keeps that point's value; above the last it goes on along the last two.

    Attributes:
        points: Where it was measured, rising.
        values: What was measured there.
    """

    points: list[int]
    values: list[float]

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, float]]) -> Curve:
        """Return the curve through ``(point, value)`` pairs in any order; of equal points the last one counts."""
        rising = sorted(dict(pairs).items())
        return cls([point for point, _ in rising], [value for _, value in rising])

    def at(self, x: float) -> float:
        """Return the value at ``x``."""
        points, values = self.points, self.values
        if x <= points[0]:
            return values[0]
        high = bisect_right(points, x)
        if high == len(points):  # on the last point or beyond: along the last two
            if high == 1:
                return values[0]
            high -= 1
        below, low = points[high - 1], values[high - 1]
        return low + (values[high] - low) * (x - below) / (points[high] - below)

    @property
    def first(self) -> int:
        """The smallest measured point."""
        return self.points[0]

    @property
    def last(self) -> int:
        """The largest measured point."""
        return self.points[-1]
