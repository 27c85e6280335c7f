"""Fit what the host of vLLM 0.5 and 0.6 adds to a step, to static batches on one A100 and one H100.

    python -m tests.benchmarks.fit_host_time /path/to/data

The real time of a batch less that of its kernels, for each output token, is ``step_us + sequence_us * batch``: the sum
of absolute deviations is least. Llama-2-7B and Llama-3-8B of ``llm_inference_bench`` alone; Mistral-7B has a sliding
window, for which these versions took other kernels. Prints what each device and model alone would give, and how far
that is from the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import numpy as np

from tests.benchmarks.accuracy import outcomes_of
from tests.benchmarks.cases import Case
from tests.benchmarks.static_batch_runs import static_batch_cases

STEPS_US = np.arange(0, 3001, 50)
SEQUENCES_US = np.arange(0, 121, 1)


@attrs.frozen
class Batch:
    """One static batch, and how much longer than its kernels a step of it took, microseconds."""

    model: str
    device: str
    size: int
    beyond_us: float


def batches(data: Path) -> Iterator[Batch]:
    """Yield the batches that are fitted to, priced by the roofline without anything of the engine."""
    for case in static_batch_cases(data / "llm_inference_bench", overheads="none"):
        if not isinstance(case, Case) or case.by != "roofline" or "x" in case.device or "llama" not in case.model:
            continue
        for outcome in outcomes_of(case):
            makespan, tokens = outcome.figures["makespan", ""], int(outcome.part.name.split()[-1])
            beyond_us = 1e6 * (makespan.real - makespan.run) / tokens
            yield Batch(case.model, case.device, outcome.part.batch or 1, beyond_us)


def fit(some: Sequence[Batch]) -> tuple[int, int]:
    """Return ``step_us`` and ``sequence_us`` of some batches."""
    beyond, sizes = (np.array([getattr(batch, name) for batch in some]) for name in ("beyond_us", "size"))
    misses = np.abs(STEPS_US[:, None, None] + SEQUENCES_US[None, :, None] * sizes - beyond).sum(axis=2)
    step, sequence = np.unravel_index(misses.argmin(), misses.shape)
    return int(STEPS_US[step]), int(SEQUENCES_US[sequence])


def main() -> None:
    """Fit to all, then to each device and model alone."""
    found = list(batches(Path(sys.argv[1])))
    show("all", found, [])
    for attribute in ("device", "model"):
        for value in dict.fromkeys(getattr(batch, attribute) for batch in found):
            alone = [batch for batch in found if getattr(batch, attribute) == value]
            show(value, alone, [batch for batch in found if batch not in alone])


def show(name: str, some: Sequence[Batch], others: Sequence[Batch]) -> None:
    """Print what some batches give, and how far that is from others."""
    step, sequence = fit(some)
    missed = [abs(step + sequence * batch.size - batch.beyond_us) for batch in others]
    rest = f"; {np.median(missed):.0f} us from the others" if others else ""
    print(f"{name:<14} step_us {step:>5}, sequence_us {sequence:>3}{rest}")


if __name__ == "__main__":
    main()
