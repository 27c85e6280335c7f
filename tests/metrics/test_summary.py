"""The summary: a small run by hand, and the formulas of ``vllm bench serve`` written out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from simloop.metrics import Status
from tests.metrics.reference import Ended, Run, runs, small_run

# Requests 0 (tokens at 0.5, 1, 2, 4.5, 5, 5.25 s), 1 (arrives at 1 s, its only token at 2 s) and 2 (rejected at 2 s).
GOLDEN = {
    "backend": "simloop",
    "model_id": "llama-3.1-8b",
    "request_rate": 8.0,
    "burstiness": None,
    "seed": 0,
    "complete": True,
    "incomplete_reason": None,
    "duration": 5.25,
    "simulated_s": 5.25,
    "wall_s": 0.5,
    "simulated_s_per_wall_s": 10.5,
    "iterations": 6,
    "num_prompts": 3,
    "completed": 2,
    "failed": 0,
    "rejected": 1,
    "unfinished": 0,
    "rejected_reasons": {"too long": 1},
    "failed_reasons": {},
    "preemptions": 1,
    "swaps": 1,
    "total_input_tokens": 20,
    "total_output_tokens": 7,
    "total_generated_tokens": 7,
    "request_throughput": 0.380952,
    "request_goodput": 0.190476,
    "output_throughput": 1.333333,
    "total_token_throughput": 5.142857,
    "max_output_tokens_per_s": 2,
    "max_concurrent_requests": 2,
    "mean_concurrent_requests": 1.190476,
    "mean_ttft_ms": 750.0,
    "median_ttft_ms": 750.0,
    "std_ttft_ms": 250.0,
    "p90_ttft_ms": 950.0,
    "max_ttft_ms": 1000.0,
    "mean_tpot_ms": 950.0,
    "p99_tpot_ms": 950.0,
    "mean_itl_ms": 950.0,
    "median_itl_ms": 500.0,
    "std_itl_ms": 812.403840,
    "p90_itl_ms": 1900.0,
    "max_itl_ms": 2500.0,
    "mean_e2el_ms": 3125.0,
    "mean_max_gap_ms": 2500.0,
    "mean_queueing_ms": 125.0,
    "mean_normalised_latency_ms": 937.5,
    "slo": {"ttft_s": 2.0, "max_gap_s": 0.5},
    "slo_attainment": {"ttft_s": 0.666667, "max_gap_s": 0.333333, "all": 0.333333},
    "mean_utilisation": 0.190476,
    "max_kv_usage": 0.5,
}


def test_a_small_run_by_hand() -> None:
    run = small_run()
    run.requests[0].output_tokens = 1
    summary = run.result().summary()
    assert {key: summary[key] for key in GOLDEN} == GOLDEN
    # Worker 0: half a second at (0 + 0.5) / 2, then half a second at (0.5 + 0.1) / 2, out of 5.25 s.
    assert summary["workers"][0] == {
        "name": "gpu-0",
        "utilisation": 0.190476,
        "mean_kv_usage": 0.052381,
        "max_kv_usage": 0.5,
    }


def bench(requests: list[Ended]) -> dict[str, Any]:
    """What ``calculate_metrics`` of ``vllm bench serve`` does with the outputs that succeeded."""
    ttfts, tpots, itls, e2els = [], [], [], []
    for request in requests:
        latency = (request.finish_ns - request.arrival_ns) / 1e9
        ttft = (request.token_ns[0] - request.arrival_ns) / 1e9
        if request.generated > 1:
            tpots.append((latency - ttft) / (request.generated - 1))
        itls += [gap / 1e9 for gap in request.gaps_ns]
        ttfts.append(ttft)
        e2els.append(latency)
    metrics: dict[str, Any] = {"completed": len(requests), **_peaks(requests)}
    for name, values in {"ttft": ttfts, "tpot": tpots, "itl": itls, "e2el": e2els}.items():
        if values:
            metrics[f"mean_{name}_ms"] = np.mean(values) * 1000
            metrics[f"median_{name}_ms"] = np.median(values) * 1000
            metrics[f"std_{name}_ms"] = np.std(values) * 1000
            metrics |= {f"p{p}_{name}_ms": np.percentile(values, p) * 1000 for p in (90, 95, 99)}
    return metrics


def _peaks(requests: list[Ended]) -> dict[str, int]:
    if not requests:
        return {"max_output_tokens_per_s": 0, "max_concurrent_requests": 0}
    start = min(request.arrival_ns for request in requests)
    seconds = (max(request.finish_ns for request in requests) - start) // 10**9 + 1
    tokens, concurrent = [0] * seconds, [0] * seconds
    for request in requests:
        for time_ns in request.token_ns:
            tokens[(time_ns - start) // 10**9] += 1
        for second in range((request.arrival_ns - start) // 10**9, (request.finish_ns - start) // 10**9 + 1):
            concurrent[second] += 1
    return {"max_output_tokens_per_s": max(tokens), "max_concurrent_requests": max(concurrent)}


@given(runs())
def test_the_formulas_of_vllm_bench_serve(run: Run) -> None:
    summary = run.result(complete=False).summary()
    expected = bench(run.finished)
    assert {key: summary[key] for key in expected} == pytest.approx(expected, rel=1e-9, abs=2e-6)


@given(runs())
def test_a_summary_is_json_without_nan(run: Run) -> None:
    summary = run.result().summary()
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert "-0.0" not in json.dumps(summary)


@given(runs())
def test_every_request_is_counted_once(run: Run) -> None:
    summary = run.result().summary()
    ends = [summary[key] for key in ("completed", "failed", "rejected", "unfinished")]
    assert sum(ends) == summary["num_prompts"] == len(run.requests)
    assert sum(summary["rejected_reasons"].values()) == summary["rejected"]
    assert sum(summary["failed_reasons"].values()) == summary["failed"]


def test_an_incomplete_run_says_so_and_counts_only_what_was_simulated() -> None:
    run = small_run()
    run.requests[2].status = Status.UNFINISHED
    run.requests[2].finish_ns = -1
    summary = run.result(complete=False, reason="interrupted", end_ns=10 * 10**9).summary()
    assert (summary["complete"], summary["incomplete_reason"]) == (False, "interrupted")
    assert (summary["completed"], summary["unfinished"]) == (1, 1)
    assert summary["duration"] == 10.0
    assert summary["request_throughput"] == 0.1
    assert (summary["total_output_tokens"], summary["total_generated_tokens"]) == (1, 7)
    assert summary["mean_itl_ms"] is None


def test_a_run_in_which_nothing_happened() -> None:
    summary = Run([], [], [[]]).result().summary()
    assert (summary["num_prompts"], summary["duration"], summary["request_throughput"]) == (0, 0.0, None)
    assert summary["mean_ttft_ms"] is None
    assert summary["slo_attainment"]["all"] == 0.0


def test_time_before_the_first_arrival_does_not_count() -> None:
    hour = 3600 * 10**9
    request = Ended(
        id=0, arrival_ns=hour, scheduled_ns=hour, first_token_ns=hour + 10**9, finish_ns=hour + 10**9, generated=1
    )
    summary = Run([request], [(0, 0, hour + 10**9, 0, 0)], [[]]).result().summary()
    assert (summary["duration"], summary["request_throughput"], summary["max_output_tokens_per_s"]) == (1.0, 1.0, 1)
