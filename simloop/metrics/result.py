"""What a run leaves behind, and what can be asked of it."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from simloop.metrics.distribution import Distribution
from simloop.metrics.latencies import Latencies
from simloop.metrics.records import Records
from simloop.metrics.series import WorkerSeries
from simloop.metrics.slo import SLO
from simloop.metrics.tokens import TokenTimes
from simloop.serving import Status

if TYPE_CHECKING:
    import numpy.typing as npt
    import polars as pl

__all__ = ["Result"]


@attrs.frozen(eq=False, repr=False)
class Result:
    """The records of a run, complete or not, and every metric that follows from them.

    Everything is derived when first asked for, then kept; the records are not changed. The definition of each metric is
    in the documentation under *Metrics*.

    Attributes:
        records: What serving wrote down.
        step_ends: The end time of each decode step in ns: per worker, then per further micro-batch of those with
            pipeline stages.
        worker_names: Per worker, its name.
        scenario: The scenario as resolved: plain mappings, sequences and scalars.
        seed: The seed of the run.
        end_ns: The virtual time at which the run ended.
        wall_s: How long the run took in real time.
        complete: Whether every request of the workload reached its end.
        reason: Why the run is not complete.
        slo: The latency limits that goodput counts by, if any.
        iterations: Iterations of all workers together.
        stage_busy_ns: Per worker, how long each of its pipeline stages worked and sent; empty if it has one only.
    """

    records: Records
    step_ends: Sequence[array[int]]
    worker_names: Sequence[str]
    scenario: Mapping[str, Any]
    seed: int
    end_ns: int
    wall_s: float
    complete: bool = True
    reason: str | None = None
    slo: SLO | None = None
    iterations: int = 0
    stage_busy_ns: Sequence[Sequence[int]] = ()

    def __repr__(self) -> str:
        state = "complete" if self.complete else f"PARTIAL: {self.reason}"
        return f"<Result: {len(self.table):,} requests in {self.duration_s:,.3f} s, {state}>"

    def summary(self) -> dict[str, Any]:
        """Return the figures of the run under the key names of ``vllm bench serve``, and ours where it has none.

        Values are plain ``int``, ``float``, ``str``, ``bool``, lists and dicts; what is undefined is ``None``.
        """
        from simloop.metrics.summary import summarise

        return summarise(self)

    @cached_property
    def requests(self) -> pl.DataFrame:
        """One row per request, by id: its sizes, its end, its times and latencies in seconds."""
        from simloop.metrics.frames import requests_frame

        return requests_frame(self)

    @cached_property
    def timeseries(self) -> pl.DataFrame:
        """One row per worker and sampling interval: queue lengths, KV use, batch size, token rates, utilisation."""
        from simloop.metrics.frames import timeseries_frame

        return timeseries_frame(self)

    @cached_property
    def lockstep(self) -> pl.DataFrame:
        """One row per iteration and rank of data-parallel engines that share experts; none without such an engine."""
        from simloop.metrics.frames import lockstep_frame

        return lockstep_frame(self)

    def token_times(self, request_id: int) -> npt.NDArray[np.float64]:
        """Return when each token of a request came out, in seconds of virtual time.

        Raises:
            KeyError: The run has no request of that id.
        """
        row = int(self.table["id"].searchsorted(request_id))
        if row == len(self.table) or self.table["id"][row] != request_id:
            raise KeyError(f"no request has the id {request_id}")
        return self.tokens.of_row(row) / 1e9

    def gaps(self, request_id: int) -> npt.NDArray[np.float64]:
        """Return the times between the tokens of a request, in seconds.

        Raises:
            KeyError: The run has no request of that id.
        """
        return np.diff(self.token_times(request_id))

    @cached_property
    def inter_token_gaps(self) -> Distribution:
        """All gaps between tokens of finished requests, in ns: exact mean, deviation, percentiles and maximum."""
        return self.tokens.select(self.finished).gaps()

    @property
    def goodput(self) -> float | None:
        """Requests per second that finished and kept every limit of the SLO; ``None`` without an SLO."""
        return None if self.good is None else self.per_second(int(self.good.sum()))

    @cached_property
    def good(self) -> npt.NDArray[np.bool_] | None:
        """Which requests finished and kept every limit of the SLO; ``None`` without an SLO."""
        if self.slo is None:
            return None
        kept: npt.NDArray[np.bool_] = np.all(list(self.latencies.attained(self.slo).values()), axis=0)
        return kept

    @property
    def duration_ns(self) -> int:
        """From the first arrival to the last request's end; to the end of the simulation if the run is not complete."""
        if not len(self.table):
            return 0
        end = int(self.table["finish_ns"].max()) if self.complete else self.end_ns
        return max(end - int(self.table["arrival_ns"].min()), 0)

    @property
    def duration_s(self) -> float:
        """:attr:`duration_ns` in seconds."""
        return self.duration_ns / 1e9

    def per_second(self, amount: float) -> float | None:
        """Return an amount per second of the run; ``None`` if the run took no time."""
        return amount / self.duration_s if self.duration_ns else None

    @cached_property
    def table(self) -> npt.NDArray[np.void]:
        """The table of requests as recorded, by id: ns, counts and codes."""
        return self.records.requests()

    @cached_property
    def finished(self) -> npt.NDArray[np.bool_]:
        """Which requests finished."""
        return np.asarray(self.table["status"] == Status.FINISHED)

    @cached_property
    def tokens(self) -> TokenTimes:
        """When every token came out, those of unfinished requests included."""
        return TokenTimes.of(self.step_ends, self.records.segments(), self.table["id"])

    @cached_property
    def latencies(self) -> Latencies:
        """The latencies of each request, in ns."""
        return Latencies.of(self.table, self.tokens.longest_gaps(len(self.table)))

    @cached_property
    def series(self) -> WorkerSeries:
        """The samples of the workers, in the order of time."""
        return WorkerSeries.of(self.records.samples(), len(self.worker_names))
