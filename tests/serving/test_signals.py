"""What a router sees that hears of its workers from time to time: against a slow reference, and by example."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simloop
from simloop.clock import alone, now_ns, seed_for, sleep_ns
from simloop.errors import DeadlockError, InputError, PolicyError
from simloop.scenario import load_scenario
from simloop.serving import (
    Cluster,
    Engine,
    ObservedCluster,
    ObservedWorker,
    Request,
    Signals,
    load_policy,
    policy_names,
)
from simloop.workload import Arrival
from tests.serving.world import make_cluster

State = tuple[int, ...]  # waiting, running, KV blocks, iterations, output tokens
Truth = list[tuple[int, list[State]]]


def state(worker: Any) -> State:
    """What is compared, of a worker or of what is seen of one."""
    seen = getattr(worker, "seen", worker)
    return len(worker.waiting), len(worker.running), worker.kv.used, seen.iterations, seen.generated


@attrs.define
class Looking:
    """Sends requests where it is told, and writes down what it sees before."""

    targets: list[int]
    seen: list[tuple[int, list[State], list[int]]] = attrs.Factory(list)

    async def __call__(self, request: Request, cluster: ObservedCluster) -> ObservedWorker:
        states, loads = [state(worker) for worker in cluster.workers], [worker.load for worker in cluster.workers]
        assert cluster.least_loaded().index == loads.index(min(loads))
        self.seen.append((now_ns(), states, loads))
        return cluster.workers[self.targets[request.id % len(self.targets)]]


def signalled(signals: Signals, route: Any, workers: int = 3) -> Cluster:
    """Return a small cluster that is routed through signals."""
    cluster = make_cluster(workers=workers, engine=Engine(max_num_seqs=3, max_num_batched_tokens=64), blocks=40)
    return Cluster(cluster.workers, route, cluster.records, cluster.hooks, signals=signals)


async def watched(cluster: Cluster, arrivals: list[Arrival], every_ns: int) -> Truth:
    """Serve everything; return what the workers were, every so often."""
    truth: Truth = []

    async def watch() -> None:
        while True:
            truth.append((now_ns(), [state(worker) for worker in cluster.workers]))
            await sleep_ns(every_ns)

    watching = asyncio.create_task(watch())
    await cluster.serve(arrivals)
    watching.cancel()
    return truth


def newest(truth: Truth, lost: list[list[bool]], worker: int, arrived_by_ns: int) -> tuple[int, State]:
    """The slow reference: the last state of a worker that has arrived, and when it was that."""
    heard = [
        (time_ns, states[worker])
        for (time_ns, states), gone in zip(truth, lost, strict=True)
        if time_ns <= arrived_by_ns and not gone[worker]
    ]
    return heard[-1] if heard else (-1, (0, 0, 0, 0, 0))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 90), st.integers(1, 30)), min_size=1, max_size=25),
    st.integers(1, 120),
    st.integers(0, 200),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.booleans(),
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
    st.integers(0, 3),
)
def test_what_is_seen_is_the_newest_that_has_arrived(
    rows: list[tuple[int, int, int]],
    interval: int,
    delay: int,
    loss: float,
    own_requests: bool,
    targets: list[int],
    seed: int,
) -> None:
    """Workers do everything at whole microseconds, and are asked in between, so that no two things meet."""
    interval_ns, delay_ns = 1000 * interval + 7, 1000 * delay + 300
    looking = Looking(targets)
    cluster = signalled(Signals(interval_ns, delay_ns, loss, own_requests), looking)
    arrivals = [Arrival(1000 * at, prompt, output) for at, prompt, output in sorted(rows)]
    truth = simloop.run(watched(cluster, arrivals, interval_ns), seed=seed)
    draw = random.Random(seed_for(seed, "signals")).random
    lost = [[loss > 0 and draw() < loss for _ in cluster.workers] for _ in truth]
    sent: list[tuple[int, int]] = []  # when, and to whom
    for place, (time_ns, states, loads) in enumerate(looking.seen):
        for worker in range(3):
            asked_ns, told = newest(truth, lost, worker, time_ns - delay_ns)
            mine = sum(at > asked_ns and to == worker for at, to in sent) if own_requests else 0
            assert states[worker] == (told[0] + mine, *told[1:])
            assert loads[worker] == told[0] + told[1] + mine
        sent.append((time_ns, targets[place % len(targets)]))


def test_an_answer_counts_from_its_delay_on() -> None:
    looking = Looking([0])
    cluster = signalled(Signals(interval_ns=1_000_000, delay_ns=250_000), looking)
    times = (1_000, 2_000, 1_249_999, 1_250_000, 2_249_999, 2_250_000)
    simloop.run(cluster.serve([Arrival(time, 60, 90) for time in times]))
    assert [loads[0] for _, _, loads in looking.seen] == [0, 0, 0, 2, 2, 4]


def test_a_policy_that_waits_sees_news_when_it_comes() -> None:
    seen: list[int] = []

    async def route(request: Request, cluster: ObservedCluster) -> ObservedWorker:
        if request.id == 1:
            for _ in range(3):
                seen.append(cluster.workers[0].load)
                await sleep_ns(60_000)
        return cluster.workers[0]

    cluster = signalled(Signals(interval_ns=50_000), route)
    simloop.run(cluster.serve([Arrival(10_000, 60, 90), Arrival(20_000, 60, 90)]))
    assert seen == [0, 1, 1]


def test_requests_on_their_way_to_an_engine_are_the_routers_own() -> None:
    looking = Looking([0])
    cluster = signalled(Signals(interval_ns=10_000, own_requests=True), looking)
    for worker in cluster.workers:
        worker.request_ns = 35_000
    simloop.run(cluster.serve([Arrival(1_000 + 20_000 * place, 60, 90) for place in range(4)]))
    assert [loads[0] for _, _, loads in looking.seen] == [0, 1, 2, 3]


POOLED = ("disaggregated", "splitwise", "tokensim_figure_3", "tokensim_pools")  # they want groups of workers
ROUTES = [name for name in policy_names("route") if name not in POOLED]


@pytest.mark.parametrize("name", ROUTES)
def test_bundled_routers_work_as_they_are(name: str) -> None:
    def run(*, requests: bool) -> list[int]:
        signals = Signals(interval_ns=40_000, delay_ns=9_000, loss=0.1, own_requests=True, requests=requests)
        cluster = signalled(signals, load_policy(name, "route").make())
        hashes = [(1, 2, place % 3) for place in range(40)]
        workload = [
            Arrival(7_000 * place, 48, 20, session=f"{place % 5}", hash_ids=hashes[place], hash_block_size=16)
            for place in range(40)
        ]
        simloop.run(cluster.serve(workload))
        assert cluster.finished == 40
        return [worker.admissions for worker in cluster.workers]

    placed = run(requests=True)
    assert sum(placed) >= 40
    assert max(placed) < 40 or name == "prefix_aware"
    if name in ("shortest_job", "slo_aware"):
        with pytest.raises(PolicyError, match=r"are not among the metrics of a worker.*policies\.signals\.requests"):
            run(requests=False)
    else:
        assert sum(run(requests=False)) >= 40


@pytest.mark.parametrize("name", ["disaggregated", "splitwise", "tokensim_pools"])
def test_disaggregation_through_signals(name: str) -> None:
    groups = ("prefill", "decode", *(["mixed"] if name == "splitwise" else []))
    scenario = {
        "model": "llama-3.1-8b",
        "workers": [{"name": group, "device": "a100-sxm-80gb", "count": 2} for group in groups],
        "network": {"bandwidth_gb_s": 12.5},
        "policies": {"route": name, "schedule": name, "signals": {"interval_s": 0.1, "delay_s": 0.01}},
        "workload": {
            "requests": 40,
            "arrivals": {"process": "poisson", "rate": 20},
            "lengths": {"input": 200, "output": 10},
        },
    }
    assert simloop.simulate(scenario, check=True).summary()["completed"] == 40


def test_a_cached_prefix_is_found_once_it_was_heard_of() -> None:
    found: list[int] = []

    async def route(request: Request, cluster: ObservedCluster) -> ObservedWorker:
        found.append(cluster.workers[0].kv.found(request)[0])
        return cluster.workers[0]

    cluster = signalled(Signals(interval_ns=1_000_000), route)
    times = (1_000, 999_000, 1_001_000)
    simloop.run(cluster.serve([Arrival(time, 49, 2, hash_ids=(1, 2, 3), hash_block_size=16) for time in times]))
    assert found == [0, 0, 3]


def test_stale_signals_herd() -> None:
    waits = {}
    for interval_s in (None, 0.1, 5.0):
        signals = "null" if interval_s is None else f"{{interval_s: {interval_s}}}"
        result = simloop.simulate("stale-metrics", requests=600, overrides=[f"policies.signals={signals}"])
        waits[interval_s] = result.summary()["p99_ttft_ms"]
    assert waits[None] < waits[0.1] < waits[5.0] / 3


def test_losses_follow_the_seed() -> None:
    def run(seed: int, loss: float) -> list[float]:
        change = [f"policies.signals={{interval_s: 0.5, loss: {loss}}}"]
        workload = {
            "requests": 150,
            "arrivals": {"process": "constant", "rate": 40},
            "lengths": {"input": 300, "output": 50},
        }
        changes = [*change, f"workload={workload}"]
        return simloop.simulate("stale-metrics", seed=seed, overrides=changes).requests["ttft_s"].to_list()

    assert run(0, 0.5) == run(0, 0.5)
    assert run(0, 0.5) != run(1, 0.5)
    assert run(0, 0.0) == run(1, 0.0)


def test_a_run_that_stalls_is_still_reported() -> None:
    async def idle(worker: Any) -> None:
        return None

    cluster = signalled(Signals(interval_ns=1000), load_policy("least_loaded", "route").make())
    for worker in cluster.workers:
        worker.schedule = idle
    with pytest.raises(DeadlockError, match=r"(?s)asking workers for their metrics.*1 of 1 requests have not ended"):
        simloop.run(cluster.serve([Arrival(0, 10, 10)]))


def test_alone_is_who_nobody_else_will_wake() -> None:
    async def main() -> list[bool]:
        found = [alone()]
        other = asyncio.create_task(sleep_ns(10))
        found.append(alone())  # it is ready to start
        await sleep_ns(5)
        found.append(alone())  # it sleeps
        await other
        asyncio.get_running_loop().call_later(1, print).cancel()
        return [*found, alone()]

    assert simloop.run(main()) == [True, False, False, True]
    assert not asyncio.run(_alone())


async def _alone() -> bool:
    return alone()


def test_what_a_router_cannot_know() -> None:
    async def route(request: Request, cluster: Any) -> Any:
        return cluster.workers[0].decoding._finishing

    cluster = signalled(Signals(interval_ns=1000), route)
    with pytest.raises(PolicyError, match="has no attribute '_finishing'"):
        simloop.run(cluster.serve([Arrival(0, 10, 10)]))


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ({}, "policies.signals.interval_s: missing"),
        ({"interval_s": 0}, "policies.signals.interval_s: found 0, expected a number >= 1e-09"),
        ({"interval_s": 1, "loss": 1.5}, "policies.signals.loss: found 1.5, expected a number >= 0 and <= 1"),
        ({"interval_s": 1, "delay": 1}, "policies.signals.delay: found an unknown key; did you mean 'delay_s'?"),
    ],
)
def test_signals_that_cannot_be(signals: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario("stale-metrics", overrides=[f"policies.signals={signals}"])
    assert message in str(caught.value)
