"""Breakpoints at moments of a request's life: each of them exactly when it is documented, in order."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simloop
from simloop.network import switch
from simloop.serving import MOMENTS, Batch, Cluster, Engine, Moment, Phase, Request, Status, Worker, load_policy
from tests.serving.world import Keep, make_cluster, serve, token_times

AFTER = {
    "": {"arrival"},
    "arrival": {"routed", "rejected", "failed"},
    "handed_back": {"kv_sent", "first_token", "token", "routed", "rejected", "failed"},
    "kv_sent": {"kv_received", "first_token", "token"},
    "kv_received": {"routed", "first_token", "token", "failed"},
    "routed": {"admitted", "resumed", "failed"},
    "admitted": {"first_token", "token", "preempted", "handed_back", "failed"},
    "first_token": {"token"},
    "token": {"token", "preempted", "paused", "handed_back", "kv_sent", "kv_received", "routed", "finished", "failed"},
    "preempted": {"resumed", "failed"},
    "paused": {"resumed", "preempted", "failed"},
    "resumed": {"first_token", "token", "preempted", "paused", "handed_back", "failed"},
    "rejected": set(),
    "finished": set(),
    "failed": set(),
}
"""What may follow a moment in the life of one request; keys and values may be sent before the token that they make."""

Told = dict[int, list[Moment]]


def listen(cluster: Cluster) -> Told:
    """Hook every moment; return what each request went through, by its number."""
    told: Told = defaultdict(list)

    async def note(moment: Moment) -> None:
        assert moment.time_ns == simloop.now_ns() or moment.name == "failed"  # an idle worker tells when it wakes
        assert moment.cluster is cluster
        told[moment.request.id].append(moment)
        if moment.name == "token":
            assert moment.request.generated == sum(m.name == "token" for m in told[moment.request.id])

    for name in MOMENTS:
        cluster.hook(name, note)
    return told


def names(moments: list[Moment]) -> list[str]:
    return [moment.name for moment in moments]


def check(cluster: Cluster, told: Told) -> None:
    """Compare what was told with the records."""
    records, tokens = cluster.records, token_times(cluster)
    assert isinstance(records, Keep)
    for request in records.requests_seen:
        mine = told[request.id]
        for before, after in zip(["", *names(mine)], names(mine), strict=False):
            assert after in AFTER[before], names(mine)
        times = [moment.time_ns for moment in mine]
        assert times == sorted(times)
        by_name: dict[str, list[int]] = {name: [m.time_ns for m in mine if m.name == name] for name in MOMENTS}
        assert by_name["token"] == tokens.get(request.id, [])
        assert by_name["first_token"] == by_name["token"][:1]
        assert by_name["arrival"] == [request.arrival_ns]
        assert len(by_name["preempted"]) == request.preemptions
        last = {Status.FINISHED: "finished", Status.REJECTED: "rejected", Status.FAILED: "failed"}
        assert mine[-1].name == last[Status(request.status)]
        assert mine[-1].time_ns == request.finish_ns


rows = st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=14)


@settings(max_examples=50, deadline=None)
@given(rows, st.data())
def test_moments_come_in_order_and_agree_with_the_records(
    rows: list[tuple[int, int, int]], data: st.DataObject
) -> None:
    engine = Engine(
        max_num_seqs=data.draw(st.integers(1, 6)),
        max_num_batched_tokens=data.draw(st.sampled_from([8, 64])),
        scheduling_policy=data.draw(st.sampled_from(["fcfs", "priority"])),
    )
    workers, stages = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 3))
    clusters = [
        make_cluster(engine=engine, blocks=5, workers=workers, stages=stages, route="round_robin") for _ in range(2)
    ]
    arrivals = sorted((1000 * at + 500, prompt, output) for at, prompt, output in rows)
    hashes = [tuple(range(prompt // 16 * data.draw(st.integers(0, 1)))) for _, prompt, _ in arrivals]
    told = listen(clusters[0])
    for cluster in clusters:
        serve(cluster, arrivals, hashes, priorities=3)
    check(clusters[0], told)
    assert token_times(clusters[0]) == token_times(clusters[1])  # hooks that do not wait change nothing


@settings(max_examples=40, deadline=None)
@given(rows, st.sampled_from([0.01, 1, 50]), st.data())
def test_moments_of_requests_that_change_workers_or_are_aborted(
    rows: list[tuple[int, int, int]], bandwidth_gb_s: float, data: st.DataObject
) -> None:
    cluster = make_cluster(workers=3, schedule="disaggregated", blocks=5, engine=Engine(max_num_seqs=4))
    for worker in cluster.workers:
        worker.group = "decode" if worker.index else "prefill"
    cluster.network = switch([worker.name for worker in cluster.workers], bandwidth_gb_s=bandwidth_gb_s)
    cluster.route = load_policy("disaggregated", "route").make()
    cluster.__attrs_post_init__()
    told = listen(cluster)

    async def main() -> None:
        async with cluster:
            for at, prompt, output in sorted(rows):
                await simloop.sleep_until_ns(1000 * at + 500)
                request = cluster.submit(simloop.Arrival(0, prompt, output))
                if data.draw(st.booleans()):
                    delay_s = data.draw(st.integers(0, 2000)) / 1e6
                    asyncio.get_running_loop().call_later(delay_s, cluster.abort, request)
            await cluster.drain()

    simloop.run(main())
    check(cluster, told)


def test_after_a_preemption_a_request_is_resumed_and_not_admitted_again() -> None:
    cluster = make_cluster(blocks=8)
    told = listen(cluster)
    serve(cluster, [(0, 50, 30), (0, 50, 30)])
    turns = [name for name in names(told[1]) if name in ("admitted", "preempted", "resumed")]
    assert turns == ["admitted", "preempted", "resumed"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sets(st.integers(0, 2)), max_size=20))
def test_who_sits_out_is_paused_once_however_often_the_scheduler_thinks_about_it(outs: list[set[int]]) -> None:
    """Like vLLM's, this policy resumes everybody before each step, and then lets some of them sit out again."""
    cluster, steps, left = make_cluster(), [set[int]()], iter(outs)
    told, orca = listen(cluster), load_policy("orca", "schedule").make()

    async def choosy(worker: Worker) -> Batch | None:
        for request in list(worker.paused):
            worker.resume(request)
        out = next(left, set()) if worker.running else set()
        sitting = [request for request in worker.running if request.id in out]
        for request in sitting if len(sitting) < len(worker.running) else []:
            worker.pause(request)
        steps.append({request.id for request in worker.paused})
        batch: Batch = await orca(worker)
        return batch

    cluster.workers[0].schedule = choosy
    serve(cluster, [(0, 3, 30)] * 3)
    for request in range(3):
        began = sum(request in now and request not in was for was, now in pairwise(steps))
        ended = sum(request not in now and request in was for was, now in pairwise(steps))
        assert [names(told[request]).count(name) for name in ("paused", "resumed")] == [began, ended]


