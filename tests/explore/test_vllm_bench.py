from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simloop.errors import InputError
from simloop.explore import real_run

Write = Callable[..., Path]


def test_requests_of_a_detailed_result(bench_result: Write) -> None:
    log = real_run(bench_result())
    assert log.requests.drop("id", "hash_ids").rows(named=True) == [
        {"arrival_s": 0.0, "prompt_tokens": 10, "output_tokens": 3, "ttft_s": 0.5, "tpot_s": pytest.approx(0.2),
         "e2e_s": pytest.approx(0.9), "finished": True},
        {"arrival_s": 1.5, "prompt_tokens": 20, "output_tokens": 2, "ttft_s": 0.25, "tpot_s": 0.25, "e2e_s": 0.5,
         "finished": True},
        {"arrival_s": 2.0, "prompt_tokens": 30, "output_tokens": 0, "ttft_s": 0.0, "tpot_s": None, "e2e_s": 0.0,
         "finished": False},
    ]  # fmt: skip


def test_what_failed_counts_in_nothing(bench_result: Write) -> None:
    figures = real_run(bench_result()).figures
    assert figures["ttft", "mean"] == pytest.approx(0.375)
    assert figures["makespan", ""] == pytest.approx(2.0)
    assert figures["request_throughput", ""] == pytest.approx(1.0)
    assert figures["output_throughput", ""] == pytest.approx(2.5)


def test_tokens_come_when_the_gaps_say(bench_result: Write) -> None:
    log = real_run(bench_result())
    assert log.tokens is not None
    assert log.tokens.times_s == pytest.approx([0.5, 0.6, 0.9, 1.75, 2.0])
    assert log.tokens.totals.tolist() == [1, 2, 3, 4, 5]


def test_chunks_of_several_tokens(bench_result: Write) -> None:
    log = real_run(bench_result(output_lens=[6, 2, 0]))
    assert log.tokens is not None
    assert log.tokens.totals.tolist() == [2, 4, 6, 7, 8]


def test_without_times_of_arrival_the_reported_duration_stands(bench_result: Write) -> None:
    log = real_run(bench_result(start_times=None))
    assert log.figures["makespan", ""] == 9.0
    assert log.figures["e2e", "p50"] == pytest.approx(0.7)
    assert log.tokens is None
    assert log.spread_tokens is None


def test_stated_latencies_win_over_sums_of_gaps(bench_result: Write) -> None:
    assert real_run(bench_result(latencies=[1.0, 2.0, 0.0])).figures["e2e", "mean"] == 1.5


def test_a_result_of_percentiles_only(tmp_path: Path) -> None:
    path = tmp_path / "aggregate.json"
    text = {"mean_ttft_ms": 250, "median_tpot_ms": 20.0, "p99_e2el_ms": 4000, "p99_itl_ms": 30.0, "duration": 12.5}
    path.write_text(json.dumps(text, indent=2))
    log = real_run(path)
    assert len(log.requests) == 0
    assert log.figures == {("ttft", "mean"): 0.25, ("tpot", "p50"): 0.02, ("e2e", "p99"): 4.0, ("makespan", ""): 12.5}


def test_gzip_is_recognised_by_content(bench_result: Write, tmp_path: Path) -> None:
    packed = tmp_path / "bench.json.gz"
    packed.write_bytes(gzip.compress(bench_result().read_bytes()))
    assert real_run(packed).figures == real_run(bench_result()).figures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"itls": [[0.1]]}, "bench.json: itls: found 1 elements, expected 3, as many as ttfts has"),
        ({"ttfts": [0.5, "x", 1.0]}, "bench.json: ttfts[1]: Expected `float | null`, got `str`"),
        ({"mean_ttft_ms": "fast"}, "bench.json: mean_ttft_ms: found 'fast', expected a number"),
        ({"ttfts": []} | dict.fromkeys(("duration", "request_throughput", "mean_ttft_ms")),
         "bench.json: found no figure, expected mean_ttft_ms and its like, or ttfts"),
    ],
)  # fmt: skip
def test_bad_results(bench_result: Write, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        real_run(bench_result(**changes))
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        (
            '{"ttfts": [1.0]}\n{"ttfts": [1.0]}\n',
            "expected one result of vllm bench serve, or one request in each line",
        ),
        ('{\n  "ttfts": [1.0\n', "expected one result of vllm bench serve"),
        ('{\n  "colour": 3\n}\n', "no result of vllm bench serve (found colour; expected ttfts or mean_ttft_ms)"),
        ('{"colour": 3}\n', "cannot tell its columns (colour)"),
    ],
)
def test_json_that_is_no_result(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        real_run(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
