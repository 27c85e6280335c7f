"""Laws that the records of any run must keep, whatever the policies did."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING

import attrs
import numpy as np

from simloop.serving import Status

if TYPE_CHECKING:
    import numpy.typing as npt

    from simloop.metrics.result import Result

    Bools = npt.NDArray[np.bool_]

__all__ = ["LittlesLaw", "check_conservation", "littles_law"]

_SHOWN = 3


def check_conservation(result: Result) -> list[str]:
    """Return what is wrong with the records of a run, one line per broken law; empty if nothing is.

    The laws: each request is recorded once; a finished one got exactly the tokens it asked for; the stays of a request
    hold as many tokens as it got, in the order of time, from its first token to its end; arrival, schedule, first token
    and end follow each other; step ends ascend; cumulative counters never fall, and no worker uses more KV blocks than
    it has; ranks that share experts iterate together, on as many tokens each.
    """
    found = (_request_violations, _token_violations, _worker_violations, _lockstep_violations)
    return [line for violations in found for line in violations(result)]


def _request_violations(result: Result) -> Iterator[str]:
    table, finished = result.table, result.finished
    ids, generated = table["id"], table["generated"]
    yield from _broken(ids[1:], ids[1:] == ids[:-1], "recorded more than once")
    wrong = finished & (generated != table["output_tokens"])
    yield from _broken(ids, wrong, "finished with more or fewer tokens than asked for")
    yield from _broken(ids, generated > table["output_tokens"], "got more tokens than asked for")
    yield from _broken(ids, (table["status"] == Status.REJECTED) & (generated > 0), "rejected, and yet got tokens")
    if result.complete:
        yield from _broken(ids, table["status"] == Status.UNFINISHED, "unfinished in a complete run")
    latest = table["arrival_ns"]
    for stage in ("scheduled_ns", "first_token_ns", "finish_ns"):
        happened = table[stage] >= 0
        yield from _broken(ids, happened & (table[stage] < latest), f"{stage} lies before an earlier stage")
        yield from _broken(ids, finished & (generated > 0) & ~happened, f"finished without {stage}")
        latest = np.maximum(latest, table[stage])
    yield from _broken(ids, latest > result.end_ns, "ended after the run")


def _token_violations(result: Result) -> Iterator[str]:
    table, tokens = result.table, result.tokens
    ids = table["id"]
    stray = ~np.isin(result.records.segments()["request_id"], ids)
    if stray.any():
        yield f"{int(stray.sum())} stays belong to requests that were not recorded"
    counts = tokens.counts(len(table))
    yield from _broken(ids, counts != table["generated"], "its stays hold another number of tokens than it got")
    yield from _broken(ids, tokens.disordered(len(table)), "its tokens are not in the order of time")
    first, last = tokens.bounds(len(table))
    some = counts > 0
    yield from _broken(ids, some & (first != table["first_token_ns"]), "first token and first_token_ns differ")
    yield from _broken(ids, some & result.finished & (last != table["finish_ns"]), "last token and finish_ns differ")


def _worker_violations(result: Result) -> Iterator[str]:
    for ends, name in zip_longest(result.step_ends, result.worker_names, fillvalue="with a further micro-batch"):
        if (np.diff(np.array(ends, np.int64)) < 0).any():
            yield f"worker {name}: its step ends do not ascend"
    series = result.series
    for field in ("generated", "prompt", "preemptions", "busy_ns", "iterations"):
        if (series.since_last(field) < 0).any():
            yield f"the cumulative counter {field} of a worker falls"
    if (series.kv_usage > 1).any():
        yield "a worker uses more KV blocks than it has"
    if (series.since_last("busy_ns") > series.since_last("time_ns")).any():
        yield "a worker was busy for longer than time passed"


def _lockstep_violations(result: Result) -> Iterator[str]:
    table = result.records.iterations()
    for first in np.unique(table["engine"]):
        mine = table[table["engine"] == first]
        ranks, name = len(np.unique(mine["worker"])), f"the ranks of {result.worker_names[first]}"
        if len(mine) % ranks:
            yield f"{name}: one of them has more iterations than another"
            continue
        rows = mine.reshape(-1, ranks)
        if any((rows[field] != rows[field][:, :1]).any() for field in ("start_ns", "end_ns", "wave")):
            yield f"{name} do not iterate together"
        if np.ptp(rows["tokens"] + rows["padding"], axis=1).any() or (rows["padding"].min(axis=1) != 0).any():
            yield f"{name} are not padded to the one that has the most tokens"
        if (rows["start_ns"][1:, 0] < rows["end_ns"][:-1, 0]).any():
            yield f"{name} start an iteration before the last one is over"


def _broken(ids: npt.NDArray[np.int64], broken: Bools, law: str) -> Iterator[str]:
    """Yield one line about the requests that break a law, if any do."""
    count = int(broken.sum())
    if count:
        shown = ", ".join(map(str, ids[broken][:_SHOWN])) + (", ..." if count > _SHOWN else "")
        yield f"{count} request{'s' if count > 1 else ''} ({shown}): {law}"


@attrs.frozen
class LittlesLaw:
    """Both sides of L = λ·W for the requests on the workers, measured independently of each other.

    Attributes:
        mean_in_system: L: the mean over time of running and waiting requests, from the samples of the workers.
        arrival_rate: λ: requests per second of the run.
        mean_time_s: W: the mean time from arrival to end, or to the end of the run, in seconds.
    """

    mean_in_system: float
    arrival_rate: float
    mean_time_s: float

    @property
    def expected_in_system(self) -> float:
        """λ·W."""
        return self.arrival_rate * self.mean_time_s

    @property
    def relative_error(self) -> float:
        """(L - λ·W) / (λ·W); 0 if both are 0. The samples are few in a short run: expect some per cent there."""
        expected = self.expected_in_system
        return (self.mean_in_system - expected) / expected if expected else self.mean_in_system


def littles_law(result: Result) -> LittlesLaw:
    """Measure both sides of Little's law: the queues that were sampled against the times that were recorded."""
    series, table, duration = result.series, result.table, result.duration_ns
    in_system = series.samples["running"].astype(np.int64) + series.samples["waiting"]
    end = np.where(table["finish_ns"] >= 0, table["finish_ns"], result.end_ns)
    times = end - table["arrival_ns"]
    return LittlesLaw(
        mean_in_system=float(series.mean_over_time(in_system, duration).sum()),
        arrival_rate=result.per_second(len(table)) or 0.0,
        mean_time_s=float(times.mean()) / 1e9 if len(times) else 0.0,
    )
