"""Fits the overheads of vLLM 0.19 to real runs, and says how far the predictions are from them.

    python tests/benchmarks/fit_overheads.py DATA [--check]

DATA is a folder with ``llmservingsim`` in it (layer profiles of vLLM 0.19 and two runs of 300 requests on RTX PRO 6000
cards: Llama-3.1-8B on one, Qwen3-32B on two). Three numbers of the engine are shared by all runs: ``step_us``,
``prefill_us``, ``first_step_us``. One belongs to the machine of the second run, the latency of the link between its
cards, which nobody measured by itself. Minimised are the squared relative errors of mean, p50, p90 and p99 of TTFT,
TPOT and latency over the accuracy that is wanted of each, on a grid; one run is then left out in turn. ``--check``
prints the errors of what the package has.

The clients' send times go in; the engine reads its queue between steps. As vLLM stamps it, TTFT and latency count from
the reading (``queued_ts``); the last column counts from the sending. Blocks are what vLLM had; waves are no preemption.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import attrs
import msgspec
import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[2]))

from simloop.hardware.profile import VLLM_0_19, Bundle, Overheads, ProfileTiming, RingLink, load_bundle
from simloop.model import load_model
from tests.hardware.async_engine import AsyncEngine, Blocks, Run

Floats = npt.NDArray[np.float64]

STEPS = [50.0 * place for place in range(2, 10)]
PREFILLS = [250.0 * place for place in range(18, 27)]
LATENCY = 18.5
LATENCIES = [LATENCY - 0.5, LATENCY, LATENCY + 0.5]
WANTED = {"TTFT": [2.0, 4.0, 2.0, 2.0], "TPOT": [1.5] * 4, "latency": [1.0] * 4}
"""The accuracy that is wanted, percent: errors are weighed by it."""


@attrs.define
class Case:
    """One real run: what came in, what came out, and the profiles to predict it from."""

    name: str
    model: str
    bundle: Bundle
    blocks: int
    tp: int
    requests: list[dict[str, Any]]
    hashes: list[list[int]]
    output_tokens: Floats

    @classmethod
    def read(cls, data: Path, name: str, profile: str, model: str, blocks: int, tp: int) -> Case:
        folder = data / "llmservingsim/dev/bench_vllm019/RTXPRO6000" / name
        requests = sorted(read_jsonl(folder / "requests.jsonl.gz"), key=lambda r: int(r["request_id"].split("-")[1]))
        hashes = [row["hash_ids"] for row in read_jsonl(folder / "block_hashes.jsonl.gz")]
        bundle = load_bundle(data / "llmservingsim/calib/vllm_profiler/RTXPRO6000" / profile / "bf16", tp=tp)
        offset = min(r["queued_ts"] - r["arrival_time"] for r in requests)  # two clocks: the shortest way is no way
        start = requests[0]["arrival_time"] + offset
        for request in requests:
            request["sent"] = request["arrival_time"] + offset - start
            for stamp in ("queued", "first_token", "last_token"):
                request[stamp] = request[f"{stamp}_ts"] - start
        with gzip.open(folder / "timeseries.csv.gz", "rt") as stream:
            rates = np.array([float(row["gen_throughput"]) for row in csv.DictReader(stream)])
        return cls(name, model, bundle, blocks, tp, requests, hashes, rates)

    def predict(self, overheads: Overheads, latency_us: float) -> tuple[list[Run], AsyncEngine]:
        """Serve the run's requests; return them, and the engine."""
        link = RingLink(bandwidth_gib_s=16, latency_us=latency_us, memory_bandwidth_gb_s=1597) if self.tp > 1 else None
        timing = ProfileTiming(self.bundle, load_model(self.model), tp=self.tp, all_reduce=link, overheads=overheads)
        runs = [
            Run(place, round(1e9 * request["sent"]), request["input_toks"], request["output_toks"], hashes)
            for place, (request, hashes) in enumerate(zip(self.requests, self.hashes, strict=True))
        ]
        engine = AsyncEngine(
            timing.iteration_ns,
            Blocks(self.blocks),
            depth=2 if overheads.async_scheduling else 1,
            first_step_ns=round(1e3 * overheads.first_step_us),
        )
        engine.serve(runs)
        return runs, engine

    def throughput_error(self, engine: AsyncEngine) -> float:
        """Return the sum of absolute differences of output tokens a second over their sum, percent."""
        seconds, counts = np.array(engine.tokens, dtype=float).T
        theirs = self.output_tokens
        bins = np.arange(len(theirs) + 1)
        ours = np.histogram(seconds / 1e9 - self.requests[0]["sent"], bins, weights=counts)[0]
        return float(100 * np.abs(ours - theirs).sum() / theirs.sum())

    def real(self) -> dict[str, Floats]:
        """Return what was measured for each request, seconds."""
        columns = ("sent", "queued", "first_token", "last_token", "output_toks")
        return measures([np.array([request[column] for request in self.requests]) for column in columns])


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt") as stream:
        return [json.loads(line) for line in stream]


def measures(columns: list[Floats]) -> dict[str, Floats]:
    """Return seconds, from times of sending, reading, first and last token, and numbers of output tokens."""
    sent, queued, first, last, tokens = columns
    return {
        "TTFT": first - queued,
        "TPOT": (last - first) / (tokens - 1),
        "latency": last - queued,
        "TTFT from sending": first - sent,
        "last": last,
    }


