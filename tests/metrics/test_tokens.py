"""The vectorised token times against every token written out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given

from simloop.metrics import check_conservation
from tests.metrics.reference import Run, runs, small_run


@given(runs())
def test_token_times_of_each_request(run: Run) -> None:
    result = run.result()
    for request in run.requests:
        times = result.token_times(request.id)
        assert (times * 1e9).round().astype(int).tolist() == request.token_ns
        assert result.gaps(request.id) == pytest.approx([gap / 1e9 for gap in request.gaps_ns], abs=1e-12)


@given(runs())
def test_every_gap_is_counted_once(run: Run) -> None:
    gaps = run.result().inter_token_gaps
    written_out = [gap for request in run.finished for gap in request.gaps_ns]
    assert np.repeat(gaps.values, np.diff(gaps.ranks, prepend=0)).tolist() == sorted(written_out)
    assert gaps.count == len(written_out)


@given(runs())
def test_gap_statistics_are_those_of_numpy_over_the_list(run: Run) -> None:
    gaps = run.result().inter_token_gaps
    written_out = [gap for request in run.finished for gap in request.gaps_ns]
    if not written_out:
        assert gaps.mean is gaps.std is gaps.max is gaps.percentile(50) is None
        return
    for percent in (0, 12.5, 50, 90, 95, 99, 99.9, 100):
        assert gaps.percentile(percent) == np.percentile(written_out, percent)
    assert gaps.max == max(written_out)
    assert gaps.mean == pytest.approx(np.mean(written_out), rel=1e-12)
    assert gaps.std == pytest.approx(np.std(written_out), rel=1e-9, abs=1e-3)


@given(runs())
def test_longest_gap_of_each_request(run: Run) -> None:
    result = run.result()
    by_id = sorted(run.requests, key=lambda request: request.id)
    longest = [max(request.gaps_ns, default=-1) for request in by_id]
    assert result.tokens.longest_gaps(len(by_id)).tolist() == longest


@given(runs())
def test_tokens_written_out_counted_and_bounded(run: Run) -> None:
    result = run.result()
    by_id = sorted(run.requests, key=lambda request: request.id)
    rows, times = result.tokens.expand()
    assert list(zip(rows.tolist(), times.tolist(), strict=True)) == [(r.id, time) for r in by_id for time in r.token_ns]
    assert result.tokens.counts(len(by_id)).tolist() == [len(request.token_ns) for request in by_id]
    first, last = result.tokens.bounds(len(by_id))
    assert first.tolist() == [(request.token_ns or [-1])[0] for request in by_id]
    assert last.tolist() == [(request.token_ns or [-1])[-1] for request in by_id]


@given(runs())
def test_tokens_per_second(run: Run) -> None:
    origin_ns = 500_000_000
    seconds, tokens = run.result().tokens.per_second(origin_ns)
    counted = Counter((time - origin_ns) // 10**9 for request in run.requests for time in request.token_ns)
    assert dict(zip(seconds.tolist(), tokens.tolist(), strict=True)) == counted


@given(runs())
def test_a_run_made_up_by_the_rules_breaks_no_law(run: Run) -> None:
    assert check_conservation(run.result(complete=False)) == []


def test_stays_of_unrecorded_requests_are_left_out() -> None:
    run = small_run()
    run.stays += [(7, 0, -1, 0, 4), (-1, 0, -1, 0, 4)]
    assert run.result().tokens.counts(3).tolist() == [6, 1, 0]


def test_unknown_request() -> None:
    with pytest.raises(KeyError, match="no request has the id 3"):
        small_run().result().token_times(3)
