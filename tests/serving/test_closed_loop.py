"""Clients that wait for their answer before they ask again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import simloop
from simloop.serving import Engine, Request, Status
from simloop.workload import Arrival
from tests.serving.world import Keep, make_cluster


def served(lengths: list[tuple[int, int]], concurrency: int, **world: Any) -> list[Request]:
    cluster = make_cluster(**world)
    workload = [Arrival(0, prompt, output) for prompt, output in lengths]
    simloop.run(cluster.serve(workload, concurrency=concurrency))
    assert isinstance(cluster.records, Keep)
    return sorted(cluster.records.requests_seen, key=lambda request: request.id)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 60)), min_size=1, max_size=40),
    st.integers(1, 12),
    st.integers(1, 3),
)
def test_request_k_arrives_when_so_many_have_ended_that_a_client_is_free(
    lengths: list[tuple[int, int]], concurrency: int, workers: int
) -> None:
    requests = served(lengths, concurrency, workers=workers)
    ends = sorted(request.finish_ns for request in requests)
    expected = [0] * concurrency + ends
    assert [request.arrival_ns for request in requests] == expected[: len(requests)]


def test_a_request_that_is_rejected_has_ended_too() -> None:
    requests = served([(100, 5), (10_000, 5), (10_000, 5), (100, 5)], 1, blocks=20)
    rejected, done = Status.REJECTED, Status.FINISHED
    assert [request.status for request in requests] == [done, rejected, rejected, done]
    assert requests[3].arrival_ns == requests[0].finish_ns


def test_the_next_request_misses_the_iteration_that_begins_when_the_last_one_ends() -> None:
    """One of two clients goes on decoding: the other's new request waits for the iteration in between."""
    requests = served([(10, 50), (10, 3), (10, 3)], 2)
    assert requests[2].arrival_ns == requests[1].finish_ns
    assert requests[2].scheduled_ns > requests[2].arrival_ns


def scenario(**arrivals: Any) -> dict[str, Any]:
    lengths = {"input": {"distribution": "uniform", "min": 10, "max": 200}, "output": 20}
    workload = {"requests": 50, "arrivals": arrivals, "lengths": lengths}
    return {"model": "llama-3.1-8b", "workers": [{"device": "a100-sxm-80gb"}], "workload": workload}


def test_a_scenario_keeps_so_many_requests_under_way() -> None:
    result = simloop.simulate(scenario(process="closed_loop", concurrency=7))
    rows = result.requests
    assert rows["arrival_s"].to_list()[:8].count(0.0) == 7
    assert sorted(rows["finish_s"].to_list())[:43] == pytest.approx(rows["arrival_s"].to_list()[7:])


def test_more_clients_than_requests_are_a_burst() -> None:
    closed = simloop.simulate(scenario(process="closed_loop", concurrency=64))
    burst = simloop.simulate(scenario(process="burst"))
    assert closed.requests.equals(burst.requests)


def test_a_batch_limit_below_the_clients_makes_the_others_wait() -> None:
    requests = served([(10, 10)] * 6, 4, engine=Engine(max_num_seqs=2))
    assert [request.arrival_ns for request in requests[:4]] == [0] * 4
    assert requests[2].scheduled_ns >= requests[0].finish_ns
