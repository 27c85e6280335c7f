"""The fast bookkeeping gives, to the nanosecond, what a slow and obvious scheduler gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simloop.serving import Engine, SwapSpace
from tests.serving import reference
from tests.serving.world import make_cluster, price_ns, serve, stage_send_ns, stage_work_ns, token_times

Arrivals = list[tuple[int, int, int]]
Hashes = list[tuple[int, ...]]


@st.composite
def arrivals(draw: st.DrawFn, *, longest: int) -> Arrivals:
    """Requests in bursts; arrival times end in the number of the burst, so that they never tie with an iteration."""
    rows: Arrivals = []
    for burst in range(draw(st.integers(1, 6))):
        base_ns = draw(st.integers(0, 3000)) * 1000 + burst
        for _ in range(draw(st.integers(1, 6))):
            prompt = draw(st.integers(1, longest - 1))
            rows.append((base_ns, prompt, draw(st.integers(1, longest - prompt + 1))))
    return sorted(rows, key=lambda row: row[0])


@st.composite
def scenarios(draw: st.DrawFn) -> tuple[Arrivals, reference.Setting]:
    """Requests, and an engine whose memory holds the longest of them and little more."""
    block_size = draw(st.sampled_from([1, 2, 4, 16]))
    total_blocks = draw(st.integers(2, 40))
    longest = total_blocks * block_size
    max_num_seqs = draw(st.integers(1, 12))
    setting = reference.Setting(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=draw(st.integers(max_num_seqs, max_num_seqs + 60)),
        block_size=block_size,
        total_blocks=total_blocks,
        threshold=draw(st.sampled_from([0, 0, 1, 5, 13])),
        full_isl=draw(st.booleans()),
        watermark=draw(st.sampled_from([0.0, 0.0, 0.1, 0.5])),
    )
    return draw(arrivals(longest=min(longest, 200))), setting


@st.composite
def prefixes(draw: st.DrawFn) -> tuple[Arrivals, reference.Setting, Hashes]:
    """Scenarios whose requests share prefixes: each continues a random stretch of an earlier one."""
    rows, setting = draw(scenarios())
    hashes: Hashes = []
    for index, (_, prompt, output) in enumerate(rows):
        blocks = (prompt + output) // setting.block_size
        parent: tuple[int, ...] = ()
        continues: bool = draw(st.booleans())
        if hashes and continues:
            parent = hashes[draw(st.integers(0, index - 1))]
        shared = parent[: draw(st.integers(0, blocks))]
        own = tuple(1000 * (index + 1) + number for number in range(blocks - len(shared)))
        hashes.append((shared + own)[: draw(st.sampled_from([blocks, prompt // setting.block_size]))])
    return rows, setting, hashes


def engine_of(setting: reference.Setting) -> Engine:
    return Engine(
        max_num_seqs=setting.max_num_seqs,
        max_num_batched_tokens=setting.max_num_batched_tokens,
        block_size=setting.block_size,
        max_model_len=100_000,
        long_prefill_token_threshold=setting.threshold,
        scheduler_reserve_full_isl=setting.full_isl,
        scheduling_policy="priority" if setting.by_priority else "fcfs",
    )


def stage_ns(whole_ns: int, tokens: int, stage: int) -> int:
    return stage_work_ns(whole_ns, stage) + stage_send_ns(tokens, stage)


def compare(
    rows: Arrivals,
    setting: reference.Setting,
    policy: str,
    params: dict[str, Any] | None = None,
    hashes: Hashes | None = None,
    stages: int = 1,
) -> tuple[int, int]:
    """Run both, assert that they agree, and return how many preemptions and tokens from the prefix cache there were."""
    keys = hashes or [()] * len(rows)
    slow = [reference.Ref(i, *row, hashes=key) for i, (row, key) in enumerate(zip(rows, keys, strict=True))]
    for request in slow:
        request.priority = request.id % 3 if setting.by_priority else 0
    scheduler = {"vllm": reference.vllm, "orca": reference.orca, "0.6": reference.vllm_06}[policy]
    if policy == "0.6":
        mode = "swap" if setting.swap else "recompute"
        policy, params = "vllm", {"version": "0.6", "watermark": setting.watermark, "preemption_mode": mode}
    if stages > 1:
        reference.run_stages(slow, setting, scheduler, price_ns, stages, stage_ns)
    else:
        reference.run(slow, setting, scheduler, price_ns)
    cluster = make_cluster(
        schedule=policy, params=params, engine=engine_of(setting), blocks=setting.total_blocks, stages=stages
    )
    cluster.workers[0].swap = space = SwapSpace(10_000, setting.copy_ns, 1.0, setting.latency_ns)
    fast = serve(cluster, rows, keys, setting.block_size, 3 if setting.by_priority else 1)
    times = token_times(cluster)
    for mine, theirs in zip(fast, slow, strict=True):
        assert times[mine.id] == theirs.token_ns
        assert mine.scheduled_ns == theirs.scheduled_ns
        assert (mine.preemptions, mine.swaps) == (theirs.preemptions, theirs.swaps)
        assert (mine.first_token_ns, mine.finish_ns) == (theirs.token_ns[0], theirs.token_ns[-1])
        assert mine.generated == theirs.output
    kv, found = cluster.workers[0].kv, sum(request.cached_tokens for request in slow)
    assert kv.used == space.used == 0
    assert found == (kv.cache.hits if kv.cache else 0)
    return sum(request.preemptions for request in slow), found


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_vllm(scenario: tuple[Arrivals, reference.Setting]) -> None:
    rows, setting = scenario
    compare(rows, setting, "vllm", {"watermark": setting.watermark} if setting.watermark else None)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(prefixes())
def test_vllm_with_priorities(scenario: tuple[Arrivals, reference.Setting, Hashes]) -> None:
    rows, setting, hashes = scenario
    compare(rows, replace(setting, by_priority=True, threshold=0), "vllm", {"watermark": setting.watermark}, hashes)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_vllm_06(scenario: tuple[Arrivals, reference.Setting]) -> None:
    compare(*scenario, "0.6")


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_vllm_06_with_swapping(scenario: tuple[Arrivals, reference.Setting]) -> None:
    rows, setting = scenario
    compare(rows, replace(setting, swap=True), "0.6")


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(prefixes())
def test_swapping_beside_prefix_caching_loses_no_block(scenario: tuple[Arrivals, reference.Setting, Hashes]) -> None:
    rows, setting, hashes = scenario
    params = {"version": "0.6", "preemption_mode": "swap"}
    cluster = make_cluster(params=params, engine=engine_of(setting), blocks=setting.total_blocks)
    cluster.workers[0].swap = space = SwapSpace(10_000, 1000, 1.0)
    done = serve(cluster, rows, hashes, setting.block_size)
    assert [request.generated for request in done] == [output for _, _, output in rows]
    assert cluster.workers[0].kv.used == space.used == 0


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_orca(scenario: tuple[Arrivals, reference.Setting]) -> None:
    compare(*scenario, "orca")


def test_the_scenarios_reach_swapping() -> None:
    setting = reference.Setting(max_num_seqs=8, max_num_batched_tokens=64, block_size=4, total_blocks=20, swap=True)
    preemptions, _ = compare([(i, 15, 40) for i in range(8)], setting, "0.6")
    assert preemptions > 3


def test_the_scenarios_reach_preemption() -> None:
    setting = reference.Setting(max_num_seqs=8, max_num_batched_tokens=64, block_size=4, total_blocks=20)
    preemptions, _ = compare([(i, 15, 40) for i in range(8)], setting, "vllm")
    assert preemptions > 3


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(prefixes())
def test_vllm_with_prefix_caching(scenario: tuple[Arrivals, reference.Setting, Hashes]) -> None:
    rows, setting, hashes = scenario
    compare(rows, setting, "vllm", {"watermark": setting.watermark} if setting.watermark else None, hashes)


def test_the_scenarios_reach_eviction_and_sharing() -> None:
    setting = reference.Setting(max_num_seqs=3, max_num_batched_tokens=64, block_size=4, total_blocks=24)
    family = [tuple(range(1000 * (i % 3), 1000 * (i % 3) + 12)) for i in range(12)]
    preemptions, found = compare([(i, 40, 12) for i in range(12)], setting, "vllm", hashes=family)
    assert preemptions > 0
    assert found > 100


@pytest.mark.parametrize("threshold", [0, 3])
def test_long_prompts_come_in_chunks(threshold: int) -> None:
    setting = reference.Setting(
        max_num_seqs=4, max_num_batched_tokens=10, block_size=4, total_blocks=100, threshold=threshold
    )
    compare([(0, 95, 5), (0, 33, 20), (1, 2, 30), (1, 1, 1)], setting, "vllm")


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(prefixes(), st.integers(2, 4), st.booleans())
def test_vllm_in_stages(scenario: tuple[Arrivals, reference.Setting, Hashes], stages: int, by_priority: bool) -> None:
    rows, setting, hashes = scenario
    setting = replace(setting, by_priority=by_priority, threshold=0 if by_priority else setting.threshold)
    compare(rows, setting, "vllm", {"watermark": setting.watermark} if setting.watermark else None, hashes, stages)


def test_the_scenarios_reach_preemption_in_stages() -> None:
    setting = reference.Setting(max_num_seqs=8, max_num_batched_tokens=20, block_size=4, total_blocks=30)
    preemptions, _ = compare([(i, 35, 30) for i in range(12)], setting, "vllm", stages=3)
    assert preemptions > 3
