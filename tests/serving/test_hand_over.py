"""Requests that change workers, with or without their KV."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simloop
from simloop.network import switch
from simloop.serving import Batch, Cluster, Engine, Phase, Request, SchedulePolicy, Status, Worker, load_policy
from tests.serving.world import Keep, make_cluster, price_ns, serve, token_times

KV_BYTES = 131_072  # a token of Llama-3.1-8B


def disaggregated(
    *, bandwidth_gb_s: float | None = 10, workers: int = 2, prefill: int = 1, blocks: int = 1000
) -> Cluster:
    """Return a cluster whose first workers read prompts and whose others generate."""
    cluster = make_cluster(workers=workers, schedule="disaggregated", blocks=blocks, engine=Engine(max_num_seqs=8))
    for worker in cluster.workers:
        worker.group = "prefill" if worker.index < prefill else "decode"
    if bandwidth_gb_s is not None:
        cluster.network = switch([worker.name for worker in cluster.workers], bandwidth_gb_s=bandwidth_gb_s)
    cluster.route = load_policy("disaggregated", "route").make()
    cluster.__attrs_post_init__()
    return cluster


def test_the_kv_travels_and_the_request_goes_on() -> None:
    cluster = disaggregated()
    (request,) = serve(cluster, [(0, 100, 5)])
    prefill_ns = price_ns([(100, 0)], 0, 0, 100, 1)
    transfer_ns = 100 * KV_BYTES // 10  # at 10 bytes a nanosecond
    steps = [price_ns([], 1, 100 + k, 1, 1) for k in range(1, 5)]
    expected = [prefill_ns, *(prefill_ns + transfer_ns + sum(steps[:k]) for k in range(1, 5))]
    assert token_times(cluster)[0] == expected
    assert [worker.kv.used for worker in cluster.workers] == [0, 0]
    assert request.worker_index == 1


def test_transfers_share_the_port_and_compute_goes_on() -> None:
    """Eight prompts in one iteration leave together: the transfers share the sender's port and end together."""
    cluster = disaggregated()
    requests = serve(cluster, [(0, 100, 2)] * 8)
    first_ns, transfer_ns = requests[0].first_token_ns, 8 * 100 * KV_BYTES // 10
    assert all(request.finish_ns >= first_ns + transfer_ns for request in requests)


def test_without_a_transfer_everything_is_computed_again() -> None:
    async def careless(request: Request, cluster: Cluster) -> Worker:
        return cluster.workers[0 if request.worker is None else 1]

    cluster = disaggregated()
    cluster.route = careless
    cluster.__attrs_post_init__()
    serve(cluster, [(0, 100, 3)])
    assert cluster.workers[1].prefilled == 101


def test_a_request_that_is_routed_to_where_it_was_goes_on_there() -> None:
    async def stay(request: Request, cluster: Cluster) -> Worker:
        await simloop.sleep(0.001 if request.generated else 0)
        return cluster.workers[0]

    cluster = disaggregated()
    cluster.route = stay
    cluster.workers[0].schedule = once_back(load_policy("vllm", "schedule").make())
    cluster.__attrs_post_init__()
    (request,) = serve(cluster, [(0, 100, 6)])
    assert request.generated == 6
    assert cluster.workers[0].prefilled == 100
    assert cluster.workers[0].kv.used == 0


def once_back(inner: SchedulePolicy) -> SchedulePolicy:
    """Return a scheduling policy that hands every request back once, when it has two tokens."""
    done = set()

    async def schedule(worker: Worker) -> Batch | None:
        for request in [r for r in worker.running if r.phase is Phase.DECODING and r.generated == 2]:
            if request.id not in done:
                done.add(request.id)
                worker.hand_back(request)
        return await inner(worker)

    return schedule


