"""What it costs to record a run and to report on it: ``python tests/benchmarks/bench_metrics.py [requests] [tokens]``.

A made-up run on one worker: requests of geometric lengths, 64 of them decoding at any time.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from simloop.metrics import SLO, Records, Result, check_conservation
from simloop.report import write_run

CONCURRENCY = 64
STEP_NS = 20_000_000

Stay = tuple[int, int, int, int, int]


@attrs.define
class Ended:
    """A finished request."""

    id: int
    arrival_ns: int
    scheduled_ns: int
    first_token_ns: int
    finish_ns: int
    prompt_tokens: int
    output_tokens: int
    generated: int
    worker_index: int = 0
    preemptions: int = 0
    swaps: int = 0
    status: int = 0
    reason: str | None = None


def main(num_requests: int, num_tokens: int) -> None:
    """Record a run, then time each part of the report."""
    records, step_ends, recording_s = recorded_run(num_requests, num_tokens)
    print(f"recording      {recording_s / num_requests * 1e6:8.2f} µs per request, {records.nbytes / 1e6:.1f} MB")
    before_mb = peak_mb()

    def result() -> Result:
        names, scenario = ["gpu-0"], {"model": "llama-3.1-8b"}
        slo = SLO(ttft_s=1, max_gap_s=0.1)
        return Result(records, [step_ends], names, scenario, seed=0, end_ns=step_ends[-1], wall_s=1.0, slo=slo)

    show("gap statistics", lambda: result().inter_token_gaps.percentile(99))
    show("longest gaps", lambda: result().latencies)
    show("summary", lambda: result().summary())
    print(f"peak memory    {before_mb:8.0f} MB before the report, {peak_mb():.0f} MB after")
    show("laws", lambda: check_conservation(result()))
    show("requests", lambda: result().requests)
    with tempfile.TemporaryDirectory() as folder:
        show("write_run", lambda: write_run(result(), Path(folder) / "out"))
    print(f"peak memory    {peak_mb():8.0f} MB with polars")


def recorded_run(num_requests: int, num_tokens: int) -> tuple[Records, array[int], float]:
    """Return records, the end of each step, and the seconds that recording took."""
    random = np.random.default_rng(0)
    lengths = random.geometric(num_requests / num_tokens, num_requests)
    ended, stays = made_up_run(lengths.tolist())
    last_step = max(stop for *_, stop in stays)
    step_ends = array(
        "q", (np.arange(1, last_step + 1) * STEP_NS + random.integers(-(10**6), 10**6, last_step)).tolist()
    )
    for request in ended:
        request.finish_ns = step_ends[request.finish_ns]
    records = Records()
    seconds = timed(lambda: record(records, ended, stays))
    print(f"{num_requests:,} requests, {lengths.sum() + num_requests:,} tokens, {last_step:,} steps")
    return records, step_ends, seconds


def made_up_run(lengths: list[int]) -> tuple[list[Ended], list[Stay]]:
    """Return requests, with the number of their last step for its time, and their stays."""
    free = [0] * CONCURRENCY
    ended: list[Ended] = []
    stays: list[Stay] = []
    for number, steps in enumerate(lengths):
        slot = number % CONCURRENCY
        start = free[slot]
        free[slot] = stop = start + steps
        first_ns = start * STEP_NS + STEP_NS // 2
        tokens = steps + 1
        ended.append(Ended(number, max(first_ns - 10**9, 0), first_ns - 5, first_ns, stop - 1, 200, tokens, tokens))
        stays.append((number, 0, first_ns, start, stop))
    return ended, stays


def record(records: Records, ended: list[Ended], stays: list[Stay]) -> None:
    """Do what serving does as requests end."""
    for request, stay in zip(ended, stays, strict=True):
        records.segment(*stay)
        records.finish(request)


def timed(action: Callable[[], Any]) -> float:
    """Return how long an action takes, in seconds."""
    start_s = time.perf_counter()
    action()
    return time.perf_counter() - start_s


def show(title: str, action: Callable[[], Any]) -> None:
    """Print the best of three times."""
    print(f"{title:14} {min(timed(action) for _ in range(3)) * 1e3:8.1f} ms")


def peak_mb() -> float:
    """Return the peak resident memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main(*(int(argument) for argument in [*sys.argv[1:], "50000", "10000000"][:2]))
