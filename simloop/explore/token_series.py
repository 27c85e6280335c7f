"""Output tokens of a run over time, as exactly as its files tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["TokenSeries"]


@attrs.frozen(eq=False)
class TokenSeries:
    """How many output tokens had come out by each of a series of moments.

    Attributes:
        source: Where that is known from: ``token times``, ``time series``, or ``first and last tokens``.
        times_s: The moments in ascending order, seconds since the first arrival.
        totals: The tokens up to and including each of them, ascending.
        steady: Whether tokens come evenly between two moments, as rates say; else they come at the moments.
        grid_s: Where a grid of one second lies on which the totals are exact, seconds since the first arrival.
    """

    source: str
    times_s: Floats
    totals: Floats
    steady: bool = False
    grid_s: float = 0.0

    @classmethod
    def of_tokens(cls, source: str, times_s: Floats, weights: Floats | None = None) -> TokenSeries:
        """Return the series of tokens whose times are known.

        Args:
            source: Where they are known from.
            times_s: When each came out, in any order, seconds since the first arrival.
            weights: How many came out with each; one if not given.
        """
        order = times_s.argsort(kind="stable")
        counts = np.ones(len(times_s)) if weights is None else weights[order]
        return cls(source, times_s[order], counts.cumsum())

    @classmethod
    def of_rates(cls, starts_s: Floats, ends_s: Floats, tokens: Floats, *, grid_s: float = 0.0) -> TokenSeries:
        """Return the series of spans in each of which tokens came evenly; spans of several workers may overlap.

        Args:
            starts_s: Where each span begins, seconds since the first arrival.
            ends_s: Where it ends, after its start.
            tokens: How many came out in it.
            grid_s: As the attribute.
        """
        rates = tokens / (ends_s - starts_s)
        times, place = np.unique(np.concatenate([starts_s, ends_s]), return_inverse=True)
        slopes = np.bincount(place, np.concatenate([rates, -rates]), len(times)).cumsum()
        totals = np.concatenate([[0.0], (slopes[:-1] * np.diff(times)).cumsum()])
        return cls("time series", times, totals, steady=True, grid_s=grid_s)

    @classmethod
    def of_spread(cls, firsts_s: Floats, lasts_s: Floats, tokens: npt.NDArray[np.int64]) -> TokenSeries:
        """Return the series of requests whose tokens are spread evenly between their first and their last.

        Args:
            firsts_s: When each request's first token came out, seconds since the first arrival.
            lasts_s: When its last did.
            tokens: How many it got, at least one.
        """
        before = tokens.cumsum() - tokens
        index = np.arange(tokens.sum()) - np.repeat(before, tokens)
        step = (lasts_s - firsts_s) / np.maximum(tokens - 1, 1)
        return cls.of_tokens("first and last tokens", np.repeat(firsts_s, tokens) + index * np.repeat(step, tokens))

    @property
    def end_s(self) -> float:
        """The last moment, seconds since the first arrival; 0 if there is none."""
        return float(self.times_s[-1]) if len(self.times_s) else 0.0

    def per_second(self, start_s: float, seconds: int) -> Floats:
        """Return the tokens in each second: at its beginning or after it, and before its end.

        Args:
            start_s: Where the first second begins, seconds since the first arrival.
            seconds: How many.
        """
        edges = start_s + np.arange(seconds + 1)
        if self.steady and len(self.times_s):
            return np.diff(np.interp(edges, self.times_s, self.totals, left=0.0))
        return np.diff(np.concatenate([[0.0], self.totals])[self.times_s.searchsorted(edges, side="left")])
