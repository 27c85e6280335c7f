"""Whatever is combined with whatever else: everybody ends, nothing is lost, and a second run is the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal, get_args

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

import simloop
from simloop.clock import now_ns
from simloop.metrics import Result, check_conservation
from simloop.network import Fabric, switch
from simloop.serving import (
    Batch,
    Cluster,
    Engine,
    KVBlocks,
    Lockstep,
    Moment,
    Phase,
    Preload,
    Request,
    SchedulePolicy,
    Signals,
    Stages,
    Status,
    SwapSpace,
    Worker,
    load_policy,
)
from simloop.serving.kv_transfer import SendKV
from simloop.workload import Arrival
from tests.serving.world import Keep, StagePrice, make_cluster, token_times

Params = dict[str, Any]
Pools = Literal["disaggregated", "splitwise", "hand_over", "tokensim_pools"]
BLOCK = 4

SCHEDULES: list[tuple[str, Params]] = [
    ("static", {}),
    ("fastertransformer", {}),
    ("tokensim", {}),
    ("vllm", {}),
    ("vllm", {"version": "0.6"}),
    ("vllm", {"version": "0.6", "preemption_mode": "swap"}),
    ("sarathi", {"budget": 12}),
    ("orca", {}),
    ("fair", {}),
    ("edf", {}),
    ("sjf", {}),
    ("no_evict", {}),
    ("reserve", {}),
]
POLICIES = ("disaggregated", "splitwise", "tokensim_pools")  # the other pools are those of a hook
UNSTAGED = ("static", "fastertransformer")
MOMENTS = (
    "arrival",
    "routed",
    "admitted",
    "first_token",
    "token",
    "preempted",
    "resumed",
    "handed_back",
    "kv_received",
)


@attrs.frozen
class Client:
    """A request, and the client's patience."""

    at_us: int
    prompt: int
    output: int
    priority: int
    hashes: tuple[int, ...]
    patience_us: int | None


@attrs.frozen
class Listening:
    """A hook that takes time."""

    moment: str
    background: bool
    delay_us: int


@attrs.frozen
class Case:
    """What is combined."""

    schedule: tuple[str, Params]
    pools: Pools | None
    workers: int
    stages: int
    lockstep: bool
    blocks: tuple[int, int]
    engine: Engine
    clients: list[Client]
    concurrency: int | None
    hooks: list[Listening]
    hand_back_at: int | None
    migrate: bool
    request_us: int
    async_scheduling: bool
    bandwidth_gb_s: float
    send: tuple[SendKV, int | None]
    preload: int | None
    signals: Signals | None
    until_us: int | None


CLIENTS = st.builds(
    Client,
    at_us=st.integers(0, 600),
    prompt=st.integers(1, 60),
    output=st.integers(1, 24),
    priority=st.integers(0, 2),
    hashes=st.sampled_from([(), tuple(range(12)), (0, 1, *range(20, 30)), (0, 1)]),
    patience_us=st.none() | st.none() | st.integers(0, 900),
)
LISTENING = st.builds(
    Listening, moment=st.sampled_from(MOMENTS), background=st.booleans(), delay_us=st.sampled_from([0, 1, 40])
)

