"""The bundled policies: what each does that another would not, and that all of them serve everything."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simloop
from simloop.errors import InputError
from simloop.hardware import IterationShape
from simloop.network import switch
from simloop.serving import Cluster, Engine, Moment, Request, Status, load_policy, policy_info, policy_names
from simloop.workload import Arrival
from tests.serving.world import ArbitraryPrice, Keep, make_cluster, price_ns, token_times

MS = 1_000_000
SCHEDULES = [name for name in policy_names("schedule") if name not in ("disaggregated", "splitwise", "tokensim_pools")]


@attrs.define
class Watching(ArbitraryPrice):
    """The arbitrary price; remembers the new tokens and the decodes of every iteration."""

    seen: list[tuple[int, int]] = attrs.Factory(list)

    def iteration_ns(self, shape: IterationShape) -> int:
        self.seen.append((shape.num_tokens, shape.num_decodes))
        return price_ns(
            list(shape.chunks), shape.num_decodes, shape.decode_context, shape.num_tokens, shape.num_sequences
        )


def serve(cluster: Cluster, arrivals: Sequence[Arrival]) -> list[Request]:
    """Serve everything to the end; return the requests in order of arrival."""
    simloop.run(cluster.serve(arrivals))
    assert isinstance(cluster.records, Keep)
    return sorted(cluster.records.requests_seen, key=lambda request: request.id)


def fleet(route: str, *, workers: int = 2, **params: Any) -> Cluster:
    """Return a cluster with a routing policy and its parameters."""
    cluster = make_cluster(workers=workers)
    cluster.route = load_policy(route, "route", params=params).make()
    cluster.__attrs_post_init__()
    return cluster


def places(cluster: Cluster, arrivals: Sequence[Arrival]) -> list[int]:
    """Serve everything; return which worker each request went to."""
    return [request.worker_index for request in serve(cluster, arrivals)]


def by_first_token(requests: Sequence[Request]) -> list[int]:
    return [request.id for request in sorted(requests, key=lambda request: request.first_token_ns)]


# -- routing -----------------------------------------------------------------------------------------------------


def chats() -> list[Arrival]:
    """Three sessions that take turns at odd times, and requests of no session."""
    names = ["a", "b", "c", "b", "a", None, "c", "a", "b", None, "a", "c"]
    return [Arrival(index * 200_000, 64, 4, session=name) for index, name in enumerate(names)]


def homes(cluster: Cluster) -> dict[Any, set[int]]:
    found: dict[Any, set[int]] = {}
    for request in serve(cluster, chats()):
        found.setdefault(request.session, set()).add(request.worker_index)
    return {session: where for session, where in found.items() if session is not None}


def test_session_affinity_keeps_each_session_where_it_began() -> None:
    sticky = homes(fleet("session_affinity", workers=3))
    assert all(len(where) == 1 for where in sticky.values())
    assert any(len(where) > 1 for where in homes(fleet("round_robin", workers=3)).values())


def test_session_affinity_gives_new_sessions_to_the_least_loaded() -> None:
    arrivals = [Arrival(index, 64, 50, session=str(index)) for index in range(6)]
    assert places(fleet("session_affinity", workers=3), arrivals) == [0, 1, 2, 0, 1, 2]


def prompts_with_prefixes() -> list[Arrival]:
    """Five long prefixes in turn, each with endings of its own, one at a time."""
    return [
        Arrival(index * 10 * MS, 10 * 16 + 5, 2, hash_ids=(*range(100 * (index % 5), 100 * (index % 5) + 10),))
        for index in range(30)
    ]


def hits(cluster: Cluster) -> int:
    serve(cluster, prompts_with_prefixes())
    return sum(worker.kv.cache.hits for worker in cluster.workers if worker.kv.cache)


def test_prefix_aware_finds_more_in_the_caches() -> None:
    assert hits(fleet("prefix_aware")) == 25 * 160  # each prefix is read once in all, not once for each worker
    assert hits(fleet("round_robin")) == 20 * 160


def test_prefix_aware_spreads_one_popular_prefix_when_the_load_is_uneven() -> None:
    alike = [Arrival(0 if index == 0 else MS + index, 165, 200, hash_ids=(*range(10),)) for index in range(20)]
    assert set(places(fleet("prefix_aware", balance_abs=32), alike)) == {0}
    spread = places(fleet("prefix_aware", balance_abs=4), alike)
    assert 3 <= spread.count(1) <= 10


def test_prefix_aware_ignores_short_matches() -> None:
    first, other = Arrival(0, 160, 400, hash_ids=(*range(10),)), Arrival(MS, 160, 2, hash_ids=(0, 1, *range(50, 58)))
    assert places(fleet("prefix_aware", least_share=0.5), [first, other]) == [0, 1]
    assert places(fleet("prefix_aware", least_share=0.1), [first, other]) == [0, 0]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"queue": 0, "kv": 1, "prefix": 0}, 1),  # the other one's memory is empty
        ({"queue": 0, "kv": 1, "prefix": 3}, 0),  # this one knows the prompt
        ({"queue": 0, "kv": 1, "prefix": 0, "session": 1}, 0),  # the session was here
        ({"queue": 1, "kv": 0, "prefix": 0}, 1),  # nobody waits anywhere: the one with fewer requests
    ],
)
def test_weighted_score_follows_its_weights(weights: dict[str, Any], expected: int) -> None:
    known = Arrival(0, 165, 400, session="a", hash_ids=(*range(10),))
    assert places(fleet("weighted_score", **weights), [known, known._replace(arrival_ns=MS)]) == [0, expected]


def test_weighted_score_looks_at_queues() -> None:
    """One seat each: two long requests run, a third waits at the first worker, so the fourth goes to the second."""
    cluster = make_cluster(workers=2, engine=Engine(max_num_seqs=1))
    cluster.route = load_policy("weighted_score", "route", params={"kv": 0, "prefix": 0}).make()
    cluster.__attrs_post_init__()
    assert places(cluster, [Arrival(index * MS, 10, 900) for index in range(4)]) == [0, 1, 0, 1]


def test_shortest_job_counts_tokens_not_requests() -> None:
    long, short = Arrival(0, 500, 500), Arrival(1, 20, 20)
    arrivals = [long, *(short._replace(arrival_ns=index) for index in range(1, 6))]
    assert places(fleet("shortest_job"), arrivals) == [0, 1, 1, 1, 1, 1]
    assert places(fleet("least_loaded"), arrivals) == [0, 1, 0, 1, 0, 1]


def test_shortest_job_can_look_at_prompts_alone() -> None:
    arrivals = [Arrival(0, 10, 900), Arrival(1, 20, 2), Arrival(2, 5, 2)]
    assert places(fleet("shortest_job"), arrivals) == [0, 1, 1]
    assert places(fleet("shortest_job", output_weight=0), arrivals) == [0, 1, 0]


def test_slo_aware_packs_while_the_limit_holds_and_then_takes_the_least() -> None:
    """A prompt of 100 tokens takes 0.3 ms: within 1 ms three of them stand behind each other, no more."""
    arrivals = [Arrival(index, 100, 2) for index in range(7)]
    one_ns = price_ns([(100, 0)], 0, 0, 100, 1)
    assert 3 * one_ns < MS < 4 * one_ns
    small = make_cluster(workers=2, engine=Engine(max_num_batched_tokens=100))
    small.route = load_policy("slo_aware", "route", params={"ttft_s": 0.001}).make()
    small.__attrs_post_init__()
    assert places(small, arrivals) == [0, 0, 0, 1, 1, 1, 0]


def test_slo_aware_counts_on_no_seat_that_is_taken() -> None:
    cluster = make_cluster(workers=2, engine=Engine(max_num_seqs=2))
    cluster.route = load_policy("slo_aware", "route", params={"ttft_s": 100}).make()
    cluster.__attrs_post_init__()
    assert places(cluster, [Arrival(index, 100, 200) for index in range(4)]) == [0, 0, 1, 1]


# -- scheduling --------------------------------------------------------------------------------------------------


def test_sarathi_never_exceeds_its_budget_while_it_reads_prompts() -> None:
    timing = Watching()
    arrivals = [Arrival(index * MS // 2, 300 + 50 * index, 30) for index in range(12)]
    serve(make_cluster(schedule="sarathi", params={"budget": 64}, timing=timing), arrivals)
    assert max(tokens for tokens, _ in timing.seen) == 64
    mixed = [tokens for tokens, decodes in timing.seen if tokens > decodes > 0]
    assert mixed.count(64) > len(mixed) / 2


def test_sarathi_stalls_nobody() -> None:
    """Somebody who decodes gets a token in every iteration, though a long prompt is read; orca stalls them."""

    def longest_gap_ns(schedule: str, **params: int) -> int:
        cluster = make_cluster(schedule=schedule, params=params)
        serve(cluster, [Arrival(0, 20, 60), Arrival(MS // 10, 2000, 2)])
        times = token_times(cluster)[0]
        return max(after - before for before, after in pairwise(times))

    assert longest_gap_ns("sarathi", budget=64) < longest_gap_ns("orca") / 10


def test_sarathi_gives_everybody_a_token_whatever_the_budget() -> None:
    timing = Watching()
    requests = serve(make_cluster(schedule="sarathi", params={"budget": 2}, timing=timing), [Arrival(0, 1, 40)] * 5)
    assert max(decodes for _, decodes in timing.seen) >= 2
    assert all(request.status is Status.FINISHED for request in requests)


def test_static_goes_on_with_who_was_handed_back_and_came_back() -> None:
    """Its worker has nobody meanwhile, and waits for a batch; another's pads are no measure for who comes back."""

    async def linger(moment: Moment) -> None:
        await simloop.sleep(1e-3)

    async def hand_back(moment: Moment) -> None:
        if moment.request.generated == 3 and moment.worker is not None:
            moment.worker.hand_back(moment.request)

    cluster = make_cluster(schedule="static", engine=Engine(max_num_seqs=6))
    cluster.hook("handed_back", linger)
    cluster.hook("token", hand_back)
    requests = serve(cluster, [Arrival(0, 23, 21)] * 2)
    assert [request.generated for request in requests] == [21, 21]


