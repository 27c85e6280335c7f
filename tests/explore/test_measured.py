"""A published comparison, done again: LLMServingSim 2.0 against vLLM 0.19 (where the data are here)."""

from __future__ import annotations

import pytest

from simloop.explore import compare, real_run
from tests.benchmarks.accuracy import outcomes_of
from tests.benchmarks.cases import Case
from tests.benchmarks.ispass_runs import ispass_cases
from tests.hardware.measured import DATA, needs_data

pytestmark = needs_data

COLUMNS = {
    "arrival_ns": "arrival",
    "ttft_ns": "TTFT",
    "tpot_ns": "TPOT",
    "e2e_ns": "latency",
    "input_tokens": "input",
    "output_tokens": "output",
}


@pytest.mark.parametrize(
    ("model", "per_request", "figures"),
    [
        ("Llama-3.1-8B", (10.8, 1.5, 1.9), {("ttft", "mean"): -3.97, ("tpot", "p99"): 0.64, ("makespan", ""): -1.96}),
        ("Qwen3-32B", (2.6, 0.8, 1.1), {("ttft", "p50"): 1.71, ("e2e", "p99"): 1.26, ("makespan", ""): 1.47}),
    ],
)
def test_errors_are_those_that_were_published(
    model: str, per_request: tuple[float, ...], figures: dict[tuple[str, str], float]
) -> None:
    folder = DATA / "llmservingsim"
    theirs = real_run(folder / f"reference_sim/RTXPRO6000_{model}_sim.csv", columns=COLUMNS)
    comparison = compare(theirs, folder / f"dev/bench_vllm019/RTXPRO6000/{model}")
    assert len(comparison.matching) == 300
    found = [round(error * 100, 1) for error in comparison.per_request.values()]
    assert found == list(per_request)
    for key, percent in figures.items():
        figure = comparison.figure(*key)
        assert figure is not None
        assert figure.error == pytest.approx(percent / 100, abs=6e-5)


def test_the_real_time_series_holds_every_token() -> None:
    log = real_run(DATA / "llmservingsim/dev/bench_vllm019/RTXPRO6000/Llama-3.1-8B")
    assert log.tokens is not None
    assert log.tokens.per_second(log.tokens.grid_s, 80).sum() == pytest.approx(log.requests["output_tokens"].sum())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::simloop.hardware.profile.DomainWarning")
def test_a6000_series_stay_as_close_as_they_are() -> None:
    """Output tokens by second of vLLM on A6000; the page of accuracy says where the rest comes from."""
    found = {}
    for case in ispass_cases(DATA / "llmservingsim"):
        if isinstance(case, Case):
            for outcome in outcomes_of(case):
                found[outcome.part.name] = outcome.wape
    worst = {"MD": 0.045, "SD+PC": 0.095, "PDD": 0.032, "SM": 0.065}
    assert found.keys() == worst.keys()
    assert {name: wape for name, wape in found.items() if wape is None or wape > worst[name]} == {}
