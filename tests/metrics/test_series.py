"""Quantities of workers over time, from their samples."""

from __future__ import annotations

import numpy as np
import pytest

from simloop.metrics import Records
from simloop.metrics.series import WorkerSeries


def series() -> WorkerSeries:
    """Two workers of three, sampled in turn: time, running, KV blocks, busy time and iterations differ."""
    records = Records()
    records.sample(1, 10, 4, 1, 8, 10, 40, 0, 0, 10, 10)
    records.sample(0, 10, 2, 0, 4, 10, 20, 0, 0, 10, 5)
    records.sample(0, 110, 6, 0, 2, 10, 80, 0, 2, 30, 20)  # idle for 80 of the 100
    return WorkerSeries.of(records.samples(), num_workers=3)


def test_samples_are_ordered_by_time_then_worker() -> None:
    assert series().samples["worker"].tolist() == [0, 1, 0]


def test_growth_is_counted_per_worker_and_from_zero() -> None:
    assert series().since_last("generated").tolist() == [20, 40, 60]
    assert series().since_last("busy_ns").tolist() == [10, 10, 20]
    assert series().rate("generated", "iterations").tolist() == [4.0, 4.0, 4.0]


def test_means_over_time_count_idle_time_as_nothing() -> None:
    means = series().mean_over_time(series().samples["running"], 110)
    assert means == pytest.approx([(1 * 10 + 4 * 20) / 110, 2 * 10 / 110, 0.0])


def test_peaks_and_totals() -> None:
    assert series().peaks(series().kv_usage).tolist() == [0.4, 0.8, 0.0]
    assert series().totals("preemptions").tolist() == [2, 0, 0]


def test_a_cluster_without_samples() -> None:
    empty = WorkerSeries.of(Records().samples(), num_workers=2)
    assert empty.mean_over_time(np.empty(0), 100).tolist() == [0.0, 0.0]
    assert empty.peaks(empty.kv_usage).tolist() == [0.0, 0.0]
