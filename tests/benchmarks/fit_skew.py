"""Fit what the ranks of an engine wait for each other at every exchange: ``skew_us`` of a card's interconnect.

    python -m tests.benchmarks.fit_skew

Llama-3.1-70B in FP8 under InferenceX: scheduling overlaps there, sampling is greedy, and one GPU is met within 2 %.
What is missing in TPOT at TP 2, 4 and 8, with few clients, is divided by the exchanges of a step and log2 of the ranks.
Qwen3-32B in bfloat16, whose runs schedule between steps, is what it is checked with.
"""

from __future__ import annotations

import statistics
import sys
import warnings
from collections import defaultdict
from math import log2
from pathlib import Path

from simloop.hardware import load_device
from simloop.model import Collective, Plan, load_model, shard
from tests.benchmarks.accuracy import DATA, outcomes_of
from tests.benchmarks.cases import Case, Gap
from tests.benchmarks.silicon_runs import silicon_cases

_MOST_CLIENTS = 16
_CARDS = {"H100": "h100-sxm-80gb", "H200": "h200-sxm-141gb"}


def main() -> None:
    """Print what is missing per exchange and doubling, by model, device and ranks, and its medians."""
    if not (DATA / "aiconfigurator").is_dir():
        print(f"there is no folder {str(DATA / 'aiconfigurator')!r}", file=sys.stderr)
        sys.exit(2)
    warnings.simplefilter("ignore")
    found = missing(DATA / "aiconfigurator")
    for key, values in sorted(found.items()):
        print(f"{' '.join(map(str, key)):34s} {statistics.median(values):6.2f} us   {len(values)} runs")
    for model in dict.fromkeys(model for model, _, _ in found):
        for card in (*_CARDS.values(), ""):
            chosen = [one for (name, on, _), all_ in found.items() if name == model and card in on for one in all_]
            if chosen:
                print(f"{model}, {card or 'all'}: median {statistics.median(chosen):.2f} us")


def missing(data: Path) -> dict[tuple[str, str, int], list[float]]:
    """Return microseconds per exchange and doubling of ranks, by model, card and ranks."""
    found: defaultdict[tuple[str, str, int], list[float]] = defaultdict(list)
    for case in silicon_cases(data, everything=True):
        if isinstance(case, Gap) or case.by != "kernel tables" or "TP" not in case.device or "EP" in case.device:
            continue
        if case.model in ("llama-3.1-70b-fp8", "qwen3-32b") and (case.parts[0].batch or 0) <= _MOST_CLIENTS:
            card, ranks = _CARDS[case.device[4:8]], int(case.device.rpartition(" ")[2])
            found[case.model, card, ranks].append(_missing(case, card, ranks))
    return found


def _missing(case: Case, card: str, ranks: int) -> float:
    figure = next(iter(outcomes_of(case))).figures.get(("tpot", "mean"))
    operators = shard(load_model(case.model), Plan(tensor_parallel=ranks))[0].operators
    exchanges = sum(calls for operator, calls in operators if isinstance(operator, Collective))
    late_us = 0.0 if figure is None else 1e6 * (figure.real - figure.run)
    return late_us / exchanges / log2(ranks) + load_device(card).links().skew_us


if __name__ == "__main__":
    main()
