"""How long requests are."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.workload import open_workload


def sides(lengths: dict[str, Any], requests: int = 50_000, *, seed: int = 0) -> tuple[list[int], list[int]]:
    spec = {"requests": requests, "arrivals": {"process": "burst"}, "lengths": lengths}
    rows = list(open_workload(spec, seed=seed))
    return [row.prompt_tokens for row in rows], [row.output_tokens for row in rows]


def test_fixed() -> None:
    assert sides({"input": 512, "output": 64}, 3) == ([512] * 3, [64] * 3)


def test_uniform_takes_every_length_equally_often() -> None:
    lengths, _ = sides({"input": {"distribution": "uniform", "min": 3, "max": 7}, "output": 1})
    assert set(lengths) == {3, 4, 5, 6, 7}
    assert all(lengths.count(one) / len(lengths) == pytest.approx(0.2, abs=0.01) for one in range(3, 8))


def test_uniform_between_equal_limits_is_fixed() -> None:
    assert set(sides({"input": {"distribution": "uniform", "min": 9, "max": 9}, "output": 1}, 100)[0]) == {9}


def test_normal() -> None:
    lengths, _ = sides({"input": {"distribution": "normal", "mean": 500, "std": 50}, "output": 1})
    assert statistics.fmean(lengths) == pytest.approx(500, rel=0.005)
    assert statistics.pstdev(lengths) == pytest.approx(50, rel=0.02)
    assert sum(length < 450 for length in lengths) / len(lengths) == pytest.approx(0.1587, abs=0.01)


def test_lognormal_has_the_mean_and_deviation_of_the_lengths_themselves() -> None:
    lengths, _ = sides({"input": {"distribution": "lognormal", "mean": 500, "std": 250}, "output": 1})
    assert statistics.fmean(lengths) == pytest.approx(500, rel=0.01)
    assert statistics.pstdev(lengths) == pytest.approx(250, rel=0.03)
    assert statistics.median(lengths) == pytest.approx(500 / math.sqrt(1.25), rel=0.01)


@settings(max_examples=60, deadline=None)
@given(
    distribution=st.sampled_from(["normal", "lognormal"]),
    mean=st.floats(0.1, 1e6),
    std=st.floats(0, 1e6),
    least=st.integers(1, 1_000),
    width=st.integers(0, 1_000) | st.none(),
)
def test_no_length_leaves_its_limits(distribution: str, mean: float, std: float, least: int, width: int | None) -> None:
    most = None if width is None else least + width
    spec = {"distribution": distribution, "mean": mean, "std": std, "min": least, "max": most}
    for side in sides({"input": spec, "output": spec}, 200):
        assert all(type(length) is int for length in side)
        assert min(side) >= least
        assert most is None or max(side) <= most


def test_what_is_outside_the_limits_is_moved_to_them() -> None:
    spec = {"distribution": "normal", "mean": 100, "std": 50, "min": 100, "max": 150}
    lengths, _ = sides({"input": spec, "output": 1})
    assert lengths.count(100) / len(lengths) == pytest.approx(0.5, abs=0.02)
    assert lengths.count(150) / len(lengths) == pytest.approx(0.1587 + 0.004, abs=0.01)


def test_both_sides_are_drawn_independently() -> None:
    spec = {"distribution": "normal", "mean": 1000, "std": 100}
    one, other = sides({"input": spec, "output": spec})
    assert abs(statistics.correlation(one, other)) < 0.02


def test_lengths_of_a_file_come_in_order_and_again(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("input_tokens,output_tokens\n1,10\n2,20\n3,30\n")
    assert sides({"path": str(path)}, 7) == ([1, 2, 3, 1, 2, 3, 1], [10, 20, 30, 10, 20, 30, 10])


def test_lengths_of_a_file_need_no_times_nor_order(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n9.5,1,10\nnonsense,2,20\n")
    assert sides({"path": str(path), "format": "vidur"}, 3)[0] == [1, 2, 1]


def test_times_of_one_file_and_lengths_of_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text("arrival_s\n" + "".join(f"{number / 8}\n" for number in range(5_000)))
    spec = {"arrivals": {"process": "trace", "path": "times.csv", "rate_scale": 2}, "lengths": {"preset": "sharegpt"}}
    workload = open_workload(spec, seed=0, base_dir=tmp_path)
    rows = list(workload)
    assert [row.arrival_ns for row in rows] == [number * 62_500_000 for number in range(5_000)]
    assert [row.prompt_tokens for row in rows] == sides({"preset": "sharegpt"}, 5_000)[0]
    assert workload.total == 5_000
    assert len(list(open_workload({**spec, "requests": 10}, seed=0, base_dir=tmp_path))) == 10
