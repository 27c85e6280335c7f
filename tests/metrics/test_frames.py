"""The two data frames: columns, units, and null for what never happened."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings

from tests.metrics.reference import Run, runs, small_run


def test_requests_of_a_small_run() -> None:
    rows = small_run().result().requests.to_dicts()
    assert rows[0] == {
        "request_id": 0,
        "status": "finished",
        "reason": None,
        "worker": "gpu-1",
        "prompt_tokens": 10,
        "output_tokens": 6,
        "generated_tokens": 6,
        "preemptions": 1,
        "swaps": 1,
        "arrival_s": 0.0,
        "scheduled_s": 0.25,
        "first_token_s": 0.5,
        "finish_s": 5.25,
        "queueing_s": 0.25,
        "ttft_s": 0.5,
        "tpot_s": 0.95,
        "max_gap_s": 2.5,
        "e2e_s": 5.25,
        "normalised_latency_s": 0.875,
        "slo_attained": False,
    }
    assert (rows[1]["tpot_s"], rows[1]["max_gap_s"], rows[1]["slo_attained"]) == (None, None, True)
    assert (rows[2]["status"], rows[2]["reason"], rows[2]["worker"]) == ("rejected", "too long", None)
    assert rows[2]["scheduled_s"] is rows[2]["ttft_s"] is rows[2]["e2e_s"] is None
    assert rows[2]["finish_s"] == 2.0


def test_timeseries_of_a_small_run() -> None:
    rows = small_run().result().timeseries.to_dicts()
    assert [(row["time_s"], row["worker"]) for row in rows] == [(1.0, "gpu-0"), (2.0, "gpu-0"), (5.25, "gpu-1")]
    assert rows[1] == {
        "time_s": 2.0,
        "worker": "gpu-0",
        "running": 0,
        "waiting": 0,
        "kv_used_blocks": 1,
        "kv_usage": 0.1,
        "batch_size": 1.0,
        "prompt_tokens_per_s": 10.0,
        "output_tokens_per_s": 2.0,
        "utilisation": 0.5,
        "iterations": 2,
        "preemptions": 1,
    }


def test_rates_over_no_time_are_null() -> None:
    run = small_run()
    run.samples = [(0, 0, 1, 0, 0, 10, 0, 0, 0, 0, 0)]
    row = run.result().timeseries.to_dicts()[0]
    assert row["output_tokens_per_s"] is row["batch_size"] is row["utilisation"] is None


@settings(max_examples=30)
@given(runs())
def test_no_frame_holds_nan(run: Run) -> None:
    result = run.result(slo=None)
    assert result.requests["request_id"].to_list() == sorted(request.id for request in run.requests)
    assert result.requests["slo_attained"].to_list() == [None] * len(run.requests)
    for row in result.requests.to_dicts() + result.timeseries.to_dicts():
        assert not any(isinstance(value, float) and math.isnan(value) for value in row.values())


def test_seconds_are_exact_to_the_nanosecond() -> None:
    run = small_run()
    run.requests[1].arrival_ns = 7_654_321_123_456_789
    assert run.result().requests["arrival_s"][2] == pytest.approx(7_654_321.123456789, abs=5e-10)
