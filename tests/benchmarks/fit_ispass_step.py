"""How long a step of the A6000 series takes beyond its kernels: ``step_us`` of ``ispass_runs.py``.

    python -m tests.benchmarks.fit_ispass_step [DATA]

First by the errors of all four runs, and of each by what the other three choose. Then read off while requests run out.
After the last arrival all requests decode, and each step gives each of them a token. So the tokens of each second tell
how many steps it had and how many requests were in them, if every request is served from its arrival on; nothing is
simulated. Printed beside the kernels' sum for as many requests of as long a context, for PDD, whose decode instance
does nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from simloop.hardware import Shape, load_device
from simloop.hardware.profile import KernelTiming, Overheads
from simloop.model import load_model
from tests.benchmarks.accuracy import DATA, outcomes_of
from tests.benchmarks.cases import Case
from tests.benchmarks.ispass_runs import OVERHEADS, ispass_cases

STEPS_US = (500, 1_000, 1_500, 2_000, 2_500, 3_000)

QUIET_S = 32
"""By then the last prompt has been read and its keys and values have arrived."""


class Second(NamedTuple):
    """One second of a series: how long a step took, with how many requests, of which mean context."""

    step_ms: float
    requests: float
    context: float


def main() -> None:
    """Print both."""
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else DATA
    by_error(data / "llmservingsim")
    by_reading(data / "llmservingsim")


def by_error(folder: Path) -> None:
    """Print the WAPE of each run for each time of a step, and for that with which the others are best."""
    errors = {step_us: list(wapes(folder, step_us)) for step_us in STEPS_US}
    names = [name for name, _ in errors[STEPS_US[0]]]
    print(f"{'step us':>9}{''.join(f'{name:>8}' for name in names)}{'mean':>8}")
    for step_us, found in errors.items():
        values = [wape for _, wape in found]
        print(f"{step_us:>9}{''.join(f'{100 * wape:>8.1f}' for wape in values)}{100 * np.mean(values):>8.1f}")
    for place, name in enumerate(names):
        others = {us: sum(wape for at, (_, wape) in enumerate(found) if at != place) for us, found in errors.items()}
        best = min(others, key=others.__getitem__)
        print(f"{name}: the others are best at {best}, where it is {100 * errors[best][place][1]:.1f} %")


def wapes(folder: Path, step_us: float) -> Iterator[tuple[str, float]]:
    """Yield the name and the WAPE of each run."""
    for case in ispass_cases(folder, {**OVERHEADS, "step_us": step_us}):
        if isinstance(case, Case):
            for outcome in outcomes_of(case):
                yield outcome.part.name, outcome.wape or 0.0


def by_reading(folder: Path) -> None:
    """Print steps of the real run beside the kernels' sum, and the median of what is between them."""
    tables = folder / "calib/v0_profiler/A6000/meta-llama/Llama-3.1-8B/tp1"
    overheads = Overheads(largest_graph=512, attention_per_prompt=True)
    timing = KernelTiming(tables, load_model("llama-3.1-8b"), load_device("rtx-a6000-48gb"), overheads=overheads)
    print(f"{'requests':>9}{'context':>9}{'real ms':>9}{'kernels ms':>12}{'between':>9}")
    more = []
    for second in seconds(folder / "dev/ispass26_real"):
        kernels_ms = timing.iteration_ns(Shape.decode(round(second.requests), round(second.context))) / 1e6
        more.append(second.step_ms - kernels_ms)
        print(f"{second.requests:>9.1f}{second.context:>9.0f}{second.step_ms:>9.1f}{kernels_ms:>12.1f}{more[-1]:>9.1f}")
    low, median, high = np.quantile(more, [0.25, 0.5, 0.75])
    print(f"median {median:.1f} ms, half of them {low:.1f} to {high:.1f}")


def seconds(folder: Path) -> Iterator[Second]:
    """Yield the seconds of PDD in which at least two requests were left and none came."""
    series = pl.read_csv(folder / "figure_5/A6000/reference/PDD_throughput.tsv", separator="\t")
    rows = pl.read_csv(folder / "workloads/sharegpt_req300_rate10_llama.csv.gz")
    waiting = [(ns / 1e9, prompt, output) for ns, prompt, output in rows.select(rows.columns[1:4]).iter_rows()]
    running: list[list[int]] = []
    left = 0.0
    for end_s, tokens in series.iter_rows():
        left += tokens
        steps = served = context = 0
        while waiting and waiting[0][0] < end_s:
            running.append(list(waiting.pop(0)[1:]))
        while running and left >= len(running):
            left -= len(running)
            steps, served = steps + 1, served + len(running)
            context += sum(one[0] for one in running)
            running = [[length + 1, output - 1] for length, output in running if output > 1]
        if end_s > QUIET_S and steps and served >= 2 * steps:
            yield Second(1e3 * served / steps / tokens, served / steps, context / served)


if __name__ == "__main__":
    main()
