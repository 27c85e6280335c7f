"""What a call of each timing model costs, and how long their tables take to read.

    python tests/benchmarks/bench_timing.py DATA

DATA is a folder with ``llmservingsim`` (layer profiles) and ``aiconfigurator`` (kernel tables) in it. Calls are timed
after warm-up, on contexts that grow as they do while serving, and compared with the roofline's; then whole iterations
of a simulation are.
"""

from __future__ import annotations

import statistics
import sys
import time
import timeit
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import simloop
from simloop.hardware import Roofline, Shape, TimingModel, load_device
from simloop.hardware.profile import VLLM_0_19, DomainWarning, KernelTiming, ProfileTiming
from simloop.model import load_model

T = TypeVar("T")

STEPS = {
    "decode, equal": [Shape.decode(128, 700 + step) for step in range(200)],
    "unequal": [Shape.mixed([], [300 + 8 * place + step for place in range(128)]) for step in range(200)],
    "one prompt": [Shape.mixed([(512 + step, 64)], [700 + step] * 63) for step in range(200)],
    "and unequal": [Shape.mixed([(512 + step, 0)], [300 + 8 * n + step for n in range(63)]) for step in range(200)],
    "four prompts": [
        Shape.mixed([(200 + step, 0), (300, 64), (77, 0), (500, 0)], [300 + 8 * n + step for n in range(63)])
        for step in range(200)
    ],
}


def timed(what: str, make: Callable[[], T]) -> T:
    """Print how long it takes to make something; return it."""
    start = time.perf_counter()
    made = make()
    print(f"{what}: {time.perf_counter() - start:.2f} s")
    return made


def call_ns(timing: TimingModel, shapes: list[Shape]) -> float:
    """Return the time of one call, nanoseconds."""
    ask = timing.iteration_ns

    def calls() -> None:
        for shape in shapes:
            ask(shape)

    calls()
    return min(timeit.repeat(calls, number=10, repeat=3)) / 10 / len(shapes) * 1e9


def ratio(timing: TimingModel, roofline: TimingModel, shapes: list[Shape]) -> float:
    """Return the cost of a call in calls of the roofline: the median of seven measurements side by side."""
    return statistics.median(call_ns(timing, shapes) / call_ns(roofline, shapes) for _ in range(7))


def served_us(timing: dict[str, str]) -> float:
    """Return what a whole iteration of a simulation costs, microseconds of processor time."""
    spec = {
        "model": "llama-3.1-8b",
        "workers": [{"device": "rtx-pro-6000-96gb", "timing": timing}],
        "workload": {
            "requests": 800,
            "arrivals": {"process": "poisson", "rate": 4},
            "lengths": {"preset": "sharegpt"},
        },
    }
    before = time.process_time()
    iterations = simloop.simulate(spec).iterations
    return (time.process_time() - before) * 1e6 / iterations


def main() -> None:
    warnings.simplefilter("ignore", DomainWarning)
    data, model, device = Path(sys.argv[1]), load_model("llama-3.1-8b"), load_device("h100-sxm-80gb")
    profiles = data / "llmservingsim/calib/vllm_profiler/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16"
    roofline = Roofline(model, device)
    models: dict[str, TimingModel] = {
        "profile": timed("layer profiles", lambda: ProfileTiming(profiles, model)),
        "profile, vLLM 0.19": ProfileTiming(profiles, model, overheads=VLLM_0_19),
        "kernels": timed("kernel tables", lambda: KernelTiming(data / "aiconfigurator/calib/h100_sxm", model, device)),
    }
    print("\n" + "".join(f"{title:>16}" for title in ("calls", *STEPS)))
    print(f"{'roofline, ns':<16}" + "".join(f"{call_ns(roofline, shapes):>16.0f}" for shapes in STEPS.values()))
    for name, timing in models.items():
        print(f"{name:<19}" + "".join(f"{ratio(timing, roofline, shapes):>15.2f}x" for shapes in STEPS.values()))
    rows = {"roofline": {}, "profile": {"model": "profile", "path": str(profiles)}}
    costs = [{name: served_us(timing) for name, timing in rows.items()} for _ in range(6)][1:]
    for name in rows:
        times = statistics.median(cost[name] / cost["roofline"] for cost in costs)
        print(f"a served iteration, {name}: {statistics.median(c[name] for c in costs):.2f} us, {times:.2f}x")


if __name__ == "__main__":
    main()