def test_fastertransformer_admits_nobody_before_the_batch_is_done() -> None:
    arrivals = [Arrival(0, 10, 5), Arrival(0, 50, 40), Arrival(1, 10, 5), Arrival(2, 10, 5)]
    timing = Watching()
    cluster = make_cluster(schedule="fastertransformer", engine=Engine(max_num_seqs=2), timing=timing)
    first, second, third, fourth = serve(cluster, arrivals)
    assert first.finish_ns < second.finish_ns == third.scheduled_ns == fourth.scheduled_ns
    assert timing.seen[0] == (60, 0)  # not 100: no padding
    assert (1, 1) in timing.seen  # and none while the longest goes on alone


@pytest.mark.parametrize(
    ("by", "expected"), [("prompt", [0, 2, 3, 1]), ("output", [0, 1, 3, 2]), ("total", [0, 3, 1, 2])]
)
def test_sjf_admits_the_shortest_first_and_interrupts_nobody(by: str, expected: list[int]) -> None:
    arrivals = [Arrival(0, 900, 50), Arrival(1, 60, 5), Arrival(2, 10, 90), Arrival(3, 30, 10)]
    cluster = make_cluster(schedule="sjf", params={"by": by}, engine=Engine(max_num_seqs=1))
    requests = serve(cluster, arrivals)
    assert by_first_token(requests) == expected
    assert all(request.preemptions == 0 for request in requests)


