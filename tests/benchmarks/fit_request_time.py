"""Fits what vLLM 0.15.1 adds to its kernels, and says how far the predictions are from real runs.

    python -m tests.benchmarks.fit_request_time DATA

DATA is a folder with ``blis_vllm0151_NOLICENCE`` (five request logs, and statistics of other runs: vLLM behind HTTP on
H100) and ``aiconfigurator`` (kernel tables) in it. Two numbers are fitted on a grid, one after the other, to the first
two minutes of every stage; each run, or log, is then predicted by what is fitted to the others:

- ``sampling_us``, to the runs of which statistics are known: the sum over their stages of the absolute relative errors
  of mean latency is least. Two simulations of each, with and without, and a straight line between them.
- ``request_us``, to the logs: the sum of the median absolute error of TTFT, request by request, is least.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[2]))

from simloop import load_scenario, simulate
from simloop.explore import RunLog
from simloop.hardware.profile import VLLM_0_15
from tests.benchmarks.accuracy import arrived_in
from tests.benchmarks.blis_runs import blis_logs, blis_stages
from tests.benchmarks.cases import Case, timed

Floats = npt.NDArray[np.float64]
METRICS = ("ttft_s", "tpot_s", "e2e_s")
GRID_US = np.arange(2_500.0, 12_501.0, 250.0)
SAMPLING_US = np.arange(0.0, 30.1, 0.5)
TRIED_US = 12.0
SECONDS = 120.0


class Log:
    """One log, and what is predicted of its requests, seconds, with what the package has for ``request_us``."""

    def __init__(self, name: str, real: dict[str, Floats], ours: dict[str, Floats]) -> None:
        self.name, self.real, self.ours = name, real, ours

    def error(self, metric: str, request_us: float) -> float:
        """Return the median absolute error, request by request; the way to the queue adds to TTFT and latency."""
        later = 0.0 if metric == "tpot_s" else (request_us - VLLM_0_15.request_us) / 1e6
        return float(np.median(np.abs((self.ours[metric] + later) / self.real[metric] - 1)))


def best(logs: list[Log]) -> float:
    """Return the ``request_us`` with the least errors of TTFT over some logs."""
    return float(min(GRID_US, key=lambda us: sum(log.error("ttft_s", us) for log in logs)))


def read(data: Path, sampling_us: float) -> list[Log]:
    """Simulate the first two minutes of every stage of every log, with what was fitted for sampling."""
    logs = []
    for name, real, scenario in blis_logs(data / "blis_vllm0151_NOLICENCE", seconds=SECONDS):
        ours = RunLog.of_result(simulate(load_scenario(with_sampling(scenario, sampling_us))))
        columns = [{metric: log.values(metric) for metric in METRICS} for log in (real, ours)]
        logs.append(Log(name, *columns))
    return logs


class Run:
    """One run of which statistics are known: measured mean latencies of its stages, and predicted ones, seconds."""

    def __init__(self, case: Case) -> None:
        self.name = f"{case.model}, {case.device}: {case.parts[0].name.removesuffix(', stage 0)')})"
        parts = [part for part in case.parts if ", stage " in part.name]
        self.model = case.model
        self.real = np.array([part.real.reported["e2e", "mean"] for part in parts])
        logs = [predicted(case, sampling_us) for sampling_us in (0.0, TRIED_US)]
        self.ends = [np.array([arrived_in(log, part).values("e2e_s").mean() for part in parts]) for log in logs]

    def errors(self, sampling_us: float) -> Floats:
        """Return the relative errors of the stages' mean latency, percent."""
        without, tried = self.ends
        ours: Floats = without + (tried - without) * sampling_us / TRIED_US
        return np.asarray(100 * (ours / self.real - 1), dtype=np.float64)


def predicted(case: Case, sampling_us: float) -> RunLog:
    """Simulate a run with another ``sampling_us``."""
    with tempfile.TemporaryDirectory() as folder:
        scenario = with_sampling(case.scenario(Path(folder)), sampling_us)
        return RunLog.of_result(simulate(load_scenario(scenario)))


def with_sampling(scenario: dict[str, Any], sampling_us: float) -> dict[str, Any]:
    """Return a scenario with another ``sampling_us``."""
    overheads = msgspec.structs.replace(VLLM_0_15, sampling_us=sampling_us)
    timing = {**scenario["workers"][0]["timing"], "overheads": msgspec.to_builtins(overheads)}
    return timed(scenario, timing)


def best_sampling(runs: list[Run]) -> float:
    """Return the ``sampling_us`` with the least errors of latency over some runs."""
    return float(min(SAMPLING_US, key=lambda us: sum(np.abs(run.errors(us)).sum() for run in runs)))


def fit_sampling(runs: list[Run]) -> float:
    """Fit to all runs, to all but one, and to the other models alone; print the errors of each, return the first."""
    shared = best_sampling(runs)
    print(f"all runs: sampling_us {shared:g}; errors of mean latency by stage, percent")
    for run in runs:
        others = best_sampling([one for one in runs if one is not run])
        elsewhere = best_sampling([one for one in runs if one.model != run.model])
        texts = [", ".join(f"{error:+.1f}" for error in run.errors(us)) for us in (0.0, shared, others, elsewhere)]
        print(f"  {run.name}: without {texts[0]}; {texts[1]}; fitted without the run ({others:g}) {texts[2]}; ", end="")
        print(f"without its model ({elsewhere:g}) {texts[3]}")
    return shared


def main() -> None:
    """Fit both numbers, and print what they leave."""
    data = Path(sys.argv[1])
    sampling = fit_sampling([Run(case) for case in blis_stages(data / "blis_vllm0151_NOLICENCE", SECONDS)])
    logs = read(data, sampling)
    shared = best(logs)
    print(f"all logs: request_us {shared:g}; median absolute error of TTFT, TPOT, latency, percent")
    for log in logs:
        others = best([one for one in logs if one is not log])
        inside, outside = ([f"{100 * log.error(metric, us):.1f}" for metric in METRICS] for us in (shared, others))
        print(f"  {log.name}: {', '.join(inside)}; fitted without it ({others:g}): {', '.join(outside)}")


if __name__ == "__main__":
    main()
