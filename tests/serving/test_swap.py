"""Swapping KV to host memory: what it costs, where it goes, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

import simloop
from simloop.errors import InputError, PolicyError
from simloop.serving import Batch, Cluster, Engine, Phase, Request, Status, SwapSpace, Worker, load_policy
from simloop.workload import Arrival
from tests.serving.world import ConstantPrice, Keep, make_cluster, serve

STEP_NS, BLOCK_NS, LATENCY_NS = 1_000_000, 1_000, 50_000
SWAP_06 = {"version": "0.6", "preemption_mode": "swap"}


def one_worker(schedule: Any, *, blocks: int = 100, space: int = 1000) -> Cluster:
    """A worker whose iterations take a millisecond, and a block on the link a microsecond."""
    cluster = make_cluster(timing=ConstantPrice(lambda: STEP_NS), engine=Engine(block_size=4), blocks=blocks)
    cluster.workers[0].schedule = schedule
    cluster.workers[0].swap = SwapSpace(space, BLOCK_NS, 1.0, LATENCY_NS)
    return cluster


class AwayFor:
    """Everybody decodes but a victim, which is away for some iterations after its third token."""

    def __init__(self, iterations: int, victim: int = 1) -> None:
        self.iterations, self.victim, self.back_at = iterations, victim, -1
        self.seen: list[tuple[int, int, int]] = []

    async def __call__(self, worker: Worker) -> Batch:
        for request in list(worker.running):
            if request.id == self.victim and request.generated == 3 and not request.swaps:
                worker.swap_out(request)
                self.back_at = worker.iterations + self.iterations
        for request in list(worker.swapped):
            self.seen.append((request.blocks, worker.kv.used, worker.load))
            if worker.iterations >= self.back_at:
                worker.swap_in(request)
        batch = worker.batch()
        for request in list(worker.waiting):
            worker.admit(request)
            batch.add_prefill(request, request.to_prefill)
        batch.add_decodes()
        return batch


def test_a_swapped_request_loses_time_and_nothing_else() -> None:
    policy = AwayFor(5)
    cluster = one_worker(policy)
    stays, leaves = serve(cluster, [(0, 9, 20), (0, 9, 10)])
    copies_ns = 2 * (LATENCY_NS + 3 * BLOCK_NS)  # 9 + 2 tokens in blocks of 4, there and back
    assert stays.finish_ns == 20 * STEP_NS + copies_ns
    assert leaves.finish_ns == 15 * STEP_NS + copies_ns
    assert (leaves.swaps, leaves.preemptions, leaves.generated) == (1, 1, 10)
    assert policy.seen[0] == (3, 3, 2)  # its blocks are free, the other's three are not, and it is still here
    worker = cluster.workers[0]
    assert (worker.kv.used, worker.swap.used if worker.swap else -1) == (0, 0)
    assert worker.prefilled == 18  # nothing was computed again
    assert "swapped" in worker.describe() or not worker.swapped


def test_copies_before_one_iteration_share_its_latency() -> None:
    space = SwapSpace(100, 500, 0.5, 7)
    assert [space.copy_ns(2, 4, back=False) for _ in range(2)] == [2007, 2000]
    assert [space.copy_ns(2, 4, back=True), space.copy_ns(2, 5, back=True)] == [2007, 2007]
    assert SwapSpace(100, 500, 0.5, 7, free_return=True).copy_ns(2, 4, back=True) == 0


def test_a_swapped_request_can_be_aborted() -> None:
    cluster = one_worker(AwayFor(10**9))
    requests: list[Request] = []

    async def story() -> None:
        async with cluster:
            requests.extend(cluster.submit(Arrival(0, 9, output)) for output in (50, 10))
            await simloop.sleep(0.0205)
            assert requests[1].phase is Phase.SWAPPED
            assert "1 swapped out" in cluster.describe()
            cluster.abort(requests[1])
            await cluster.drain()

    simloop.run(story())
    assert [request.status for request in requests] == [Status.FINISHED, Status.FAILED]
    worker = cluster.workers[0]
    assert worker.swap is not None
    assert (worker.kv.used, worker.swap.used, len(worker.swapped)) == (0, 0, 0)


def test_a_run_that_ends_early_counts_who_is_swapped_out() -> None:
    cluster = one_worker(AwayFor(10**9))

    async def story() -> None:
        async with cluster:
            cluster.submit(Arrival(0, 9, 300))
            cluster.submit(Arrival(0, 9, 10))
            await simloop.sleep(0.02)

    simloop.run(story())
    assert isinstance(cluster.records, Keep)
    assert {request.status for request in cluster.records.requests_seen} == {Status.UNFINISHED}
    assert len(cluster.records.requests_seen) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": 2}, "of host memory are free: raise engine.swap_space"),
        ({"link": False}, "cannot swap: its device a100-sxm-80gb states no host_link_gb_s"),
    ],
)
def test_what_cannot_be_swapped_says_what_to_do(change: dict[str, Any], message: str) -> None:
    cluster = one_worker(AwayFor(5), space=change.get("space", 1000))
    if "link" in change:
        cluster.workers[0].swap = None
    with pytest.raises(PolicyError, match=message):
        serve(cluster, [(0, 9, 20), (0, 9, 10)])


def test_only_who_decodes_is_swapped_out_and_only_who_is_away_comes_back() -> None:
    for method in ("swap_out", "swap_in"):

        async def schedule(worker: Worker, method: str = method) -> Batch:
            getattr(worker, method)(worker.waiting[0])
            return worker.batch()

        with pytest.raises(PolicyError, match=r"where it (does not decode|is not swapped out)"):
            serve(one_worker(schedule), [(0, 9, 20)])


def test_vllm_06_swaps_from_a_scenario() -> None:
    changes = [
        "workers[0].engine.num_gpu_blocks_override=600",
        "workload.requests=300",
        "policies.schedule={name: vllm, params: {version: '0.6', preemption_mode: swap}}",
    ]
    summary = simloop.simulate("quickstart", overrides=changes, check=True).summary()
    assert summary["swaps"] == summary["preemptions"] > 0
    assert summary["completed"] == 300


def test_only_vllm_06_swaps() -> None:
    with pytest.raises(InputError, match=r"expected 'recompute', or 'swap' with 0\.6"):
        load_policy("vllm", "schedule", params={"preemption_mode": "swap"}).make()
    load_policy("vllm", "schedule", params=SWAP_06).make()


def test_swap_space_without_effect_is_refused() -> None:
    with pytest.raises(InputError, match="policy 'orca' does not look at it"):
        simloop.simulate("quickstart", overrides=["policies.schedule=orca", "workers[0].engine.swap_space=8"])
