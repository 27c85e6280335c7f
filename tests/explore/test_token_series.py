from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simloop.explore.token_series import TokenSeries

TENTHS = st.integers(0, 200).map(lambda tenths: tenths / 8)  # exact in binary: bins have no rounding to hide behind


@given(st.lists(TENTHS), st.integers(-8, 0).map(lambda start: start / 4))
def test_tokens_are_counted_in_the_second_in_which_they_come(times: list[float], start: float) -> None:
    series = TokenSeries.of_tokens("token times", np.array(times, np.float64))
    counted = [sum(start + second <= time < start + second + 1 for time in times) for second in range(30)]
    assert series.per_second(start, 30).tolist() == counted
    assert sum(counted) == len(times)


@given(st.lists(st.tuples(TENTHS, st.integers(1, 40), st.integers(0, 50))), st.integers(-8, 0))
def test_rates_are_shared_out_by_overlap(spans: list[tuple[float, int, int]], quarter: int) -> None:
    start = quarter / 4
    starts, lengths, tokens = (np.array(side, np.float64) for side in (zip(*spans, strict=True) if spans else [()] * 3))
    series = TokenSeries.of_rates(starts, starts + lengths / 8, tokens)
    expected = []
    for second in range(40):
        low, high, total = start + second, start + second + 1, 0.0
        for begin, eighths, count in spans:
            end = begin + eighths / 8
            total += count * max(min(high, end) - max(low, begin), 0) / (end - begin)
        expected.append(total)
    assert series.per_second(start, 40) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.tuples(TENTHS, TENTHS, st.integers(1, 30)), min_size=1))
def test_spread_tokens_run_evenly_from_first_to_last(requests: list[tuple[float, float, int]]) -> None:
    firsts = np.array([first for first, _, _ in requests])
    lasts = np.array([first + more * (count > 1) for first, more, count in requests])
    series = TokenSeries.of_spread(firsts, lasts, np.array([count for _, _, count in requests]))
    times = [
        time for first, last, (_, _, count) in zip(firsts, lasts, requests, strict=True)
        for time in np.linspace(first, last, count)
    ]  # fmt: skip
    assert series.times_s == pytest.approx(sorted(times))
    assert series.totals.tolist() == list(range(1, len(times) + 1))


def test_a_chunk_of_the_stream_counts_as_many_tokens_as_it_held() -> None:
    series = TokenSeries.of_tokens("token times", np.array([0.5, 0.1]), np.array([4.0, 1.0]))
    assert series.per_second(0.0, 2).tolist() == [5.0, 0.0]
    assert series.per_second(0.25, 1).tolist() == [4.0]


def test_nothing_came_out_of_nothing() -> None:
    empty = TokenSeries.of_tokens("token times", np.empty(0))
    assert empty.end_s == 0.0
    assert empty.per_second(0.0, 3).tolist() == [0.0, 0.0, 0.0]