def predicted(runs: list[Run]) -> dict[str, Floats]:
    stamps = ("arrival_ns", "queued_ns", "first_ns", "end_ns")
    seconds = [np.array([getattr(run, stamp) for run in runs]) / 1e9 for stamp in stamps]
    return measures([*seconds, np.array([float(run.output) for run in runs])])


def statistics(values: Floats) -> Floats:
    return np.array([values.mean(), *np.percentile(values, [50, 90, 99])])


def errors(case: Case, overheads: Overheads, latency_us: float) -> Floats:
    """Return the relative errors of mean, p50, p90 and p99 of TTFT, TPOT and latency, percent."""
    ours, theirs = predicted(case.predict(overheads, latency_us)[0]), case.real()
    return np.concatenate([100 * (statistics(ours[name]) / statistics(theirs[name]) - 1) for name in WANTED])


def with_numbers(step_us: float, prefill_us: float, first_us: float) -> Overheads:
    return msgspec.structs.replace(VLLM_0_19, step_us=step_us, prefill_us=prefill_us, first_step_us=first_us)


def first_step_us(case: Case, prefill_us: float) -> float:
    """Return how much longer the first request took than predicted; nothing else ran beside it."""
    runs, _ = case.predict(with_numbers(0.0, prefill_us, 0.0), LATENCY)
    return 1e6 * float(case.real()["TTFT"][0]) - (runs[0].first_ns - runs[0].queued_ns) / 1e3


Table = dict[str, dict[tuple[float, float, float], Floats]]


def tabulate(cases: list[Case], first_us: float) -> Table:
    """Return the errors of every case for every combination of numbers."""
    table: Table = {}
    for case in cases:
        latencies = LATENCIES if case.tp > 1 else [0.0]
        table[case.name] = {
            (step, prefill, latency): errors(case, with_numbers(step, prefill, first_us), latency)
            for step, prefill, latency in itertools.product(STEPS, PREFILLS, latencies)
        }
    return table


def best(table: Table, names: list[str]) -> tuple[float, float]:
    """Return ``step_us`` and ``prefill_us`` with the least squared errors over some runs."""

    def cost(pair: tuple[float, float]) -> float:
        return sum(squared(table[name], pair)[0] for name in names)

    return min(itertools.product(STEPS, PREFILLS), key=cost)


def squared(errors_of: dict[tuple[float, float, float], Floats], pair: tuple[float, float]) -> tuple[float, float]:
    """Return the weighed squared errors at the best latency of the link, and that latency."""
    wanted = np.concatenate(list(WANTED.values()))
    return min((float(((found / wanted) ** 2).sum()), key[2]) for key, found in errors_of.items() if key[:2] == pair)


def show(case: Case, overheads: Overheads, latency_us: float) -> None:
    """Print every error of one run."""
    runs, engine = case.predict(overheads, latency_us)
    ours, theirs = predicted(runs), case.real()
    print(f"  {case.name}: errors of mean, p50, p90, p99, and mean absolute error per request (percent)")
    for name in (*WANTED, "TTFT from sending"):
        relative = 100 * (statistics(ours[name]) / statistics(theirs[name]) - 1)
        per_request = 100 * np.abs(ours[name] / theirs[name] - 1).mean()
        print(f"    {name:<18}" + "".join(f"{error:8.2f}" for error in relative) + f"{per_request:9.2f}")
    print(f"    makespan          {100 * (ours['last'].max() / theirs['last'].max() - 1):8.2f}")
    print(f"    output tokens in each second, weighed: {case.throughput_error(engine):.1f}")


def fit(cases: list[Case]) -> None:
    firsts = {case.name: first_step_us(case, VLLM_0_19.prefill_us) for case in cases}
    print("first step longer by, ms:", {name: round(us / 1e3, 1) for name, us in firsts.items()})
    first = sum(firsts.values()) / len(firsts)
    table = tabulate(cases, first)
    names = [case.name for case in cases]
    shared = best(table, names)
    print(f"all runs: step_us {shared[0]:g}, prefill_us {shared[1]:g}, first_step_us {first:.0f}")
    for case in cases:
        inside, latency = squared(table[case.name], shared)
        others = best(table, [name for name in names if name != case.name])
        outside, _ = squared(table[case.name], others)
        rms = [np.sqrt(total / 12) for total in (inside, outside)]
        print(
            f"  {case.name}: rms of 12 errors over the wanted {rms[0]:.2f}; fitted without it (step_us {others[0]:g}, ",
            end="",
        )
        print(f"prefill_us {others[1]:g}) {rms[1]:.2f}, {rms[1] / rms[0]:.2f} times" + link_note(case, latency))
        show(case, with_numbers(*shared, first), latency)


def link_note(case: Case, latency_us: float) -> str:
    return f"; link latency {latency_us:g} us" if case.tp > 1 else ""


def main() -> None:
    data = Path(sys.argv[1])
    cases = [
        Case.read(data, "Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "llama-3.1-8b", 36_578, 1),
        Case.read(data, "Qwen3-32B", "Qwen/Qwen3-32B", "qwen3-32b", 28_614, 2),
    ]
    if "--check" in sys.argv:
        for case in cases:
            show(case, VLLM_0_19, LATENCY)
    else:
        fit(cases)


if __name__ == "__main__":
    main()
