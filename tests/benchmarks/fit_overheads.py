"""Fits the overheads of vLLM 0.19 to real runs, and says how far the predictions are from them.

    python tests/benchmarks/fit_overheads.py DATA [--check]

DATA is a folder with ``llmservingsim`` in it (layer profiles of vLLM 0.19 and two runs of 300 requests on RTX PRO 6000
cards: Llama-3.1-8B on one, Qwen3-32B on two). Two numbers of the engine are shared by all runs: ``prefill_layer_us``
and ``first_step_us``. Minimised are the squared relative errors of mean, p50, p90 and p99 of TTFT, TPOT and latency,
and of the mean absolute error of TTFT per request, over the accuracy that is wanted of each, on a grid; one run is then
left out in turn. ``--check`` prints the errors of what the package has.

Not fitted with them: ``step_us``, as the runs do not tell 100 from 0 or 200; and the link between the two cards of the
second run, which nobody measured by itself. Its latency is what gives the last ten requests their TPOT: no prompt was
read beside them. That of small messages is what the iterations of the last two requests leave for it.

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

from simloop.hardware import load_device
from simloop.hardware.profile import VLLM_0_19, Bundle, Overheads, ProfileTiming, RingLink, load_bundle
from simloop.model import load_model
from tests.hardware.async_engine import AsyncEngine, Blocks, Run

Floats = npt.NDArray[np.float64]

PREFILLS = [10.0 * place for place in range(11, 19)]
FIRSTS = [5_000.0 * place for place in range(11, 18)]
LATENCY, SMALL_LATENCY = 14.5, 2.0
LATENCIES = [0.5 * place for place in range(20, 41)]
WANTED = {"TTFT": [2.0, 4.0, 2.0, 2.0], "TPOT": [1.5] * 4, "latency": [1.0] * 4}
"""The accuracy that is wanted, percent: errors are weighed by it."""
WANTED_PER_REQUEST = {"Llama-3.1-8B": 8.0, "Qwen3-32B": 2.2}
"""The same of the mean absolute error of TTFT."""
DEVICE = load_device("rtx-pro-6000-96gb")


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
        model = load_model(self.model)
        timing = ProfileTiming(
            self.bundle, model, tp=self.tp, all_reduce=self.link(latency_us), overheads=overheads, device=DEVICE
        )
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

    def link(self, latency_us: float) -> RingLink | None:
        """Return the link between the cards, where there are several."""
        if self.tp == 1:
            return None
        return RingLink(
            bandwidth_gib_s=16, latency_us=latency_us, small_latency_us=SMALL_LATENCY, memory_bandwidth_gb_s=1597
        )

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
    """Return the relative errors of mean, p50, p90 and p99 of all in WANTED, then TTFT's per request, percent."""
    ours, theirs = predicted(case.predict(overheads, latency_us)[0]), case.real()
    found = [100 * (statistics(ours[name]) / statistics(theirs[name]) - 1) for name in WANTED]
    return np.concatenate([*found, [per_request(ours, theirs, "TTFT")]])


def per_request(ours: dict[str, Floats], theirs: dict[str, Floats], name: str) -> float:
    return float(100 * np.abs(ours[name] / theirs[name] - 1).mean())


def wanted(case: Case) -> Floats:
    """Return the accuracy that is wanted of each of the errors."""
    return np.concatenate([*WANTED.values(), [WANTED_PER_REQUEST[case.name]]])


def with_numbers(prefill_layer_us: float, first_us: float) -> Overheads:
    return msgspec.structs.replace(VLLM_0_19, prefill_layer_us=prefill_layer_us, first_step_us=first_us)


Pair = tuple[float, float]
Table = dict[str, dict[Pair, Floats]]


