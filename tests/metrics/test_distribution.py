"""Weighted statistics against numpy over the list that is written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simloop.metrics import Distribution

integers = st.integers(0, 2**50)
floats = st.floats(0, 1e15)


@given(st.lists(st.tuples(integers, st.integers(0, 5)), max_size=30), st.floats(0, 100))
def test_counted_values(pairs: list[tuple[int, int]], percent: float) -> None:
    values, counts = np.array(pairs, np.int64).reshape(-1, 2).T
    check(Distribution.of(values, counts), np.repeat(values, counts), percent)


@given(st.lists(floats, max_size=30), st.floats(0, 100))
def test_single_values(values: list[float], percent: float) -> None:
    check(Distribution.of(np.array(values)), np.array(values), percent)


def check(of: Distribution, written_out: np.ndarray[tuple[int], np.dtype[np.float64]], percent: float) -> None:
    assert of.count == len(written_out)
    if not len(written_out):
        assert of.mean is of.std is of.max is of.percentile(percent) is None
        return
    assert of.percentile(percent) == np.percentile(written_out, percent)
    assert of.max == written_out.max()
    assert of.mean == pytest.approx(written_out.mean(), rel=1e-12)
    assert of.std == pytest.approx(written_out.std(), rel=1e-6, abs=1e-6 * float(of.max or 0))


def test_many_repetitions_are_not_written_out() -> None:
    of = Distribution.of(np.array([3, 1]), np.array([10**12, 10**12]))
    assert (of.count, of.mean, of.std, of.percentile(50)) == (2 * 10**12, 2.0, 1.0, 2.0)
