"""What users do at the wrong moment: abort while a batch is built, leave early, misuse batches and hooks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import simloop
from simloop.serving import Batch, Cluster, Engine, Moment, Phase, Request, Worker, load_policy
from tests.serving.world import make_cluster, serve

BURST = [(0, 20, 10)] * 6


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("policy", ["vllm", "orca", "static"])
def test_aborts_at_any_moment_lose_nothing(seed: int, policy: str) -> None:
    draw = random.Random(seed)
    cluster = make_cluster(schedule=policy, blocks=12, engine=Engine(max_num_seqs=4, max_num_batched_tokens=32))
    inner = cluster.workers[0].schedule

    async def suspends(worker: Worker) -> Batch | None:
        batch = await inner(worker)
        await simloop.sleep(draw.choice([0, 1e-6]))
        return batch

    async def dawdle(moment: Moment) -> None:
        await simloop.sleep(draw.choice([0, 1e-6, 1e-4]))

    cluster.workers[0].schedule = suspends
    for moment in ("admitted", "first_token", "preempted"):
        cluster.hook(moment, dawdle)

    async def main() -> int:
        async with cluster:
            for _ in range(30):
                request = cluster.submit(simloop.Arrival(0, draw.randint(1, 60), draw.randint(1, 60)))
                asyncio.get_running_loop().call_later(draw.random() / 1e3, cluster.abort, request)
                await simloop.sleep(draw.random() / 1e4)
            await cluster.drain()
            return cluster.workers[0].kv.used

    assert simloop.run(main()) == 0


@pytest.mark.parametrize(("prompt", "output"), [(0, 5), (5, 0), (-1, 5), (1.5, 5), ("a", 5), (True, 5)])
def test_lengths_that_are_none_are_refused(prompt: Any, output: Any) -> None:
    async def main() -> None:
        async with make_cluster() as cluster:
            await cluster.generate(prompt_tokens=prompt, output_tokens=output)

    with pytest.raises(simloop.InputError, match="expected a whole number above 0"):
        simloop.run(main())


def test_leaving_tells_the_clients_that_wait() -> None:
    async def main() -> str:
        async with make_cluster() as cluster:
            client = asyncio.ensure_future(wait(cluster))
            await simloop.sleep(0.001)
        return await client

    async def wait(cluster: Cluster) -> str:
        with pytest.raises(simloop.RejectedError) as caught:
            await cluster.generate(prompt_tokens=10, output_tokens=10_000)
        return str(caught.value)

    assert simloop.run(main()) == "request 0: the cluster stopped"


def test_leaving_does_not_wait_for_a_router() -> None:
    async def slow(request: Request, cluster: Cluster) -> Worker:
        await simloop.sleep(1000)
        return cluster.workers[0]

    async def main() -> float:
        cluster = make_cluster()
        cluster.route = slow
        cluster.__attrs_post_init__()
        async with cluster:
            cluster.submit(simloop.Arrival(0, 1, 1))
            await simloop.sleep(1)
        return simloop.now()

    assert simloop.run(main()) == 1


def test_a_cluster_that_does_not_run_says_so() -> None:
    async def main() -> None:
        cluster = make_cluster()
        with pytest.raises(simloop.SimulationError, match="not running"):
            cluster.submit(simloop.Arrival(0, 1, 1))
        async with cluster:
            pass
        with pytest.raises(simloop.SimulationError, match="not running"):
            cluster.generate(prompt_tokens=1, output_tokens=1)
        with pytest.raises(simloop.SimulationError, match="runs once"):
            await cluster.__aenter__()

    simloop.run(main())


def test_the_last_hooks_are_waited_for_and_may_go_on() -> None:
    """A closed loop: the hook of one turn's end sends the next turn."""
    cluster = make_cluster()
    turns = []

    async def next_turn(moment: Moment) -> None:
        await simloop.sleep(1)
        turns.append(simloop.now())
        if len(turns) < 4:
            cluster.submit(simloop.Arrival(0, 10, 3))

    cluster.hook("finished", next_turn)
    serve(cluster, [(0, 10, 3)])
    assert len(turns) == 4


def test_late_and_several_readers_get_every_token() -> None:
    async def main() -> list[list[int]]:
        async with make_cluster() as cluster:
            generation = cluster.generate(prompt_tokens=10, output_tokens=8)
            await simloop.sleep(0.00005)

            async def read() -> list[int]:
                return [token.index async for token in generation]

            return [*await asyncio.gather(read(), read()), await read()]

    assert simloop.run(main()) == [list(range(8))] * 3


def test_what_the_body_raises_comes_out_as_it_is() -> None:
    mine = ExceptionGroup("mine", [ValueError(1), TypeError(2)])

    async def main() -> None:
        async with make_cluster():
            raise mine

    with pytest.raises(ExceptionGroup) as caught:
        simloop.run(main())
    assert caught.value is mine


def test_a_route_that_fails_leaves_nothing_behind() -> None:
    async def lost(request: Request, cluster: Cluster) -> Worker:
        return make_cluster().workers[0]

    async def main() -> int:
        cluster = make_cluster()
        cluster.route = lost
        cluster.__attrs_post_init__()
        async with cluster:
            with pytest.raises(simloop.PolicyError, match="not a worker of this cluster"):
                cluster.submit(simloop.Arrival(0, 1, 1))
            await cluster.drain()
            return cluster.outstanding

    assert simloop.run(main()) == 0


def misuse(kind: str) -> Callable[[Worker], Awaitable[Any]]:
    """Return a scheduling policy that breaks one rule."""
    vllm = load_policy("vllm", "schedule").make()
    kept: list[Batch] = []

    async def schedule(worker: Worker) -> Any:
        if kind == "other type":
            return "x"
        if kind == "cancelled":
            raise asyncio.CancelledError
        batch = await vllm(worker)
        decoding = [request for request in worker.running if request.phase is Phase.DECODING]
        if kind == "prefill twice" and batch.prefills:
            batch.add_prefill(batch.prefills[0][0], 1)
        elif kind == "preempt after prefill" and batch.prefills:
            worker.preempt(batch.prefills[0][0])
        elif kind == "preempt after decodes" and decoding:
            worker.preempt(decoding[0])
        elif kind == "same batch" and kept:
            return kept[0]
        elif kind == "other batch" and decoding:
            return worker.batch()
        kept.append(batch)
        return batch

    return schedule


@pytest.mark.parametrize(
    "kind",
    [
        *("other type", "cancelled", "prefill twice", "preempt after prefill", "preempt after decodes"),
        *("same batch", "other batch"),
    ],
)
def test_a_policy_that_breaks_the_rules_is_told_by_name(kind: str) -> None:
    cluster = make_cluster()
    cluster.workers[0].schedule = misuse(kind)
    with pytest.raises((simloop.PolicyError, simloop.DeadlockError)) as caught:
        serve(cluster, BURST)
    assert "policy vllm" in str(caught.value)


def test_a_controller_may_not_preempt_in_the_middle_of_an_iteration() -> None:
    cluster = make_cluster()

    async def meddle(cluster: Cluster) -> None:
        await simloop.sleep(0.0001)
        cluster.workers[0].preempt(next(iter(cluster.workers[0].running)))

    cluster.control = meddle
    with pytest.raises(simloop.PolicyError, match="while an iteration runs"):
        serve(cluster, [(0, 2000, 10)])


def test_a_hook_that_is_not_async_is_refused_at_once() -> None:
    with pytest.raises(simloop.InputError, match="write 'async def'"):
        make_cluster().hook("arrival", print)  # type: ignore[arg-type]