def test_edf_admits_by_deadline() -> None:
    """Priority 1 may wait for 10 ms: who of it came 10 ms before one of priority 0 is as urgent."""
    arrivals = [Arrival(0, 900, 600), Arrival(1, 50, 2, priority=1), Arrival(9 * MS, 50, 2), Arrival(12 * MS, 50, 2)]
    cluster = make_cluster(schedule="edf", params={"ttft_s": [0, 0.010]}, engine=Engine(max_num_seqs=1))
    assert by_first_token(serve(cluster, arrivals)) == [0, 2, 1, 3]
    fcfs = make_cluster(schedule="edf", params={"ttft_s": [0.010]}, engine=Engine(max_num_seqs=1))
    assert by_first_token(serve(fcfs, arrivals)) == [0, 1, 2, 3]


def shares(schedule: str) -> dict[Any, int]:
    """Return the tokens that two tenants have been served when half of everything is done; the first floods."""
    flood = [Arrival(0, 40, 20, session="flood")] * 60
    other = [Arrival(1, 20, 10, session="other")] * 60
    requests = serve(make_cluster(schedule=schedule, engine=Engine(max_num_seqs=4)), flood + other)
    done: dict[Any, int] = {"flood": 0, "other": 0}
    for request in sorted(requests, key=lambda request: request.finish_ns):
        done[request.session] += request.prompt_tokens + 2 * request.output_tokens
        if sum(done.values()) > 3000:
            break
    return done


