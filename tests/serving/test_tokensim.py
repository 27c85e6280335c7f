"""The public TokenSim on its own inputs: the bundled scenarios give its answers, request by request.

Its outputs are read from the folder of measured data; tests that need them are skipped where there is none. Our times
are whole nanoseconds, its are floats: a moment may be off by a nanosecond, a run's end by one in 10^9.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import simloop
from simloop.metrics import Result
from simloop.serving import Engine, Request, SwapSpace, load_policy
from tests.benchmarks.tokensim import DATA, FIGURE_10, REAL, TABLE_2_REAL, a100_40gb, lengths, trace
from tests.serving import reference
from tests.serving.test_against_reference import Arrivals, scenarios
from tests.serving.world import make_cluster, price_ns, serve, token_times

CONFIGS = Path(__file__).parents[2] / "configs"
NS = 1.0000001e-9
needs_runs = pytest.mark.skipif(not DATA.is_dir(), reason="the public code's outputs are not here (SIMLOOP_DATA)")


def simulate(config: str, *overrides: str) -> Result:
    return simloop.simulate(CONFIGS / f"{config}.yaml", overrides=list(overrides))


def theirs(run: str) -> pl.DataFrame:
    return pl.read_csv(DATA / f"{run}.csv.gz").sort("id")


@needs_runs
@pytest.mark.parametrize(
    "run",
    [
        "a80_uniform_q2_n2000",
        "a80_uniform_q4_n2000",
        "a80_uniform_q8_n2000",
        "a80_poisson_q8_n2000",
        "h1_uniform_q8_n2000",
    ],
)
def test_one_worker(run: str) -> None:
    mine = simulate("tokensim", trace(run), *(a100_40gb(1) if run.startswith("h1") else ())).requests
    public = theirs(run)
    np.testing.assert_allclose(mine["ttft_s"], public["ttft_s"], rtol=1e-9, atol=NS)
    np.testing.assert_allclose(mine["finish_s"], public["finish_s"], rtol=1e-9, atol=0)
    np.testing.assert_allclose(mine["max_gap_s"].fill_nan(0).fill_null(0), public["max_tpot_s"], rtol=1e-9, atol=2 * NS)


@needs_runs
def test_two_workers_that_read_prompts_and_six_that_decode() -> None:
    mine = simulate("tokensim-disaggregated", lengths(), *a100_40gb(2)).requests
    public = theirs("p2g6_uniform_q8_n2000")
    np.testing.assert_allclose(mine["ttft_s"], public["ttft_s"], rtol=1e-9, atol=NS)
    np.testing.assert_allclose(mine["finish_s"], public["finish_s"], rtol=2e-9, atol=2 * NS)
    np.testing.assert_allclose(mine["max_gap_s"].fill_nan(0).fill_null(0), public["max_tpot_s"], rtol=1e-6, atol=NS)


@needs_runs
@pytest.mark.parametrize(
    "requests", [1000, 2000, pytest.param(4000, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_figure_7(requests: int) -> None:
    public = pl.read_csv(DATA / "fig7_repro.csv").row(by_predicate=pl.col("n") == requests, named=True)
    mine = simulate("tokensim-fig7", f"workload.requests={requests}")
    assert mine.end_ns / 1e9 == pytest.approx(public["total_time_s"], rel=1e-8)
    assert np.percentile(mine.requests["e2e_s"], 99) == pytest.approx(public["p99_e2e"], rel=1e-4)


@needs_runs
def test_table_2() -> None:
    for hardware, prompt, requests, total_s in pl.read_csv(DATA / "table2_repro.csv").iter_rows():
        changes = (f"workload.requests={requests}", f"workload.lengths.input={prompt}")
        mine = simulate("tokensim-table2", *changes, *(a100_40gb(1) if hardware == "h1" else ()))
        assert mine.end_ns / 1e9 == pytest.approx(total_s, rel=1e-9)


@needs_runs
@pytest.mark.parametrize(("ratio", "throughput", "short_gaps", "good"), FIGURE_10)
def test_figure_10(ratio: float, throughput: float, short_gaps: float, good: float) -> None:
    """More requests than one A100 40 GB can hold; without a limit for new ones it has to swap."""
    changes = ("workload.arrivals.rate=24", f"policies.schedule.params.max_occupy_ratio={ratio}")
    mine = simulate("tokensim", lengths(), *changes, *a100_40gb(1), "slo={ttft_s: 15, max_gap_s: 0.15}")
    total_s = mine.end_ns / 1e9
    assert len(mine.requests) / total_s == pytest.approx(throughput, abs=0.0051)
    assert int((mine.requests["max_gap_s"] <= 0.15).sum()) / total_s == pytest.approx(short_gaps, abs=0.0051)
    assert int(mine.requests["slo_attained"].sum()) / total_s == pytest.approx(good, abs=0.0051)
    assert (mine.summary()["swaps"] > 0) == (ratio == 1.0)


def test_table_2_as_printed() -> None:
    for requests, printed_s in zip(REAL, (2.592, 5.089, 7.587, 10.095, 12.593), strict=True):
        mine = simulate("tokensim-table2", f"workload.requests={requests}", "workload.lengths.input=16")
        assert mine.end_ns / 1e9 == pytest.approx(printed_s, abs=0.01)


def test_table_2_as_measured() -> None:
    """The row "Local", a real A100, with what is known and assumed in the scenario, nothing fitted to it."""
    errors = [
        simulate(TABLE_2_REAL, f"workload.requests={requests}").end_ns / 1e9 / measured_s - 1
        for requests, measured_s in REAL.items()
    ]
    assert np.abs(errors).mean() < 0.02


def test_the_heap_of_equals() -> None:
    """Who arrives during one iteration leaves out of order; the scheduler seats one after another."""
    for arrivals, order in ((4, [0, 2, 1, 3]), (8, [0, 2, 6, 5, 7, 4, 1, 3])):
        for heap_order, expected in ((True, order), (False, sorted(order))):
            cluster = make_cluster(
                schedule="tokensim", params={"heap_order": heap_order}, engine=Engine(max_num_seqs=1)
            )
            requests = serve(cluster, [(0, 16, 1), *((index, 16, 1) for index in range(1, arrivals + 1))])
            by_start = sorted(requests[1:], key=lambda request: request.first_token_ns)
            assert [request.id - 1 for request in by_start] == expected


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios(), st.sampled_from([1.0, 1.0, 0.6]))
def test_the_schedule_against_a_slow_one(scenario: tuple[Arrivals, reference.Setting], ratio: float) -> None:
    rows, setting = scenario
    slow = [reference.Ref(i, *row) for i, row in enumerate(rows)]
    setting.swap, setting.watermark = True, ratio
    reference.run(slow, setting, reference.tokensim, price_ns)
    engine = Engine(max_num_seqs=setting.max_num_seqs, block_size=setting.block_size)
    params = {"max_occupy_ratio": ratio}
    cluster = make_cluster(schedule="tokensim", params=params, engine=engine, blocks=setting.total_blocks)
    cluster.workers[0].swap = SwapSpace(10_000, setting.copy_ns, 1.0, setting.latency_ns, free_return=True)
    fast, times = serve(cluster, rows), token_times(cluster)
    for mine, other in zip(fast, slow, strict=True):
        assert times[mine.id] == other.token_ns
        assert mine.swaps == other.swaps
    assert cluster.workers[0].kv.used == cluster.workers[0].swap.used == 0


def test_the_schedule_swaps() -> None:
    cluster = make_cluster(schedule="tokensim", blocks=20, engine=Engine(block_size=4))
    cluster.workers[0].swap = SwapSpace(1000, 1000, 1.0)
    requests = serve(cluster, [(i, 15, 40) for i in range(8)])
    assert sum(request.swaps for request in requests) > 3
    assert requests[0].swaps == 0  # who arrived first goes last


def disaggregated(schedule: dict[str, Any], route: dict[str, Any], **given: Any) -> simloop.Cluster:
    """Two workers that read prompts and three that decode, at an arbitrary price."""
    cluster = make_cluster(schedule="tokensim_pools", params=schedule, workers=5, **given)
    for worker in cluster.workers[:2]:
        worker.group = "prefill"
    cluster.route = load_policy("tokensim_pools", "route", params=route).make()
    cluster.__attrs_post_init__()
    return cluster


def placed(requests: list[Request]) -> Counter[int]:
    return Counter(request.worker_index for request in requests)


@pytest.mark.parametrize(("pool", "expected"), [("round_robin", {2: 6, 3: 6, 4: 2}), ("least_kv", {2: 7, 3: 7})])
def test_prompts_that_were_read_together_are_split_into_chunks(pool: str, expected: dict[int, int]) -> None:
    """Seven prompts on each of two workers are read together: chunks of three, three and one.

    Blocks count as held when they are fetched, so that the chunks of one instant find the same worker the emptiest.
    """
    requests = serve(disaggregated({}, {"decode_pool": pool}), [(0, 16, 4)] * 14)
    assert placed(requests) == expected
    assert {request.generated for request in requests} == {4}


def test_fetching_takes_its_time_and_no_block_of_the_sender() -> None:
    gaps = []
    for gib_s in (300.0, 0.001):
        cluster = disaggregated({"bandwidth_gib_s": gib_s, "latency_us": 0}, {})
        (request,) = serve(cluster, [(0, 16, 2)])
        gaps.append(request.finish_ns - request.first_token_ns)
        assert all(worker.kv.used == 0 for worker in cluster.workers)
    block_ns = 16 * cluster.workers[0].model.kv_bytes_per_token / 2**30 * 1e9
    assert gaps[1] - gaps[0] == pytest.approx(block_ns * (1 / 0.001 - 1 / 300), rel=1e-6)


def test_what_has_no_effect_or_no_meaning_is_refused() -> None:
    for change, said in (
        ("workers[0].engine.gpu_memory_utilization=0.8", "timing model 'tokensim' does not look at it"),
        ("workers[0].engine.max_num_batched_tokens=4096", "policy 'tokensim' does not look at it"),
        ("workers[0].timing.overheads=vllm-0.19", "overheads says nothing beside model: tokensim"),
        ("workers[0].timing.model=roofline", "memory_bandwidth_tb_s says nothing beside model: roofline"),
        ("policies.schedule.params.heap_order=1", "found 1, expected true or false"),
        ("model=mixtral-8x7b", "has experts, which TokenSim does not know"),
        ("policies.schedule.params.max_occupy_ratio=2", "expected a number >= 0 and <= 1"),
    ):
        with pytest.raises(simloop.InputError, match=json.dumps(said)[1:-1]):
            simulate("tokensim", change)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(scenarios(), st.sampled_from([300.0, 0.1]))
def test_pools_serve_everything_however_short_memory_is(
    scenario: tuple[Arrivals, reference.Setting], gib_s: float
) -> None:
    rows, setting = scenario
    engine = Engine(max_num_seqs=setting.max_num_seqs, block_size=setting.block_size)
    cluster = disaggregated({"bandwidth_gib_s": gib_s}, {}, engine=engine, blocks=setting.total_blocks)
    requests = serve(cluster, rows)
    assert [request.generated for request in requests] == [output for _, _, output in rows]
    assert all(worker.kv.used == 0 for worker in cluster.workers)
