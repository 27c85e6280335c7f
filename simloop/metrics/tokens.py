"""Token times, from the end times of decode steps and the stays of requests in them.

All requests of a decode step get their token at the same instant, so the gap between two steps that follow each other
is one number with a multiplicity: the stays that contain both. What is left are irregular gaps: one where a stay
begins, between its prefill's token and its first step, and one between two stays. Time and memory are O(steps + stays)
for all but the longest gap of each request, which reads each token's gap once, inside numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import attrs
import numpy as np

from simloop.metrics.distribution import Distribution

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

__all__ = ["TokenTimes"]

_SECOND_NS = 1_000_000_000


@attrs.frozen(eq=False)
class TokenTimes:
    """When every token of a set of requests came out.

    The first attribute has one element per decode step; the others have one per stay of a request in a worker's decode
    cohort that gave it a token, sorted by request and, within a request, by time.

    Attributes:
        step_ends: When each step ended, in ns; the steps of one worker stand together, ascending.
        rows: The request: its row in the table of requests.
        firsts: When the prefill before the stay gave a token, in ns, or -1 if it gave none.
        starts: The first step of the stay.
        stops: One after the last step of the stay; equal to its start if it has none.
    """

    step_ends: Ints
    rows: Ints
    firsts: Ints
    starts: Ints
    stops: Ints

    @classmethod
    def of(cls, step_ends: Sequence[npt.ArrayLike], segments: npt.NDArray[np.void], request_ids: Ints) -> TokenTimes:
        """Join the steps of all workers, and the stays to the requests.

        Args:
            step_ends: Per worker, the end time of each of its decode steps, in ns.
            segments: :meth:`Records.segments <simloop.metrics.Records.segments>`.
            request_ids: The ids of the table of requests, ascending; stays of others are left out.
        """
        ends = [np.array(steps, np.int64) for steps in step_ends]
        offsets = np.cumsum([0, *map(len, ends)])
        rows = request_ids.searchsorted(segments["request_id"])
        known = rows < len(request_ids)
        known[known] = request_ids[rows[known]] == segments["request_id"][known]
        known &= (segments["first_ns"] >= 0) | (segments["end"] > segments["start"])
        segments, rows = segments[known], rows[known]
        offset = offsets[segments["worker"]]
        firsts = segments["first_ns"].astype(np.int64)
        joined = np.concatenate([np.empty(0, np.int64), *ends])
        return cls(joined, rows, firsts, segments["start"] + offset, segments["end"] + offset)

    def of_row(self, row: int) -> Ints:
        """Return the times of one request's tokens, in ns; empty if it got none."""
        low, high = self.rows.searchsorted([row, row + 1])
        pieces = [np.empty(0, np.int64)]
        for stay in range(low, high):
            if self.firsts[stay] >= 0:
                pieces.append(self.firsts[stay : stay + 1])
            pieces.append(self.step_ends[self.starts[stay] : self.stops[stay]])
        return np.concatenate(pieces)

    def expand(self) -> tuple[Ints, Ints]:
        """Return every token, by request and time: the row of its request and its time in ns. This is O(tokens)."""
        opening = (self.firsts >= 0).astype(np.int64)
        lengths = self.stops - self.starts + opening
        before = lengths.cumsum() - lengths
        # Token i of a stay came out of step start + i; of the step before it if the first one is its prefill's.
        steps = np.arange(lengths.sum()) + np.repeat(self.starts - opening - before, lengths)
        prefill = before[opening > 0]
        steps[prefill] = 0
        times = self.step_ends[steps] if len(self.step_ends) else steps
        times[prefill] = self.firsts[opening > 0]
        return np.repeat(self.rows, lengths), times

    def select(self, wanted: npt.NDArray[np.bool_]) -> TokenTimes:
        """Return the token times of the requests whose rows are marked."""
        kept = wanted[self.rows]
        return TokenTimes(self.step_ends, self.rows[kept], self.firsts[kept], self.starts[kept], self.stops[kept])

    def counts(self, num_rows: int) -> Ints:
        """Return how many tokens each request got."""
        total = np.zeros(num_rows, np.int64)
        np.add.at(total, self.rows, self.stops - self.starts + (self.firsts >= 0))
        return total

    def gaps(self) -> Distribution:
        """Return the distribution of the time between two tokens of a request that follow each other, in ns."""
        irregular, _ = self._irregular_gaps
        multiplicity = np.concatenate([self._members(len(self._step_gaps), 1), np.ones(len(irregular), np.int64)])
        return Distribution.of(np.concatenate([self._step_gaps, irregular]), multiplicity)

    def longest_gaps(self, num_rows: int) -> Ints:
        """Return the longest gap of each request in ns, -1 for one with fewer than two tokens."""
        longest = np.full(num_rows, -1, np.int64)
        irregular, rows = self._irregular_gaps
        np.maximum.at(longest, rows, irregular)
        stays = np.flatnonzero(self.stops - self.starts >= 2)
        # In the order of their starts, what lies between one stay's end and the next one's start is read once at most.
        stays = stays[self.starts[stays].argsort(kind="stable")]
        bounds = np.column_stack([self.starts[stays], self.stops[stays] - 1]).ravel()
        peaks = np.maximum.reduceat(np.append(self._step_gaps, 0), bounds)[::2] if len(stays) else bounds
        np.maximum.at(longest, self.rows[stays], peaks)
        return longest

    def bounds(self, num_rows: int) -> tuple[Ints, Ints]:
        """Return the times of the first and the last token of each request in ns, -1 for one without tokens."""
        first, last = np.full(num_rows, -1, np.int64), np.full(num_rows, -1, np.int64)
        first[self.rows[::-1]] = self._edges[0][::-1]
        last[self.rows] = self._edges[1]
        return first, last

    def disordered(self, num_rows: int) -> npt.NDArray[np.bool_]:
        """Mark the requests with a token that came out before the one it follows, step ends apart."""
        marked = np.zeros(num_rows, bool)
        gaps, rows = self._irregular_gaps
        marked[rows[gaps < 0]] = True
        return marked

    def per_second(self, origin_ns: int = 0) -> tuple[Ints, Ints]:
        """Count tokens by whole seconds since ``origin_ns``.

        Returns:
            The seconds in which there was a token, ascending, and the number of tokens in each.
        """
        firsts = self.firsts[self.firsts >= 0]
        times = np.concatenate([self.step_ends, firsts])
        tokens = np.concatenate([self._members(len(self.step_ends), 0), np.ones(len(firsts), np.int64)])
        times, tokens = times[tokens > 0], tokens[tokens > 0]
        seconds, bucket = np.unique((times - origin_ns) // _SECOND_NS, return_inverse=True)
        return seconds, np.bincount(bucket, tokens, len(seconds)).astype(np.int64)

    @cached_property
    def _step_gaps(self) -> Ints:
        """Element k: from step k to step k + 1. Where the worker changes it means nothing, and no stay contains it."""
        return np.diff(self.step_ends)

    def _members(self, length: int, margin: int) -> Ints:
        """Count, for each step k, the stays that contain k to k + ``margin``."""
        stays = self.stops - self.starts > margin
        joining = np.bincount(self.starts[stays], minlength=length + 1)
        leaving = np.bincount(self.stops[stays] - margin, minlength=length + 1)
        return (joining - leaving).cumsum()[:length]

    @cached_property
    def _edges(self) -> tuple[Ints, Ints]:
        """The time of the first and of the last token of each stay."""
        has_steps = self.stops > self.starts
        first, last = self.firsts.copy(), self.firsts.copy()
        last[has_steps] = self.step_ends[self.stops[has_steps] - 1]
        paused = self.firsts < 0
        first[paused] = self.step_ends[self.starts[paused]]
        return first, last

    @cached_property
    def _irregular_gaps(self) -> tuple[Ints, Ints]:
        """The gaps that are not between two steps of one stay, and the rows of the requests they belong to."""
        first, last = self._edges
        opening = (self.stops > self.starts) & (self.firsts >= 0)
        openings = self.step_ends[self.starts[opening]] - self.firsts[opening]
        following = self.rows[1:] == self.rows[:-1]
        between = first[1:][following] - last[:-1][following]
        return np.concatenate([openings, between]), np.concatenate([self.rows[opening], self.rows[1:][following]])
