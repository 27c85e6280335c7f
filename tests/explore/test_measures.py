from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simloop.explore.measures import (
    mean_absolute_percentage_error,
    relative_error,
    weighted_absolute_percentage_error,
)

VALUES = st.just(0.0) | st.floats(1e-6, 1e6)
UNKNOWN = VALUES | st.just(math.nan)


@given(st.lists(st.tuples(UNKNOWN, UNKNOWN)))
def test_mape_is_the_mean_over_known_pairs(pairs: list[tuple[float, float]]) -> None:
    errors = []
    for run, real in pairs:
        if not math.isnan(run) and not math.isnan(real) and real > 0:
            errors.append(abs(run - real) / real)
    found = mean_absolute_percentage_error(np.array([a for a, _ in pairs]), np.array([b for _, b in pairs]))
    assert found == (pytest.approx(sum(errors) / len(errors)) if errors else None)


@given(st.lists(st.tuples(VALUES, VALUES)))
def test_wape_is_all_differences_over_all_that_is_real(bins: list[tuple[float, float]]) -> None:
    apart = total = 0.0
    for run, real in bins:
        apart += abs(run - real)
        total += real
    found = weighted_absolute_percentage_error(np.array([a for a, _ in bins]), np.array([b for _, b in bins]))
    assert found == (pytest.approx(apart / total) if total else None)


@given(VALUES, st.floats(1e-3, 1e6))
def test_relative_error_undoes_itself(run: float, real: float) -> None:
    error = relative_error(run, real)
    assert error is not None
    assert real * (1 + error) == pytest.approx(run, abs=1e-9)


def test_against_nothing_only_nothing_is_right() -> None:
    assert relative_error(0.0, 0.0) == 0.0
    assert relative_error(1.0, 0.0) is None
