"""The state of each worker over time, from its samples."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import attrs
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

__all__ = ["WorkerSeries"]


@attrs.frozen(eq=False)
class WorkerSeries:
    """The samples of all workers, in the order of time, and what happened between one and the next.

    Attributes:
        samples: A structured array as :meth:`Records.samples <simloop.metrics.Records.samples>` gives it.
        num_workers: How many workers the cluster has.
    """

    samples: npt.NDArray[np.void]
    num_workers: int

    @classmethod
    def of(cls, samples: npt.NDArray[np.void], num_workers: int) -> WorkerSeries:
        """Order samples by time and, at one time, by worker."""
        return cls(samples[np.lexsort((samples["worker"], samples["time_ns"]))], num_workers)

    def since_last(self, field: str) -> Ints:
        """Return how much a cumulative field grew since the worker's sample before; since 0 for its first one."""
        order = self.samples["worker"].argsort(kind="stable")
        workers, totals = self.samples["worker"][order], self.samples[field][order]
        grown = np.diff(totals, prepend=0)
        opening = np.diff(workers, prepend=-1) != 0
        grown[opening] = totals[opening]
        result = np.empty(len(totals), np.int64)
        result[order] = grown
        return result

    def rate(self, field: str, per: str, scale: float = 1.0) -> Floats:
        """Return the growth of one cumulative field per growth of another; NaN where that one did not grow."""
        over = self.since_last(per)
        grown = self.since_last(field) * scale
        return np.where(over > 0, grown / np.maximum(over, 1), np.nan)

    @cached_property
    def kv_usage(self) -> Floats:
        """The fraction of the worker's KV blocks in use at each sample, 0 to 1."""
        return np.asarray(self.samples["kv_used"] / np.maximum(self.samples["kv_total"], 1))

    def mean_over_time(self, values: Floats | Ints, duration_ns: int) -> Floats:
        """Average a quantity of each worker that is 0 while the worker is idle.

        A sample stands for the time that the worker was busy since the sample before, as the mean of the two.

        Args:
            values: The quantity at each sample.
            duration_ns: The time to average over.

        Returns:
            One mean per worker.
        """
        order = self.samples["worker"].argsort(kind="stable")
        workers, ordered = self.samples["worker"][order], values[order].astype(np.float64)
        before = np.concatenate([[0.0], ordered[:-1]])[: len(ordered)]
        before[np.diff(workers, prepend=-1) != 0] = 0.0
        weighted = (before + ordered) / 2 * self.since_last("busy_ns")[order]
        return np.asarray(np.bincount(workers, weighted, self.num_workers) / max(duration_ns, 1))

    def peaks(self, values: Floats | Ints) -> Floats:
        """Return the largest sampled value of each worker, 0 for one without samples."""
        peaks = np.zeros(self.num_workers)
        np.maximum.at(peaks, self.samples["worker"], values)
        return peaks

    def totals(self, field: str) -> Ints:
        """Return the last value of a cumulative field of each worker, 0 for one without samples."""
        totals = np.zeros(self.num_workers, np.int64)
        np.maximum.at(totals, self.samples["worker"], self.samples[field])
        return totals
