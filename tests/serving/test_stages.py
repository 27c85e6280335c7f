"""Pipeline stages: micro-batches under way at once, bubbles, and what cannot be done meanwhile."""

from __future__ import annotations

import re

import pytest

import simloop
from simloop.errors import InputError, PolicyError
from simloop.hardware import IterationShape
from simloop.metrics import check_conservation
from simloop.serving import Batch, Engine, Phase, Stages, SwapSpace, Worker
from simloop.serving.policy import policy_names
from simloop.serving.snapshot import Snapshot
from tests.serving.world import StagePrice, make_cluster, price_ns, serve, stage_send_ns, stage_work_ns, token_times

WORKER = {"device": "a100-sxm-80gb", "engine": {"tensor_parallel_size": 4, "pipeline_parallel_size": 2}}
MIXTURE = {"device": "h100-sxm-80gb", "engine": {"pipeline_parallel_size": 2, "data_parallel_size": 2}}
BIG = {
    "model": "llama-3.1-70b",
    "workers": [WORKER],
    "workload": {
        "requests": 200,
        "arrivals": {"process": "poisson", "rate": 4},
        "lengths": {"preset": "azure-conv-2023"},
    },
}


def test_one_request_takes_the_sum_of_the_stages() -> None:
    cluster = make_cluster(stages=3)
    serve(cluster, [(0, 30, 2)])
    whole = [price_ns([(30, 0)], 0, 0, 30, 1), price_ns([], 1, 31, 1, 1)]
    first, second = (
        sum(stage_work_ns(ns, stage) + stage_send_ns(tokens, stage) for stage in range(3))
        for ns, tokens in zip(whole, (30, 1), strict=True)
    )
    assert token_times(cluster) == {0: [first, first + second]}


def test_chunks_of_a_prompt_follow_each_other_through_the_stages() -> None:
    engine = Engine(max_num_seqs=1, max_num_batched_tokens=10)
    [alone] = serve(make_cluster(stages=2, engine=engine), [(0, 40, 1)])
    free, ends = [0, 0], [0, 0]
    for cached in (0, 10, 20, 30):
        moment = ends[-2]  # two are under way: this one starts when the last but one is booked
        for stage in range(2):
            work = stage_work_ns(price_ns([(10, cached)], 0, 0, 10, 1), stage) + stage_send_ns(10, stage)
            moment = free[stage] = max(moment, free[stage]) + work
        ends.append(moment)
    assert alone.finish_ns == ends[-1]


def test_stages_share_the_work_and_stand_idle_for_the_rest() -> None:
    result = simloop.simulate(BIG, check=True)
    assert not check_conservation(result)
    worker = result.summary()["workers"][0]
    assert len(worker["stage_utilisation"]) == 2
    assert all(0.3 < share < worker["utilisation"] for share in worker["stage_utilisation"])


def test_a_stage_is_never_busier_than_its_worker() -> None:
    cluster = make_cluster(stages=4)
    serve(cluster, [(i * 1000, 20 + i, 10 + i) for i in range(20)])
    worker = cluster.workers[0]
    assert worker.stages is not None
    assert all(0 < busy <= worker.busy_ns for busy in worker.stages.busy_ns)
    assert worker.stages.in_flight == 0


@pytest.mark.parametrize("policy", ["no_evict", "tokensim"])
def test_policies_leave_alone_what_is_under_way(policy: str) -> None:
    """Prompts whose last part is under way, and decodes of another micro-batch where memory is short."""
    engine = Engine(max_num_seqs=5, max_num_batched_tokens=9, block_size=4)
    requests = serve(
        make_cluster(schedule=policy, stages=2, blocks=14, engine=engine), [(i * 20_000, 20, 12) for i in range(6)]
    )
    assert [request.generated for request in requests] == [12] * 6


def test_copies_before_one_micro_batch_share_the_latency_of_their_link() -> None:
    cluster = make_cluster(stages=2, engine=Engine(max_num_batched_tokens=20))
    worker = cluster.workers[0]
    worker.swap, vllm = SwapSpace(100, 1000, 1.0, latency_ns=500), worker.schedule
    copies_ns: list[int] = []

    async def schedule(worker: Worker) -> Batch | None:
        decoding = [request for request in worker.running if request.phase is Phase.DECODING and not request.in_flight]
        if not copies_ns and worker.decoding:
            worker.swap_out(decoding[0])  # the first one's micro-batch is left to the other one
            copies_ns.append(worker.warm_up_ns)
            return None
        if len(copies_ns) in (1, 2) and decoding and decoding[0].swaps == 0:
            before_ns = worker.warm_up_ns
            worker.swap_out(decoding[0])
            copies_ns.append(worker.warm_up_ns - before_ns)
            worker.swap_in(decoding[0])
        elif worker.swapped and not worker.decoding:
            worker.swap_in(next(iter(worker.swapped)))
            copies_ns.append(worker.warm_up_ns)
        return await vllm(worker)

    worker.schedule = schedule
    serve(cluster, [(0, 16, 4), (0, 16, 4)])
    assert copies_ns == [1500, 1000, 1500]  # the first two are before one iteration, the third before the next


