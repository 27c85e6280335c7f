"""When requests arrive."""

from __future__ import annotations

import statistics
import subprocess
import sys
from fractions import Fraction
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.workload import Arrival, open_workload

FIXED = {"input": 512, "output": 64}
PROCESSES: list[dict[str, Any]] = [
    {"process": "poisson", "rate": 8},
    {"process": "gamma", "rate": 8, "burstiness": 0.25},
    {"process": "constant", "rate": 8},
    {"process": "burst"},
    {"process": "closed_loop", "concurrency": 3},
    {"process": "burst", "size": 10, "every_s": 1.5},
    {"process": "preset", "preset": "azure-conv-2023"},
]


GOLDEN = [(147344793, 1675, 88), (414484818, 6854, 45), (567214251, 1315, 169)]


def times_ns(arrivals: dict[str, Any], requests: int, *, seed: int = 0) -> list[int]:
    spec = {"requests": requests, "arrivals": arrivals, "lengths": FIXED}
    return [arrival.arrival_ns for arrival in open_workload(spec, seed=seed)]


def gaps_s(arrivals: dict[str, Any], requests: int, *, seed: int = 0) -> list[float]:
    return [(later - earlier) / 1e9 for earlier, later in pairwise([0, *times_ns(arrivals, requests, seed=seed)])]


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_there_are_as_many_as_asked_for_in_order_and_whole_ns(process: dict[str, Any]) -> None:
    times = times_ns(process, 10_000)
    assert len(times) == 10_000
    assert times[0] >= 0
    assert all(type(time) is int for time in times)
    assert times == sorted(times)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_a_longer_workload_begins_like_a_shorter_one(process: dict[str, Any]) -> None:
    assert times_ns(process, 9_000)[:100] == times_ns(process, 100)


@pytest.mark.parametrize("process", PROCESSES, ids=str)
def test_iterating_again_gives_the_same_again(process: dict[str, Any]) -> None:
    workload = open_workload({"requests": 5_000, "arrivals": process, "lengths": FIXED}, seed=3)
    first = iter(workload)
    head = list(islice(first, 1_000))
    assert list(workload) == head + list(first)


@pytest.mark.parametrize(
    "process", [one for one in PROCESSES if one["process"] not in ("constant", "burst", "closed_loop")], ids=str
)
def test_another_seed_gives_other_times(process: dict[str, Any]) -> None:
    assert times_ns(process, 10, seed=1) != times_ns(process, 10, seed=2)


def test_poisson_has_its_rate_and_the_variation_of_exponential_gaps() -> None:
    gaps = gaps_s({"process": "poisson", "rate": 8}, 200_000)
    assert statistics.fmean(gaps) == pytest.approx(1 / 8, rel=0.01)
    assert statistics.pstdev(gaps) / statistics.fmean(gaps) == pytest.approx(1, rel=0.01)
    assert sum(gap > 0.25 for gap in gaps) / len(gaps) == pytest.approx(0.1353, abs=0.003)  # exp(-2)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_has_its_rate_and_varies_by_one_over_the_root_of_burstiness(burstiness: float) -> None:
    gaps = gaps_s({"process": "gamma", "rate": 8, "burstiness": burstiness}, 200_000)
    assert statistics.fmean(gaps) == pytest.approx(1 / 8, rel=0.015)
    assert statistics.pstdev(gaps) / statistics.fmean(gaps) == pytest.approx(burstiness**-0.5, rel=0.015)


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-3, 1e6), st.integers(1, 5_000))
def test_constant_times_never_drift(rate: float, requests: int) -> None:
    found = times_ns({"process": "constant", "rate": rate}, requests)
    exact = [Fraction(number) * 10**9 / Fraction(rate) for number in range(requests)]
    assert all(abs(one - other) <= 1 for one, other in zip(found, exact, strict=True))


def test_constant_at_eight_a_second_is_exact_after_a_million() -> None:
    assert times_ns({"process": "constant", "rate": 8}, 1_000_001)[-1] == 125_000 * 10**9


def test_bursts() -> None:
    assert times_ns({"process": "burst"}, 5_000) == [0] * 5_000
    groups = times_ns({"process": "burst", "size": 2, "every_s": 1.5}, 5)
    assert groups == [0, 0, 1_500_000_000, 1_500_000_000, 3_000_000_000]


def test_gaps_of_a_preset_have_its_rate() -> None:
    plain = gaps_s({"process": "preset", "preset": "azure-conv-2023"}, 100_000)
    twice = gaps_s({"process": "preset", "preset": "azure-conv-2023", "rate_scale": 2}, 100_000)
    assert 1 / statistics.fmean(plain) == pytest.approx(5.53, rel=0.01)
    assert sum(plain) / sum(twice) == pytest.approx(2, rel=1e-6)


def test_a_preset_without_times_cannot_give_them() -> None:
    with pytest.raises(
        InputError, match=r"^workload.arrivals.preset: .*arxiv.* has no times; these have: azure-code-2023"
    ):
        times_ns({"process": "preset", "preset": "arxiv-summarization"}, 1)


def test_a_rate_so_low_that_64_bits_overflow_is_said() -> None:
    with pytest.raises(InputError, match="146 years"):
        times_ns({"process": "poisson", "rate": 1e-9}, 10_000)


def test_lengths_do_not_move_arrivals_nor_arrivals_lengths() -> None:
    def columns(arrivals: dict[str, Any], lengths: dict[str, Any]) -> tuple[list[int], list[int], list[int]]:
        rows = list(open_workload({"requests": 5_000, "arrivals": arrivals, "lengths": lengths}, seed=7))
        return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]

    drawn = {"distribution": "lognormal", "mean": 200, "std": 300}
    poisson = columns(PROCESSES[0], {"input": drawn, "output": drawn})
    assert columns(PROCESSES[0], {"preset": "sharegpt"})[0] == poisson[0]
    assert columns(PROCESSES[1], {"input": drawn, "output": drawn})[1:] == poisson[1:]
    assert columns(PROCESSES[0], {"input": 5, "output": drawn})[2] == poisson[2]
    assert poisson[1] != poisson[2]


def test_another_process_draws_the_same() -> None:
    spec = {"requests": 50, "arrivals": PROCESSES[1], "lengths": {"preset": "azure-code-2023"}}
    code = f"from simloop.workload import open_workload\nprint([tuple(a) for a in open_workload({spec!r}, seed=11)])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == str([tuple(arrival) for arrival in open_workload(spec, seed=11)])


def test_a_seed_still_means_what_it_meant() -> None:
    spec = {"requests": 3, "arrivals": PROCESSES[0], "lengths": {"preset": "azure-conv-2023"}}
    found = [arrival[:3] for arrival in open_workload(spec, seed=0)]
    assert found == GOLDEN


def test_an_arrival_is_a_plain_tuple_with_defaults() -> None:
    assert Arrival(1, 2, 3)[:6] == (1, 2, 3, None, 0, None)
    made = next(iter(open_workload({"requests": 1, "arrivals": PROCESSES[3], "lengths": FIXED}, seed=0)))
    assert type(made) is Arrival
    assert made == Arrival(0, 512, 64)