def link_latency(case: Case) -> float:
    """Return the latency of the link with which the last ten requests have the TPOT that was measured."""
    last = np.argsort([request["first_token"] for request in case.requests])[-10:]
    theirs = case.real()["TPOT"][last]

    def error(latency_us: float) -> float:
        ours = predicted(case.predict(VLLM_0_19, latency_us)[0])["TPOT"][last]
        return abs(float((ours / theirs - 1).mean()))

    return min(LATENCIES, key=error) if case.tp > 1 else 0.0


def tabulate(cases: list[Case], latencies: dict[str, float]) -> Table:
    """Return the weighed errors of every case for every pair."""
    return {
        case.name: {
            pair: errors(case, with_numbers(*pair), latencies[case.name]) / wanted(case)
            for pair in itertools.product(PREFILLS, FIRSTS)
        }
        for case in cases
    }


def best(table: Table, names: list[str]) -> Pair:
    """Return ``prefill_layer_us`` and ``first_step_us`` with the least squared errors over some runs.

    A millisecond decides which prompts share a step, and that moves all errors a bit. So the first number is chosen by
    its errors over all values of the second, which hardly has to do with it; then the second.
    """

    def cost(pair: Pair) -> float:
        return float(sum((table[name][pair] ** 2).sum() for name in names))

    prefill_us = min(PREFILLS, key=lambda us: sum(cost((us, first)) for first in FIRSTS))
    return prefill_us, min(FIRSTS, key=lambda first: cost((prefill_us, first)))


def show(case: Case, overheads: Overheads, latency_us: float) -> None:
    """Print every error of one run."""
    runs, engine = case.predict(overheads, latency_us)
    ours, theirs = predicted(runs), case.real()
    print(f"  {case.name}: errors of mean, p50, p90, p99, and mean absolute error per request (percent)")
    for name in (*WANTED, "TTFT from sending"):
        relative = 100 * (statistics(ours[name]) / statistics(theirs[name]) - 1)
        each = per_request(ours, theirs, name)
        print(f"    {name:<18}" + "".join(f"{error:8.2f}" for error in relative) + f"{each:9.2f}")
    print(f"    makespan          {100 * (ours['last'].max() / theirs['last'].max() - 1):8.2f}")
    print(f"    output tokens in each second, weighed: {case.throughput_error(engine):.1f}")


def ratio(table: Table, shared: Pair, without: dict[str, Pair]) -> float:
    """Return how much larger the twelve errors of all runs are, each fitted without itself, than fitted to all."""
    inside, outside = (
        float(sum((table[name][pairs[name]][:-1] ** 2).sum() for name in table))
        for pairs in (dict.fromkeys(table, shared), without)
    )
    return float(np.sqrt(outside / inside))


def fit(cases: list[Case]) -> None:
    latencies = {case.name: link_latency(case) for case in cases}
    table = tabulate(cases, latencies)
    names = [case.name for case in cases]
    shared = best(table, names)
    print(f"all runs: prefill_layer_us {shared[0]:g}, first_step_us {shared[1]:g}")
    without = {name: best(table, [one for one in names if one != name]) for name in names}
    print(f"errors fitted without each run, of all runs together: {ratio(table, shared, without):.2f} times as large")
    for case in cases:
        others = without[case.name]
        found = [table[case.name][pair] for pair in (shared, others)]
        rms = [float(np.sqrt((errors[:-1] ** 2).mean())) for errors in found]
        each = [float(errors[-1]) * WANTED_PER_REQUEST[case.name] for errors in found]
        print(
            f"  {case.name}: rms of 12 errors over the wanted {rms[0]:.2f}, TTFT per request {each[0]:.1f} %; ", end=""
        )
        print(f"fitted without it (prefill_layer_us {others[0]:g}, first_step_us {others[1]:g}) {rms[1]:.2f}, ", end="")
        print(f"{rms[1] / rms[0]:.2f} times, and {each[1]:.1f} %; link latency {latencies[case.name]:g} us")
        show(case, with_numbers(*shared), latencies[case.name])


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