def test_a_micro_batch_has_its_share_of_what_all_have_in_common() -> None:
    shares: list[tuple[int, int]] = []

    class Price(StagePrice):
        def iteration_ns(self, shape: IterationShape) -> int:
            shares.append((shape.num_decodes, shape.shared_context))
            return super().iteration_ns(shape)

    cluster = make_cluster(engine=Engine(max_num_batched_tokens=32, max_num_seqs=8))
    Stages.of(cluster.workers[0], Price(), 2)
    serve(cluster, [(i, 40, 30) for i in range(4)], [(1, 2)] * 4)
    assert set(shares[-20:]) == {(1, 96 // 4), (3, 96 * 3 // 4)}  # four have 32 tokens in common: 96 but for one


def test_a_router_hears_of_all_micro_batches_and_of_who_is_swapped_out() -> None:
    cluster = make_cluster(stages=2, engine=Engine(max_num_batched_tokens=32))
    worker, seen = cluster.workers[0], list[tuple[int, int]]()
    vllm = worker.schedule

    async def schedule(worker: Worker) -> Batch | None:
        snapshot = Snapshot.of(worker, 2, requests=True)
        seen.append((snapshot.decoding, snapshot.decode_context))
        assert snapshot.decoding == sum(request.phase is Phase.DECODING for request in worker.running)
        if snapshot.decoding == 2 and not worker.swapped:
            worker.swap_out(next(request for request in worker.running if not request.in_flight))
            snapshot = Snapshot.of(worker, 2, requests=True)
            assert (snapshot.waiting, snapshot.running) == (1, 1)
            worker.swap_in(next(iter(worker.swapped)))
        return await vllm(worker)

    worker.schedule = schedule
    serve(cluster, [(0, 30, 9), (0, 30, 9)])
    assert max(seen)[0] == 2


STAGED = [name for name in policy_names("schedule") if name not in ("static", "tokensim", "tokensim_pools")]


@pytest.mark.parametrize("name", STAGED)
def test_bundled_schedules_work_with_stages(name: str) -> None:
    cluster = make_cluster(schedule=name, stages=2, blocks=60)
    serve(cluster, [(i * 1000, 20 + 7 * i % 300, 10 + i) for i in range(40)])
    assert cluster.finished == 40
    assert cluster.workers[0].kv.used == 0


def test_work_under_way_cannot_be_taken_away() -> None:
    cluster = make_cluster(stages=2, engine=Engine(max_num_seqs=4, max_num_batched_tokens=16))
    worker = cluster.workers[0]
    vllm = worker.schedule

    async def schedule(worker: Worker) -> Batch | None:
        flying = [request for request in worker.running if request.in_flight]
        if flying:
            worker.preempt(flying[0])
        return await vllm(worker)

    worker.schedule = schedule
    with pytest.raises(PolicyError, match=re.escape("was preempted on gpu-0 after it had been added to a batch")):
        serve(cluster, [(0, 40, 4)])


def test_a_policy_cannot_wait_while_stages_work() -> None:
    cluster = make_cluster(stages=2)
    worker = cluster.workers[0]
    vllm = worker.schedule

    async def schedule(worker: Worker) -> Batch | None:
        if worker.running:
            await worker.changed()
        return await vllm(worker)

    worker.schedule = schedule
    with pytest.raises(PolicyError, match="cannot wait while its stages work: return an empty batch instead"):
        serve(cluster, [(0, 40, 4)])


def test_a_client_that_hangs_up_waits_for_the_micro_batch() -> None:
    cluster = make_cluster(stages=2)
    times: dict[str, int] = {}

    async def main() -> None:
        async with cluster:
            generation = cluster.generate(prompt_tokens=30, output_tokens=50)
            stays = cluster.generate(prompt_tokens=20, output_tokens=60)
            async for token in generation:
                if token.index == 3:
                    cluster.abort(generation.request)
                    times["abort"] = token.time_ns
                    break
            await stays
            times["end"] = generation.request.finish_ns

    simloop.run(main())
    assert times["end"] >= times["abort"]
    assert cluster.workers[0].kv.used == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policies": {"route": "random", "schedule": "static"}}, "policy 'static' does not look at it"),
        (
            {"model": "qwen3-30b-a3b", "workers": [MIXTURE]},
            "data-parallel ranks that share experts iterate together",
        ),
    ],
)
def test_what_stages_do_not_go_with(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        simloop.simulate({**BIG, **change})
