"""Data-parallel ranks with shared experts: one clock beat for all of them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.serving import Cluster, Engine, Lockstep, Request
from simloop.serving.policy import policy_names
from tests.serving.world import Keep, make_cluster, price_ns, serve, token_times

Rows = list[tuple[int, int, int]]


def test_an_iteration_takes_as_long_as_its_slowest_rank() -> None:
    cluster = make_cluster(workers=2, route="round_robin")
    cluster.lockstep = [engine := Lockstep(cluster.workers)]
    requests = serve(cluster, [(0, 30, 1), (0, 10, 1)])
    assert requests[0].finish_ns == requests[1].finish_ns == price_ns([(30, 0)], 0, 0, 30, 1)
    assert (engine.waves, engine.dummies, engine.padding) == (1, 0, 20)


def test_a_rank_without_work_runs_dummies() -> None:
    cluster = make_cluster(workers=2, route="round_robin")
    cluster.lockstep = [engine := Lockstep(cluster.workers)]
    serve(cluster, [(0, 30, 5)])
    assert (engine.waves, engine.dummies, engine.padding) == (1, 5, 30 + 4)
    assert [worker.iterations for worker in cluster.workers] == [5, 0]


def test_a_pause_begins_a_new_wave() -> None:
    cluster = make_cluster(workers=3, route="round_robin")
    cluster.lockstep = [engine := Lockstep(cluster.workers)]
    serve(cluster, [(0, 30, 5), (10**9, 30, 5), (2 * 10**9, 30, 5)])
    assert engine.waves == 3


@pytest.mark.parametrize("name", [name for name in policy_names("schedule") if name != "tokensim_pools"])
def test_no_bundled_schedule_holds_up_the_other_ranks_for_want_of_requests(name: str) -> None:
    cluster = make_cluster(workers=2, route="round_robin", schedule=name)
    cluster.lockstep = [Lockstep(cluster.workers)]
    serve(cluster, [(i * 3000, 20 + i, 1 + 9 * (i % 2)) for i in range(20)])  # one rank's are done long before
    assert cluster.finished == 20


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 400), st.integers(1, 90), st.integers(1, 30)), min_size=1, max_size=14),
    st.integers(1, 4),
)
def test_everything_is_served_and_ranks_keep_step(rows: Rows, ranks: int) -> None:
    cluster = make_cluster(
        workers=ranks, route="round_robin", engine=Engine(max_num_seqs=4, max_num_batched_tokens=64), blocks=30
    )
    cluster.lockstep = [Lockstep(cluster.workers, dispatch_bytes=7, combine_bytes=5)]
    requests = serve(cluster, sorted((1000 * at, prompt, output) for at, prompt, output in rows))
    assert [request.generated for request in requests] == [request.output_tokens for request in requests]
    ends = sorted({time for times in token_times(cluster).values() for time in times})
    gaps = {after - before for before, after in pairwise(ends)}
    assert not gaps or min(gaps) >= 7000  # nobody ends an iteration in between: none is shorter than 7 us
    assert all(worker.kv.used == 0 for worker in cluster.workers)
    check_iterations(cluster, requests)


def check_iterations(cluster: Cluster, requests: list[Request]) -> None:
    """What was written down of the ranks' iterations, and what must hold of it whatever was served."""
    (engine,), records = cluster.lockstep, cluster.records
    assert isinstance(records, Keep)
    table, ranks = records.iterations(), len(cluster.workers)
    iterations = table.reshape(-1, ranks)
    end_ns, wave = -1, 0
    for rows in iterations:
        assert list(rows["worker"]) == list(range(ranks))
        assert all(len(set(rows[field])) == 1 for field in ("start_ns", "end_ns", "wave", "engine"))  # together
        most = max(rows["tokens"])
        assert most > 0
        assert list(rows["padding"]) == list(most - rows["tokens"])
        assert set(rows["dispatched_bytes"]) == {most * engine.dispatch_bytes}
        assert set(rows["combined_bytes"]) == {most * engine.combine_bytes}
        assert rows["start_ns"][0] >= end_ns
        assert rows["wave"][0] - wave == (wave == 0 or rows["start_ns"][0] > end_ns)  # a pause begins a new one
        end_ns, wave = rows["end_ns"][0], rows["wave"][0]
    assert (engine.waves, engine.dummies) == (wave, int((table["tokens"] == 0).sum()))
    assert engine.padding == table["padding"].sum()
    worked = [int((table["tokens"][table["worker"] == rank] > 0).sum()) for rank in range(ranks)]
    assert worked == [worker.iterations for worker in cluster.workers]
    if not any(request.preemptions for request in requests):
        assert table["tokens"].sum() == sum(request.prompt_tokens + request.output_tokens - 1 for request in requests)


def test_the_first_iteration_waits_for_the_slowest_warm_up() -> None:
    cluster = make_cluster(workers=2, route="round_robin")
    cluster.lockstep = [Lockstep(cluster.workers)]
    cluster.workers[1].warm_up_ns = 5_000_000
    requests = serve(cluster, [(0, 30, 1), (0, 30, 1)])
    assert requests[0].finish_ns == 5_000_000 + price_ns([(30, 0)], 0, 0, 30, 1)