def test_a_request_that_comes_back_to_where_it_was_is_resumed() -> None:
    cluster = make_cluster()
    told, vllm, done = listen(cluster), cluster.workers[0].schedule, set()

    async def once_back(worker: Worker) -> Batch | None:
        for request in [r for r in worker.running if r.phase is Phase.DECODING and r not in done]:
            done.add(request)
            worker.hand_back(request)
        return await vllm(worker)

    cluster.workers[0].schedule = once_back
    serve(cluster, [(0, 20, 3)])
    back = ["handed_back", "routed", "resumed"]
    assert names(told[0]) == [
        "arrival",
        "routed",
        "admitted",
        "first_token",
        "token",
        *back,
        "token",
        "token",
        "finished",
    ]


def test_routed_names_the_worker_and_may_hold_the_request_up() -> None:
    cluster = make_cluster(workers=2, route="round_robin")
    seen: list[tuple[str, int]] = []

    async def wait(moment: Moment) -> None:
        assert moment.worker is not None
        seen.append((moment.worker.name, moment.worker.load))
        await simloop.sleep(1)

    cluster.hook("routed", wait)
    requests = serve(cluster, [(0, 20, 3), (0, 20, 3)])
    assert seen == [("gpu-0", 0), ("gpu-1", 0)]
    assert all(request.first_token_ns > 1_000_000_000 for request in requests)


