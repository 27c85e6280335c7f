"""The fast bookkeeping gives, to the nanosecond, what a slow and obvious scheduler gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simloop.serving import Engine
from tests.serving import reference
from tests.serving.world import make_cluster, price_ns, serve, token_times

Arrivals = list[tuple[int, int, int]]


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


def engine_of(setting: reference.Setting) -> Engine:
    return Engine(
        max_num_seqs=setting.max_num_seqs,
        max_num_batched_tokens=setting.max_num_batched_tokens,
        block_size=setting.block_size,
        max_model_len=100_000,
        long_prefill_token_threshold=setting.threshold,
        scheduler_reserve_full_isl=setting.full_isl,
    )


def compare(rows: Arrivals, setting: reference.Setting, policy: str, params: dict[str, Any] | None = None) -> int:
    """Run both, assert that they agree, and return how many preemptions there were."""
    slow = [reference.Ref(i, *row) for i, row in enumerate(rows)]
    reference.run(slow, setting, getattr(reference, policy), price_ns)
    cluster = make_cluster(schedule=policy, params=params, engine=engine_of(setting), blocks=setting.total_blocks)
    fast, times = serve(cluster, rows), token_times(cluster)
    for mine, theirs in zip(fast, slow, strict=True):
        assert times[mine.id] == theirs.token_ns
        assert mine.scheduled_ns == theirs.scheduled_ns
        assert mine.preemptions == theirs.preemptions
        assert (mine.first_token_ns, mine.finish_ns) == (theirs.token_ns[0], theirs.token_ns[-1])
        assert mine.generated == theirs.output
    assert cluster.workers[0].kv.used == 0
    return sum(request.preemptions for request in slow)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_vllm(scenario: tuple[Arrivals, reference.Setting]) -> None:
    rows, setting = scenario
    compare(rows, setting, "vllm", {"watermark": setting.watermark} if setting.watermark else None)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios())
def test_orca(scenario: tuple[Arrivals, reference.Setting]) -> None:
    compare(*scenario, "orca")


def test_the_scenarios_reach_preemption() -> None:
    setting = reference.Setting(max_num_seqs=8, max_num_batched_tokens=64, block_size=4, total_blocks=20)
    assert compare([(i, 15, 40) for i in range(8)], setting, "vllm") > 3


@pytest.mark.parametrize("threshold", [0, 3])
def test_long_prompts_come_in_chunks(threshold: int) -> None:
    setting = reference.Setting(
        max_num_seqs=4, max_num_batched_tokens=10, block_size=4, total_blocks=100, threshold=threshold
    )
    compare([(0, 95, 5), (0, 33, 20), (1, 2, 30), (1, 1, 1)], setting, "vllm")