SIGNALS = st.builds(
    Signals, st.just(50_000), st.sampled_from([0, 70_000]), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a combination that makes sense."""
    pools: Pools | None = draw(st.sampled_from([None, None, None, None, *get_args(Pools)]))
    some = SCHEDULES if pools is None else SCHEDULES[3:]  # the first three do not take KV that was sent
    schedule = (pools, {}) if pools in POLICIES else draw(st.sampled_from(some))
    stages = 1 if schedule[0] in UNSTAGED else draw(st.sampled_from([1, 1, 2, 3]))
    priorities = schedule[0] == "vllm" and draw(st.booleans())
    engine = Engine(
        max_num_seqs=draw(st.integers(1, 6)),
        max_num_batched_tokens=draw(st.integers(8, 64)),
        block_size=BLOCK,
        scheduling_policy="priority" if priorities else "fcfs",
        scheduler_reserve_full_isl=draw(st.booleans()),
        enable_prefix_caching=draw(st.booleans()),
    )
    by: SendKV = draw(st.sampled_from(["whole", "layer", "block"]))
    return Case(
        schedule=schedule,
        pools=pools,
        workers=draw(st.integers(1, 3)) if pools is None else 3,
        stages=stages,
        lockstep=pools is None and stages == 1 and schedule[0] not in UNSTAGED and draw(st.booleans()),
        blocks=draw(st.tuples(st.integers(6, 40), st.integers(6, 40))),
        engine=engine,
        clients=draw(st.lists(CLIENTS, min_size=1, max_size=14)),
        concurrency=draw(st.none() | st.integers(1, 5)),
        hooks=draw(st.lists(LISTENING, max_size=3)),
        hand_back_at=draw(st.none() | st.integers(1, 6)) if pools is None else None,
        migrate=pools is None and draw(st.booleans()),
        request_us=draw(st.sampled_from([0, 0, 3, 30])),
        async_scheduling=draw(st.booleans()),
        bandwidth_gb_s=draw(st.sampled_from([0.02, 1.0, 64.0])),
        send=(by, draw(st.none() | st.integers(1, 32)) if by == "layer" else None),
        preload=draw(st.sampled_from([None, 0, 1, 2])),
        signals=draw(
            st.none()
            | st.builds(
                Signals, st.just(50_000), st.sampled_from([0, 70_000]), st.sampled_from([0.0, 0.5, 1.0]), st.booleans()
            )
        ),
        until_us=draw(st.none() | st.none() | st.integers(0, 2000)),
    )


class World:
    """One run of a case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.end_ns = 0
        self.submitted: dict[Request, None] = {}
        self.migrated: dict[Request, None] = {}
        self.cluster = self.build()

    def build(self) -> Cluster:
        case = self.case
        name, params = case.schedule
        cluster = make_cluster(schedule=name, params=params, engine=case.engine, workers=case.workers)
        for worker in cluster.workers:
            self.fit(worker)
        if case.pools is not None or case.workers > 1:
            names = [worker.name for worker in cluster.workers]
            cluster.network = switch(names, bandwidth_gb_s=case.bandwidth_gb_s, fabric=Fabric())
        if case.migrate:
            for worker in cluster.workers:
                worker.schedule = self.migrating(worker.schedule)
        cluster.kv_by, cluster.first_layers = case.send
        cluster.route = self.routing(cluster)
        if case.signals is not None:
            cluster.signals = attrs.evolve(case.signals)
        if case.lockstep:
            cluster.lockstep = [Lockstep(cluster.workers)]
        cluster.__attrs_post_init__()
        for listening in case.hooks:
            cluster.hook(listening.moment, self.listener(listening), background=listening.background)
        if case.pools == "hand_over":
            cluster.hook("first_token", load_policy("hand_over", "hook").make(), group="prefill")
        if case.hand_back_at is not None:
            cluster.hook("token", self.hand_back)
        return cluster

    def fit(self, worker: Worker) -> None:
        case = self.case
        blocks = case.blocks[0]
        if case.pools is not None:
            worker.group = ("prefill", "decode", "mixed" if case.pools == "splitwise" else "decode")[worker.index]
            if worker.group == "decode":
                blocks = case.blocks[1]
            worker.preload = None if case.preload is None else Preload(case.preload, worker.name)
        worker.kv = KVBlocks(blocks, BLOCK, prefix_caching=case.engine.enable_prefix_caching)
        worker.swap = SwapSpace(1000, 1000, 1.0, latency_ns=500)
        worker.request_ns = 1000 * case.request_us
        worker.async_scheduling = case.async_scheduling
        if case.stages > 1:
            Stages.of(worker, StagePrice(), case.stages)

    def routing(self, cluster: Cluster) -> Any:
        pools = self.case.pools
        inner = load_policy(pools if pools in POLICIES else "disaggregated", "route").make()

        async def inline(request: Request, cluster: Cluster) -> Worker:
            self.see(request)
            return cluster.least_loaded()

        async def suspending(request: Request, cluster: Cluster) -> Worker:
            self.see(request)
            worker: Worker = await inner(request, cluster)
            return worker

        return inline if pools is None else suspending

    def see(self, request: Request) -> None:
        if request in self.submitted:
            return
        self.submitted[request] = None
        patience_us = self.case.clients[request.id].patience_us
        if patience_us is not None:
            asyncio.get_running_loop().call_later(patience_us / 1e6, self.cluster.abort, request)

    def migrating(self, inner: SchedulePolicy) -> SchedulePolicy:
        """Return a schedule that gives every other request back once, wherever it stands."""

        async def schedule(worker: Worker) -> Batch | None:
            for request in list(worker.running):
                if request.id % 2 and not request.in_flight and request not in self.migrated:
                    self.migrated[request] = None
                    worker.hand_back(request)
            return await inner(worker)

        return schedule

    def listener(self, listening: Listening) -> Any:
        async def listen(moment: Moment) -> None:
            await simloop.sleep(listening.delay_us / 1e6)

        return listen

    async def hand_back(self, moment: Moment) -> None:
        request, worker = moment.request, moment.worker
        assert worker is not None
        at_hand = request in worker.running and not request.in_flight
        if at_hand and request.generated == self.case.hand_back_at:
            worker.hand_back(request)

    def workload(self) -> Iterator[Arrival]:
        at_us = 0
        for client in self.case.clients:
            at_us += client.at_us
            yield Arrival(
                1000 * at_us,
                client.prompt,
                client.output,
                priority=client.priority,
                hash_ids=client.hashes or None,
                hash_block_size=2 * BLOCK,
            )

    async def serve(self) -> None:
        try:
            await self.cluster.serve(self.workload(), concurrency=self.case.concurrency)
        finally:
            self.end_ns = now_ns()

    def run(self) -> Result:
        until = self.case.until_us
        simloop.run(self.serve(), until=None if until is None else until / 1e6)
        records = self.cluster.records
        assert isinstance(records, Keep)
        return Result(
            records,
            step_ends=self.cluster.step_ends,
            worker_names=[worker.name for worker in self.cluster.workers],
            scenario={},
            seed=0,
            end_ns=self.end_ns,
            wall_s=0.0,
            complete=self.cluster.finished == len(self.case.clients),
        )


def check_over(world: World) -> None:
    """Everybody has ended, and nothing is left anywhere."""
    cluster, records = world.cluster, world.cluster.records
    assert isinstance(records, Keep)
    requests = sorted(records.requests_seen, key=lambda request: request.id)
    assert [request.id for request in requests] == list(range(len(world.case.clients)))
    for request in requests:
        assert request.phase is Phase.DONE
        assert request.status != Status.UNFINISHED
        assert request.status != Status.FINISHED or request.generated == request.output_tokens
    assert cluster.hooks.pending == 0
    for worker in cluster.workers:
        assert worker.load == 0
        assert worker.loads == () or cluster.least_loaded().load == 0
        queues = (worker.waiting, worker.inbox, worker.arriving, worker.running, worker.prefilling, worker.paused)
        assert not any(queues)
        assert not any((worker.leaving, worker.swapped, worker.coming, worker.incoming, worker.departing))
        assert not worker._aborted
        assert not worker.news.listened
        assert worker.kv.used == 0
        assert worker.swap is None or worker.swap.used == 0
        assert worker.kv.cache is None or (worker.kv.cache.shared, worker.kv.cache.tables) == (0, {})
        assert [len(cohort) for cohort in worker.cohorts] == [0] * world.case.stages
        assert worker.preload is None or not (worker.preload._held or worker.preload._line)
        assert worker.busy_ns <= world.end_ns
        if worker.stages is not None:
            assert worker.stages.in_flight == 0
            assert max(worker.stages.busy_ns) <= worker.busy_ns


def outcome(world: World) -> list[Any]:
    """What two runs of one case have in common."""
    records = world.cluster.records
    assert isinstance(records, Keep)
    ends = [(r.id, r.status, r.reason, r.generated, r.preemptions, r.finish_ns) for r in records.requests_seen]
    return [ends, token_times(world.cluster), [(w.iterations, w.busy_ns) for w in world.cluster.workers]]


@given(cases())
@settings(max_examples=3000 if settings.get_current_profile_name() == "explore" else 60)
def test_whatever_is_combined_everybody_ends_and_nothing_is_lost(case: Case) -> None:
    world = World(case)
    result = world.run()
    assert check_conservation(result) == []
    if case.until_us is None:
        check_over(world)
    again = World(case)
    again.run()
    assert outcome(again) == outcome(world)