def test_a_hook_in_the_background_delays_nobody_and_is_waited_for() -> None:
    ends: dict[bool, Any] = {}
    for background in (False, True):
        cluster = make_cluster()
        done: list[int] = []

        async def slow(moment: Moment, done: list[int] = done) -> None:
            await simloop.sleep(1)
            done.append(simloop.now_ns())

        cluster.hook("first_token", slow, background=background)
        (request,) = serve(cluster, [(0, 20, 3)])
        ends[background] = request.finish_ns - request.first_token_ns
        assert done == [request.first_token_ns + 1_000_000_000]
    assert ends[False] == ends[True] + 1_000_000_000


def test_leaving_a_cluster_ends_background_hooks() -> None:
    async def endless(moment: Moment) -> None:
        await simloop.sleep(1e9)

    async def main() -> float:
        cluster = make_cluster()
        cluster.hook("arrival", endless, background=True)
        async with cluster:
            await cluster.generate(prompt_tokens=5, output_tokens=5)
        return simloop.now()

    assert simloop.run(main()) < 1


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError("no")])
def test_errors_name_hook_moment_request_and_time(background: bool, error: BaseException) -> None:
    async def broken(moment: Moment) -> None:
        raise error

    cluster = make_cluster()
    cluster.hook("first_token", broken, background=background, name="mine.py:broken")
    expected = rf"hook mine\.py:broken at 'first_token' of request 0 raised {type(error).__name__}: no .*\(t = 0\.0"
    if background and isinstance(error, asyncio.CancelledError):
        expected = "hook mine"
    with pytest.raises(simloop.PolicyError, match=expected):
        serve(cluster, [(0, 20, 3)])


@pytest.mark.parametrize("background", [False, True])
def test_a_hook_that_never_returns_is_named_in_the_deadlock_report(background: bool) -> None:
    async def forever(moment: Moment) -> None:
        await simloop.Event("never").wait()

    cluster = make_cluster()
    cluster.hook("first_token", forever, background=background)
    with pytest.raises(simloop.DeadlockError) as caught:
        serve(cluster, [(0, 20, 3)])
    assert re.search(r"forever at 'first_token' of request 0 has not returned since t = 0\.00", str(caught.value))


def test_a_hook_of_a_transfer_that_is_given_up_is_not_waited_for() -> None:
    async def dawdle(moment: Moment) -> None:
        await simloop.sleep(100)

    async def back(moment: Moment) -> None:
        if moment.worker is not None:
            moment.worker.hand_back(moment.request)

    async def route(request: Request, cluster: Cluster) -> Worker:
        if request.worker is not None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1e-6):
                    await cluster.send_kv(request, cluster.workers[1])
        return cluster.workers[0]

    cluster = make_cluster(workers=2)
    cluster.route = route
    cluster.__attrs_post_init__()
    cluster.network = switch(["gpu-0", "gpu-1"], bandwidth_gb_s=1)
    cluster.hook("first_token", back)
    cluster.hook("kv_sent", dawdle)

    async def main() -> float:
        await cluster.serve([simloop.Arrival(0, 20, 3)])
        return simloop.now()

    assert simloop.run(main) < 1


def test_the_kv_of_a_request_that_stays_is_not_sent() -> None:
    async def send(moment: Moment) -> None:
        await moment.cluster.send_kv(moment.request, moment.cluster.workers[1])

    cluster = make_cluster(workers=2)
    cluster.network = switch(["gpu-0", "gpu-1"], bandwidth_gb_s=1)
    cluster.hook("first_token", send)
    with pytest.raises(simloop.PolicyError, match="cannot be sent, for it stays on gpu-0: hand it back first"):
        serve(cluster, [(0, 20, 3)])
    assert cluster.workers[1].load == 0