def test_fair_serves_both_tenants_alike() -> None:
    fair, fcfs = shares("fair"), shares("vllm")
    assert 0.8 < fair["other"] / fair["flood"] < 1.25
    assert fcfs["other"] == 0


def test_fair_lets_nobody_save_up() -> None:
    """Who was idle while another was served does not get all of the next seats."""
    early = [Arrival(0, 40, 20, session="early")] * 40
    late = [Arrival(5 * MS, 40, 20, session="late")] * 40
    requests = serve(make_cluster(schedule="fair", engine=Engine(max_num_seqs=2)), early + late)
    after = sorted((r for r in requests if r.scheduled_ns > 5 * MS), key=lambda request: request.scheduled_ns)
    assert 6 <= sum(request.session == "early" for request in after[:16]) <= 10


def preemptions(schedule: str, **params: float) -> int:
    """Return how often somebody lost his blocks in a memory that twelve prompts fit in and their outputs do not."""
    cluster = make_cluster(schedule=schedule, params=params, blocks=40)
    requests = serve(cluster, [Arrival(index, 40, 60) for index in range(12)])
    assert all(request.generated == 60 for request in requests)
    return cluster.workers[0].preemptions


def test_no_evict_preempts_nobody() -> None:
    assert preemptions("no_evict") == 0 < preemptions("vllm")


def test_no_evict_fills_the_memory_with_whole_requests() -> None:
    """Seven blocks each: five run at once in 40 blocks, and prompts are read in chunks."""
    timing = Watching()
    engine = Engine(max_num_batched_tokens=32)
    serve(make_cluster(schedule="no_evict", blocks=40, timing=timing, engine=engine), [Arrival(0, 40, 60)] * 12)
    assert max(decodes for _, decodes in timing.seen) == 5
    assert max(tokens for tokens, _ in timing.seen) == 32


def test_reserve_preempts_less_the_more_it_keeps_free() -> None:
    counts = [preemptions("reserve", ratio=ratio) for ratio in (1.0, 0.75, 0.4)]
    assert counts[0] == preemptions("vllm")
    assert counts[0] > counts[1] > counts[2] == 0


def pools(*, blocks: int = 100, **params: float) -> Cluster:
    """Return one worker that reads, one that generates, and one that does both."""
    cluster = make_cluster(workers=3, schedule="splitwise", engine=Engine(max_num_seqs=8), blocks=blocks)
    for worker, group in zip(cluster.workers, ["prefill", "decode", "mixed"], strict=True):
        worker.group = group
    cluster.network = switch([worker.name for worker in cluster.workers], bandwidth_gb_s=10)
    cluster.route = load_policy("splitwise", "route", params=params).make()
    cluster.__attrs_post_init__()
    return cluster


def test_splitwise_uses_the_mixed_pool_for_what_is_too_much() -> None:
    calm, crowded = pools(longest_queue=100), pools(longest_queue=2)
    arrivals = [Arrival(index, 100, 5) for index in range(8)]
    serve(calm, arrivals)
    assert [worker.prefilled for worker in calm.workers] == [800, 8, 0]  # and where they go on, the first token
    assert [worker.generated for worker in calm.workers] == [8, 32, 0]
    serve(crowded, arrivals)
    mixed = crowded.workers[2]
    assert mixed.prefilled == 400  # two there, two here, and then in turn
    assert mixed.generated == 20  # whole outputs: a mixed worker hands nobody back


