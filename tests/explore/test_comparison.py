from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from simloop.errors import InputError
from simloop.explore import RunLog, compare
from simloop.explore.token_series import TokenSeries

REAL: dict[str, Any] = {
    "arrival_s": [50.0, 51.0, 52.0, 53.0],
    "prompt_tokens": [10, 10, 10, 10],
    "output_tokens": [11, 11, 1, 11],
    "ttft_s": [0.1, 0.2, 0.4, 9.0],
    "e2e_s": [1.1, 2.2, 0.4, None],
    "finished": [True, True, True, False],
}
RUN: dict[str, Any] = {**REAL, "arrival_s": [0.0, 1.0, 2.0, 3.0], "ttft_s": [0.11, 0.2, 0.3, 0.1],
                       "e2e_s": [1.11, 1.2, 0.3, 1.1], "finished": [True] * 4}  # fmt: skip

GOLDEN = """\
 run  simulated: 4 of 4 requests finished
 real measured: 3 of 4 requests finished

  metric                            run           real          error
 ─────────────────────────────────────────────────────────────────────
  TTFT              mean         178 ms         233 ms        -23.9 %
                    p50          155 ms         200 ms        -22.5 %
                    p90          270 ms         360 ms        -25.0 %
                    p95          285 ms         380 ms        -25.0 %
                    p99          297 ms         396 ms        -25.0 %
  TPOT              mean         100 ms         150 ms        -33.3 %
                    p50          100 ms         150 ms        -33.3 %
                    p90          100 ms         190 ms        -47.4 %
                    p95          100 ms         195 ms        -48.7 %
                    p99          100 ms         199 ms        -49.7 %
  latency           mean         928 ms         1.23 s        -24.8 %
                    p50          1.10 s         1.10 s        +0.45 %
                    p90          1.17 s         1.98 s        -40.8 %
                    p95          1.19 s         2.09 s        -43.2 %
                    p99          1.20 s         2.18 s        -45.0 %
  makespan                       4.10 s         3.20 s        +28.1 %
  requests/s                       0.98           0.94         +4.1 %
  output tokens/s                  8.29           7.19        +15.4 %

 4 of 4 requests matched by order
 mean absolute percentage error per request: TTFT 11.7 %, TPOT 25.0 %, latency
23.8 %
 output tokens per second, WAPE: 65.2 % (from first and last tokens)
"""


def printed(comparison: Any) -> str:
    console = Console(file=io.StringIO(), width=80, highlight=False)
    console.print(comparison.table())
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())  # type: ignore[attr-defined]


def test_a_small_comparison_to_the_letter() -> None:
    comparison = compare(RunLog.of_columns("simulated", RUN), RunLog.of_columns("measured", REAL))
    assert printed(comparison) == GOLDEN


def test_the_same_as_plain_values() -> None:
    found = compare(RunLog.of_columns("simulated", RUN), RunLog.of_columns("measured", REAL)).to_dict()
    assert found["run"] == {"name": "simulated", "requests": 4}
    assert found["figures"]["ttft"]["mean"] == {"run": 0.1775, "real": 0.233333, "error": -0.239286}
    assert found["figures"]["makespan"] == {"unit": "s", "run": 4.1, "real": 3.2, "error": 0.28125}
    assert found["matched"] == {"requests": 4, "by": "order"}
    assert found["per_request_mape"] == {"ttft": 0.116667, "tpot": 0.25, "e2e": pytest.approx(0.237879, abs=1e-6)}
    assert found["throughput_from"] == ["first and last tokens"] * 2