def test_a_prompt_with_one_token_left_comes_back_and_is_read_to_its_end() -> None:
    cluster = make_cluster(engine=Engine(max_num_batched_tokens=16))
    vllm, back = cluster.workers[0].schedule, list[Request]()

    async def schedule(worker: Worker) -> Batch | None:
        if worker.prefilling and not back:
            back.extend(worker.running)
            worker.hand_back(back[0])
        return await vllm(worker)

    cluster.workers[0].schedule = schedule
    (request,) = serve(cluster, [(0, 17, 3)])
    assert back == [request]
    assert request.first_token_ns == token_times(cluster)[0][0] > 0
    assert cluster.workers[0].prefilled == 17


def test_vllm_06_waits_for_room_for_the_kv_that_was_sent() -> None:
    cluster = disaggregated(workers=3, prefill=2, blocks=12)
    for worker in cluster.workers:
        worker.schedule = load_policy("vllm", "schedule", params={"version": "0.6"}).make()
    cluster.hook("first_token", load_policy("hand_over", "hook").make(), group="prefill")
    requests = serve(cluster, [(0, 100, 20), (0, 100, 20)])
    assert [request.generated for request in requests] == [20, 20]


def test_a_request_with_tokens_that_fits_nowhere_has_failed() -> None:
    cluster = disaggregated()
    cluster.workers[1].max_model_len = 50
    (request,) = serve(cluster, [(0, 100, 5)])
    assert (request.status, request.generated) == (Status.FAILED, 1)
    assert request.reason == "longer than max_model_len (50 tokens)"


def test_aborting_a_request_that_has_just_come_back() -> None:
    async def back_and_gone(request: Request, cluster: Cluster) -> Worker:
        if request.generated:
            await simloop.sleep(0.0001)
            asyncio.get_running_loop().call_soon(cluster.abort, request)
        return cluster.workers[0]

    cluster = disaggregated()
    cluster.route = back_and_gone
    cluster.workers[0].schedule = once_back(load_policy("vllm", "schedule").make())
    cluster.__attrs_post_init__()
    requests = serve(cluster, [(0, 100, 600), (0, 2000, 5)])
    assert requests[0].status == Status.FAILED
    assert cluster.workers[0].kv.used == 0


def test_a_transfer_without_a_network_is_an_error_that_says_so() -> None:
    with pytest.raises(simloop.PolicyError, match="KV cannot be sent from gpu-0 to gpu-1: the scenario has no network"):
        serve(disaggregated(bandwidth_gb_s=None), [(0, 100, 5)])


def test_a_group_that_does_not_exist_is_named() -> None:
    with pytest.raises(simloop.PolicyError, match="no group of workers is called 'prefill'"):
        serve(disaggregated(prefill=0), [(0, 100, 5)])


def test_aborting_a_request_whose_kv_is_under_way() -> None:
    cluster = disaggregated(bandwidth_gb_s=0.001)

    async def main() -> list[int]:
        async with cluster:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await cluster.generate(prompt_tokens=100, output_tokens=5)
            await cluster.drain()
            return [worker.kv.used for worker in cluster.workers]

    assert simloop.run(main()) == [0, 0]
    records = cluster.records
    assert isinstance(records, Keep)
    assert records.requests_seen[0].status == Status.FAILED


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=15),
    st.integers(2, 5),
    st.data(),
)
def test_everything_is_served_and_nothing_is_lost(
    rows: list[tuple[int, int, int]], workers: int, data: st.DataObject
) -> None:
    prefill = data.draw(st.integers(1, workers - 1))
    cluster = disaggregated(
        workers=workers, prefill=prefill, blocks=12, bandwidth_gb_s=data.draw(st.sampled_from([1, 50]))
    )
    requests = serve(cluster, sorted((1000 * at, prompt, output) for at, prompt, output in rows))
    times = token_times(cluster)
    for request in requests:
        assert len(times[request.id]) == request.output_tokens
        assert times[request.id] == sorted(times[request.id])
        assert (request.worker_index >= prefill) == (request.output_tokens > 1)
    assert [worker.kv.used for worker in cluster.workers] == [0] * workers
