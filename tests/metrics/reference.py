"""Runs for the tests, and a slow and obvious account of them that writes out every token."""

from __future__ import annotations

from array import array
from typing import Any

import attrs
from hypothesis import strategies as st

from simloop.metrics import SLO, Records, Result, Status


@attrs.define(kw_only=True)
class Ended:
    """A request as serving hands it over, with its tokens written out beside it."""

    id: int
    arrival_ns: int
    scheduled_ns: int = -1
    first_token_ns: int = -1
    finish_ns: int = -1
    prompt_tokens: int = 10
    output_tokens: int = 1
    generated: int = 0
    worker_index: int = -1
    preemptions: int = 0
    swaps: int = 0
    status: int = Status.FINISHED
    reason: str | None = None
    token_ns: list[int] = attrs.Factory(list)

    @property
    def gaps_ns(self) -> list[int]:
        return [after - before for before, after in zip(self.token_ns, self.token_ns[1:], strict=False)]


@attrs.define
class Run:
    """A run that can be turned into a result: requests with their stays, and the steps of each worker."""

    requests: list[Ended]
    stays: list[tuple[int, int, int, int, int]]
    step_ends: list[list[int]]
    samples: list[tuple[int, ...]] = attrs.Factory(list)

    def result(self, **changes: Any) -> Result:
        records = Records()
        for stay in self.stays:
            records.segment(*stay)
        for request in self.requests:
            records.finish(request)
        for sample in self.samples:
            records.sample(*sample)
        ends = [request.finish_ns for request in self.requests]
        latest = [max([request.arrival_ns, *request.token_ns]) for request in self.requests]
        given: dict[str, Any] = {
            "step_ends": [array("q", ends) for ends in self.step_ends],
            "worker_names": [f"gpu-{index}" for index in range(len(self.step_ends))],
            "scenario": {"model": "llama-3.1-8b", "workload": {"arrivals": {"process": "poisson", "rate": 8.0}}},
            "seed": 0,
            "end_ns": max([*ends, *latest], default=0),
            "wall_s": 0.5,
            "slo": SLO(ttft_s=2.0, max_gap_s=0.5),
            "iterations": sum(map(len, self.step_ends)),
        }
        return Result(records, **(given | changes))

    @property
    def finished(self) -> list[Ended]:
        return [request for request in self.requests if request.status == Status.FINISHED]


@st.composite
def runs(draw: st.DrawFn, *, max_requests: int = 12) -> Run:
    """Any number of workers and steps; requests that stay, pause, move to another worker, end early or never start."""
    durations = st.integers(1, 900_000_000)
    step_ends = []
    for _ in range(draw(st.integers(1, 3))):
        time_ns, ends = 0, []
        for duration in draw(st.lists(durations, max_size=12)):
            time_ns += duration
            ends.append(time_ns)
        step_ends.append(ends)
    run = Run([], [], step_ends)
    for request_id in range(draw(st.integers(0, max_requests))):
        run.requests.append(draw(_request(run, request_id)))
    run.requests = draw(st.permutations(run.requests))
    return run


@st.composite
def _request(draw: st.DrawFn, run: Run, request_id: int) -> Ended:
    time_ns = arrival_ns = draw(st.integers(0, 3_000_000_000))
    tokens: list[int] = []
    worker = -1
    for _ in range(draw(st.integers(0, 3))):
        worker = draw(st.integers(0, len(run.step_ends) - 1))
        first_ns = time_ns + draw(st.integers(0, 500_000_000)) if not tokens or draw(st.booleans()) else -1
        ends = run.step_ends[worker]
        start = next((k for k, end in enumerate(ends) if end > max(first_ns, time_ns)), len(ends))
        stop = draw(st.integers(start, len(ends)))
        run.stays.append((request_id, worker, first_ns, start, stop))
        tokens += [first_ns] * (first_ns >= 0) + ends[start:stop]
        time_ns = tokens[-1]
    status = draw(st.sampled_from([Status.FINISHED, Status.UNFINISHED, Status.FAILED])) if tokens else Status.REJECTED
    done = status is not Status.UNFINISHED
    return Ended(
        id=request_id,
        arrival_ns=arrival_ns,
        scheduled_ns=draw(st.integers(arrival_ns, tokens[0])) if tokens else -1,
        first_token_ns=tokens[0] if tokens else -1,
        finish_ns=(tokens[-1] if tokens else arrival_ns) if done else -1,
        prompt_tokens=draw(st.integers(1, 5000)),
        output_tokens=max(len(tokens), 1) + (status is not Status.FINISHED),
        generated=len(tokens),
        worker_index=worker,
        status=status,
        reason="too long" if status is Status.REJECTED else "aborted" if status is Status.FAILED else None,
        token_ns=tokens,
    )


def small_run() -> Run:
    """Two workers: request 0 is preempted and goes on elsewhere, 1 has one token, 2 is rejected."""
    s = 1_000_000_000
    steps = [[s, 2 * s, 3 * s, 4 * s], [5 * s, 5 * s + 250_000_000]]
    requests = [
        Ended(id=1, arrival_ns=s, scheduled_ns=s, first_token_ns=2 * s, finish_ns=2 * s, generated=1, token_ns=[2 * s]),
        Ended(id=2, arrival_ns=2 * s, finish_ns=2 * s, output_tokens=9, status=Status.REJECTED, reason="too long"),
        Ended(
            id=0,
            arrival_ns=0,
            scheduled_ns=s // 4,
            first_token_ns=s // 2,
            finish_ns=5 * s + 250_000_000,
            output_tokens=6,
            generated=6,
            worker_index=1,
            preemptions=1,
            swaps=1,
            token_ns=[s // 2, s, 2 * s, 4_500_000_000, *steps[1]],
        ),
    ]
    requests[0].worker_index = 0
    stays = [(1, 0, 2 * s, 2, 2), (0, 0, s // 2, 0, 2), (0, 1, 4_500_000_000, 0, 2)]
    samples: list[tuple[int, ...]] = [
        (0, s, 1, 0, 5, 10, 2, 10, 0, s // 2, 1),
        (1, 5 * s + 250_000_000, 0, 0, 0, 10, 3, 13, 0, s, 3),
        (0, 2 * s, 0, 0, 1, 10, 4, 20, 1, s, 3),
    ]
    return Run(requests, stays, steps, samples)