@given(st.lists(st.tuples(st.integers(0, 80), st.integers(1, 40), st.integers(0, 80)), min_size=1))
def test_a_run_equals_itself(rows: list[tuple[int, int, int]]) -> None:
    columns = {
        "arrival_s": [a / 8 for a, _, _ in rows],
        "ttft_s": [f / 8 for _, f, _ in rows],
        "e2e_s": [(f + r) / 8 for _, f, r in rows],
        "output_tokens": [1 + r for _, _, r in rows],
    }
    comparison = compare(RunLog.of_columns("a", columns), RunLog.of_columns("b", columns))
    assert {figure.error for figure in comparison.figures} == {0.0}
    assert set(comparison.per_request.values()) == {0.0}
    assert comparison.throughput_wape == 0.0
    assert len(comparison.matching) == len(rows)


@given(st.lists(st.integers(0, 60), min_size=1), st.lists(st.integers(0, 60), min_size=1), st.integers(-3, 3))
def test_wape_against_an_obvious_loop(ours: list[int], theirs: list[int], grid: int) -> None:
    """Tokens of both at multiples of an eighth of a second; the real one's grid lies where it says."""
    known = {("makespan", ""): 1.0}
    ours_s, theirs_s = np.array(ours) / 8, np.array(theirs) / 8
    series = TokenSeries.of_tokens("token times", theirs_s)
    gridded = attrs.evolve(series, grid_s=grid / 4)
    run = RunLog.of_columns("run", {}, tokens=TokenSeries.of_tokens("token times", ours_s), reported=known)
    real = RunLog.of_columns("real", {}, tokens=gridded, reported=known)
    start = grid / 4 - (1 if grid > 0 else 0)
    apart = 0
    for second in range(12):
        low, high = start + second, start + second + 1
        apart += abs(sum(low <= t / 8 < high for t in ours) - sum(low <= t / 8 < high for t in theirs))
    assert compare(run, real).throughput_wape == pytest.approx(apart / len(theirs))


def test_percentiles_only_compares_what_both_have(bench_result: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "aggregate.json"
    path.write_text('{"mean_ttft_ms": 250, "p99_tpot_ms": 20, "output_throughput": 5}')
    comparison = compare(bench_result(), path)
    assert [(one.metric, one.statistic) for one in comparison.figures] == [
        ("ttft", "mean"), ("tpot", "p99"), ("output_throughput", "")]  # fmt: skip
    assert comparison.figure("ttft", "mean").error == pytest.approx(0.5)  # type: ignore[union-attr]
    assert comparison.figure("makespan") is None
    assert comparison.throughput_wape is None
    assert comparison.per_request == {}
    assert "figures only, no requests" in printed(comparison)


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "a.json", tmp_path / "b.json"
    ours.write_text('{"mean_ttft_ms": 250}')
    theirs.write_text('{"p99_tpot_ms": 20}')
    with pytest.raises(InputError, match=r"nothing to compare: a.json has ttft, b.json has tpot"):
        compare(ours, theirs)


def test_a_table_is_at_most_80_columns_wide() -> None:
    names = "a/long/path/to/some/folder/" * 5
    huge = {**RUN, "ttft_s": [9e6] * 4, "e2e_s": [9e6 + 1] * 4}
    text = printed(compare(RunLog.of_columns(names, huge), RunLog.of_columns(names, REAL)))
    assert max(map(len, text.splitlines())) <= 80


def test_times_in_the_wrong_unit_are_found_out() -> None:
    columns = {"arrival_s": [0.0, 5e9], "e2e_s": [1.0, 2.0]}
    with pytest.raises(InputError, match=r"log.csv: it took 5e\+09 s, says the table; are the units right\?"):
        compare(RunLog.of_columns("run", RUN), RunLog.of_columns("log.csv", columns))


def test_what_is_known_of_the_real_tokens_is_not_thrown_away() -> None:
    exact = TokenSeries.of_tokens("token times", np.array([0.5]))
    spread, known = RunLog.of_columns("spread", RUN), RunLog.of_columns("known", REAL, tokens=exact)
    assert compare(spread, known).throughput_wape is None
    found = compare(known, spread).token_series
    assert found is not None
    assert [series.source for series in found] == ["first and last tokens"] * 2
