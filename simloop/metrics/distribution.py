"""Mean, deviation and percentiles of many values, or of few values that occur many times."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["Distribution"]


@attrs.frozen(eq=False)
class Distribution:
    """A multiset of numbers, each held once with the number of times it occurs.

    Every statistic equals numpy's over the list with each value written out as often as it occurs; the percentiles are
    numpy's default, linear interpolation between the two nearest ranks, bit for bit.

    Attributes:
        values: The values in ascending order, integers or floats of one unit.
        ranks: How many values are at or below each of them, itself and its repetitions included.
    """

    values: npt.NDArray[Any]
    ranks: npt.NDArray[np.int64]

    @classmethod
    def of(cls, values: npt.NDArray[Any], counts: npt.NDArray[np.int64] | None = None) -> Distribution:
        """Sort values into a distribution.

        Args:
            values: One-dimensional, in any order.
            counts: How often each occurs, at least 0; once each if not given.
        """
        if counts is None:
            return cls(np.sort(values), np.arange(1, len(values) + 1, dtype=np.int64))
        occurring = counts > 0
        values, counts = values[occurring], counts[occurring]
        order = values.argsort(kind="stable")
        return cls(values[order], counts[order].cumsum(dtype=np.int64))

    @property
    def count(self) -> int:
        """How many values there are, repetitions included."""
        return int(self.ranks[-1]) if len(self.ranks) else 0

    @cached_property
    def mean(self) -> float | None:
        """The arithmetic mean; ``None`` if there are no values."""
        return float((self.values.astype(np.float64) * self._counts).sum()) / self.count if self.count else None

    @cached_property
    def std(self) -> float | None:
        """The standard deviation of the population (``ddof=0``, numpy's default); ``None`` without values."""
        if self.mean is None:
            return None
        variance = float((np.square(self.values - self.mean) * self._counts).sum()) / self.count
        return float(np.sqrt(variance))

    @property
    def max(self) -> float | None:
        """The largest value; ``None`` if there are no values."""
        return float(self.values[-1]) if self.count else None

    def percentile(self, percent: float) -> float | None:
        """Return the value that ``percent`` of 100 are at or below, interpolated linearly; ``None`` without values."""
        if not self.count:
            return None
        position = (self.count - 1) * (percent / 100)
        rank = int(position)
        below, above = self._at(rank), self._at(min(rank + 1, self.count - 1))
        fraction, step = position - rank, above - below
        # From the nearer end, as numpy does it: the result never leaves [below, above].
        return float(above - step * (1 - fraction) if fraction >= 0.5 else below + step * fraction)

    def _at(self, rank: int) -> Any:
        """Return the value of one rank, counted from 0."""
        return self.values[self.ranks.searchsorted(rank, side="right")]

    @property
    def _counts(self) -> npt.NDArray[np.int64]:
        return np.diff(self.ranks, prepend=0)