def test_splitwise_sends_decodes_to_the_mixed_pool_when_memory_is_full() -> None:
    arrivals = [Arrival(index * 4 * MS, 200, 400) for index in range(8)]
    full, roomy = pools(fullest_kv=0.3), pools(fullest_kv=1)
    serve(full, arrivals)
    serve(roomy, arrivals)
    assert full.workers[0].prefilled == 1600
    assert full.workers[2].generated > 0 == roomy.workers[2].generated


# -- all of them -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", policy_names())
def test_every_policy_says_what_it_does(name: str) -> None:
    info = policy_info(name)
    assert info.summary.endswith((".", "``"))
    for parameter in info.params:
        assert f"    {parameter.split('=')[0]}: " in info.doc


@pytest.mark.parametrize(
    ("name", "kind", "params"),
    [
        ("sarathi", "schedule", {"budget": 0}),
        ("sjf", "schedule", {"by": "age"}),
        ("edf", "schedule", {"ttft_s": 1}),
        ("edf", "schedule", {"ttft_s": [1, "soon"]}),
        ("fair", "schedule", {"output_weight": -1}),
        ("reserve", "schedule", {"ratio": 2}),
        ("prefix_aware", "route", {"least_share": 2}),
        ("weighted_score", "route", {"kv": "much"}),
        ("shortest_job", "route", {"output_weight": -1}),
        ("slo_aware", "route", {"ttft_s": None}),
    ],
)
def test_a_parameter_that_cannot_be_used_is_refused(name: str, kind: str, params: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        load_policy(name, kind, params=params).make()


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        st.integers(0, 400).map(lambda place: place * 10_000),
        st.integers(1, 60),
        st.integers(1, 40),
        session=st.sampled_from(["a", "b", None]),
        priority=st.integers(0, 2),
        hash_ids=st.sampled_from([None, (1, 2, 3, 4), (1, 2, 5, 6), (7, 8)]),
        hash_block_size=st.just(16),
    ),
    min_size=1,
    max_size=14,
).map(lambda arrivals: sorted(arrivals, key=lambda arrival: arrival.arrival_ns))


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=40, deadline=None)
@given(ARRIVALS, st.integers(7, 16), st.integers(1, 6), st.integers(1, 48))
def test_everything_is_served(schedule: str, arrivals: list[Arrival], blocks: int, seats: int, budget: int) -> None:
    """In a memory that one request may fill alone, whatever the budget, everybody gets all tokens and blocks return."""
    engine = Engine(max_num_seqs=seats, max_num_batched_tokens=budget, block_size=16)
    params = {"budget": budget} if schedule == "sarathi" else None
    cluster = make_cluster(schedule=schedule, params=params, engine=engine, blocks=blocks, check=True)
    requests = serve(cluster, arrivals)
    worker = cluster.workers[0]
    assert all(request.status is Status.FINISHED for request in requests)
    assert all(request.generated == request.output_tokens for request in requests)
    assert worker.generated == sum(request.output_tokens for request in requests)
    assert worker.kv.used == 0
    assert not worker.running
    times = token_times(cluster)
    assert all(len(times[request.id]) == request.output_tokens for request in requests)


@settings(max_examples=40, deadline=None)
@given(ARRIVALS, st.integers(1, 4), st.floats(0, 1))
def test_splitwise_serves_everything(arrivals: list[Arrival], longest_queue: int, fullest_kv: float) -> None:
    cluster = pools(blocks=7, longest_queue=longest_queue, fullest_kv=fullest_kv)
    requests = serve(cluster, arrivals)
    assert all(request.status is Status.FINISHED for request in requests)
    assert sum(worker.generated for worker in cluster.workers) == sum(request.output_tokens for request in requests)
    assert all(worker.kv.used == 0 and not worker.leaving for worker in cluster.workers)
