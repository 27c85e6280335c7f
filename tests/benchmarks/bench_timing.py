"""What a call of each timing model costs, and how long their tables take to read.

    python tests/benchmarks/bench_timing.py DATA

DATA is a folder with ``llmservingsim`` (layer profiles) and ``aiconfigurator`` (kernel tables) in it. Calls are timed
after warm-up, on contexts that grow as they do while serving.
"""

from __future__ import annotations

import sys
import time
import timeit
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from simloop.hardware import Roofline, Shape, TimingModel, load_device
from simloop.hardware.profile import VLLM_0_19, DomainWarning, KernelTiming, ProfileTiming
from simloop.model import load_model

T = TypeVar("T")

EQUAL = [Shape.decode(128, 700 + step) for step in range(200)]
UNEQUAL = [Shape.mixed([], [300 + 8 * place + step for place in range(128)]) for step in range(200)]
MIXED = [Shape.mixed([(512 + step, 64)], [700 + step] * 63) for step in range(200)]


def timed(what: str, make: Callable[[], T]) -> T:
    """Print how long it takes to make something; return it."""
    start = time.perf_counter()
    made = make()
    print(f"{what}: {time.perf_counter() - start:.2f} s")
    return made


def call_ns(timing: TimingModel, shapes: list[Shape]) -> float:
    """Return the time of one call, nanoseconds: the best of seven."""
    ask = timing.iteration_ns

    def calls() -> None:
        for shape in shapes:
            ask(shape)

    calls()
    return min(timeit.repeat(calls, number=50, repeat=7)) / 50 / len(shapes) * 1e9


def main() -> None:
    warnings.simplefilter("ignore", DomainWarning)
    data, model, device = Path(sys.argv[1]), load_model("llama-3.1-8b"), load_device("h100-sxm-80gb")
    profiles = data / "llmservingsim/calib/vllm_profiler/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16"
    models: dict[str, TimingModel] = {
        "roofline": Roofline(model, device),
        "profile": timed("layer profiles", lambda: ProfileTiming(profiles, model)),
        "profile, vLLM 0.19": ProfileTiming(profiles, model, overheads=VLLM_0_19),
        "kernels": timed("kernel tables", lambda: KernelTiming(data / "aiconfigurator/calib/h100_sxm", model, device)),
    }
    print(f"\n{'ns a call':<20}{'decode, equal':>16}{'unequal':>12}{'with a prompt':>16}")
    for name, timing in models.items():
        costs = [call_ns(timing, shapes) for shapes in (EQUAL, UNEQUAL, MIXED)]
        print(f"{name:<20}{costs[0]:>16.0f}{costs[1]:>12.0f}{costs[2]:>16.0f}")


if __name__ == "__main__":
    main()
