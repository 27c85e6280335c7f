"""Fits the way of a request to the engine's queue in vLLM 0.15.1, and says how far the predictions are from it.

    python -m tests.benchmarks.fit_request_time DATA

DATA is a folder with ``blis_vllm0151_NOLICENCE`` (five request logs: vLLM behind HTTP on H100) and ``aiconfigurator``
(kernel tables) in it. One number is fitted, ``request_us``, on a grid: the sum over runs of the median absolute error
of TTFT, request by request, is least. Each log is then predicted by the number that is fitted to the other four. The
first two minutes of each stage are used.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[2]))

from simloop import load_scenario, simulate
from simloop.explore import RunLog
from simloop.hardware.profile import VLLM_0_15
from tests.benchmarks.blis_runs import blis_logs

Floats = npt.NDArray[np.float64]
METRICS = ("ttft_s", "tpot_s", "e2e_s")
GRID_US = np.arange(2_500.0, 12_501.0, 250.0)


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


def read(data: Path) -> list[Log]:
    """Simulate the first two minutes of every stage of every log."""
    logs = []
    for name, real, scenario in blis_logs(data / "blis_vllm0151_NOLICENCE", seconds=120.0):
        ours = RunLog.of_result(simulate(load_scenario(scenario)))
        columns = [{metric: log.values(metric) for metric in METRICS} for log in (real, ours)]
        logs.append(Log(name, *columns))
    return logs


def main() -> None:
    """Fit to all logs and to all but one, and print both errors of each."""
    logs = read(Path(sys.argv[1]))
    shared = best(logs)
    print(f"all logs: request_us {shared:g}; median absolute error of TTFT, TPOT, latency, percent")
    for log in logs:
        others = best([one for one in logs if one is not log])
        inside, outside = ([f"{100 * log.error(metric, us):.1f}" for metric in METRICS] for us in (shared, others))
        print(f"  {log.name}: {', '.join(inside)}; fitted without it ({others:g}): {', '.join(outside)}")


if __name__ == "__main__":
    main()
