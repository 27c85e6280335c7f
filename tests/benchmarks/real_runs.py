"""The real runs that simloop can be held to. vLLM 0.19 is modelled here, each other source in a file of its own."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import msgspec
import polars as pl

from simloop.explore import RunLog, real_run
from simloop.hardware.profile import VLLM_0_19
from tests.benchmarks.apex_runs import apex_cases
from tests.benchmarks.blis_runs import blis_cases
from tests.benchmarks.cases import Case, Gap, Part, scenario_of, timed
from tests.benchmarks.dstack_runs import dstack_cases
from tests.benchmarks.iiswc24_runs import iiswc24_cases
from tests.benchmarks.inferencemax_runs import inferencemax_cases
from tests.benchmarks.ispass_runs import ispass_cases
from tests.benchmarks.silicon_runs import silicon_cases
from tests.benchmarks.splitwise_runs import splitwise_cases
from tests.benchmarks.static_batch_runs import static_batch_cases

__all__ = ["all_cases"]


_Reader: TypeAlias = Callable[[Path], Iterator[Case | Gap]]


def all_cases(data: Path, *, everything: bool = False) -> Iterator[Case | Gap]:
    """Yield every run of the folders that are there; of large ones a part, unless everything is asked for."""
    silicon: _Reader = partial(silicon_cases, everything=everything)
    for name, read in {**_SOURCES, "aiconfigurator": silicon}.items():
        if (data / name).is_dir():
            yield from read(data / name)


# -- vLLM 0.19 on RTX PRO 6000, 300 ShareGPT requests ------------------------------------------------------------


_WITHOUT = {"Llama-3.1-8B": (140.0, 75_000.0), "Qwen3-32B": (160.0, 65_000.0)}
"""``prefill_layer_us``, ``first_step_us`` that ``fit_overheads.py`` fits to the other run."""
_OFFLINE = {
    "Llama-3.1-8B": ("llama-3.1-8b", "RTX PRO 6000", 36_578, "meta-llama/Llama-3.1-8B", 1),
    "Qwen3-32B": ("qwen3-32b", "2 x RTX PRO 6000, TP 2", 28_614, "Qwen/Qwen3-32B", 2),
}
"""Model, device, KV blocks, profile, tensor parallelism of each run."""


def _vllm_019(data: Path) -> Iterator[Case | Gap]:
    """Each run with the set of overheads, and with that fitted to the other run alone; by both stamps of arrival.

    The latencies of the link between the two cards of the second run are read off it alone.
    """
    for run, (model, device, blocks, profile, tp) in _OFFLINE.items():
        folder = data / "dev/bench_vllm019/RTXPRO6000" / run
        engine = {"num_gpu_blocks_override": blocks, "tensor_parallel_size": tp}
        timing: dict[str, Any] = {
            "model": "profile", "path": str(data / "calib/vllm_profiler/RTXPRO6000" / profile / "bf16")
        }  # fmt: skip
        if tp > 1:
            timing["all_reduce"] = {
                "bandwidth_gib_s": 16, "latency_us": 14.5, "small_latency_us": 2, "memory_bandwidth_gb_s": 1597
            }  # fmt: skip
        sent = sent_run(folder)
        theirs = {"LLMServingSim 2.0": _llmservingsim(data / f"reference_sim/RTXPRO6000_{run}_sim.csv")}
        for stamped, real, convention in ((True, real_run(folder), ""), (False, sent, ", from sending")):
            for overheads, fitted in (("vllm-0.19", ""), (fitted_without(run), ", fitted without the run")):
                by = f"simloop{convention}{fitted}"
                scenario = _replay(sent, model, {**timing, "overheads": overheads}, engine)
                beside = theirs if by == "simloop" else {}
                yield Case("llmservingsim", model, device, scenario, [Part(run, real)], stamped, by, beside)
    yield from ispass_cases(data)


def fitted_without(run: str) -> dict[str, Any]:
    """Return the overheads that ``fit_overheads.py`` fits to the other run."""
    prefill_layer_us, first_us = _WITHOUT[run]
    given: dict[str, Any] = msgspec.to_builtins(VLLM_0_19)
    return {**given, "prefill_layer_us": prefill_layer_us, "first_step_us": first_us}


def sent_run(folder: Path) -> RunLog:
    """Return a run by its client's clock: arrivals are when requests were sent, not when the engine read them.

    The clocks differ by what they do at least: the shortest way to the engine is taken for no way.
    """
    rows = pl.read_ndjson(gzip.decompress((folder / "requests.jsonl.gz").read_bytes())).with_row_index("place")
    queued = real_run(folder)
    by_engine = rows.sort("queued_ts", maintain_order=True)
    wait = by_engine["queued_ts"] - by_engine["arrival_time"]
    late = (wait - wait.min()).to_numpy()
    requests = queued.requests.with_columns(
        pl.col("arrival_s") - late, pl.col("ttft_s") + late, pl.col("e2e_s") + late
    ).with_columns(pl.col("arrival_s") - pl.col("arrival_s").min())
    return attrs.evolve(queued, requests=requests.sort("arrival_s", maintain_order=True))


def _replay(
    real: RunLog, model: str, timing: dict[str, Any], engine: dict[str, Any]
) -> Callable[[Path], dict[str, Any]]:
    """Replay a run with as many KV blocks as it had; of the device, only the profile says anything."""

    def scenario(folder: Path) -> dict[str, Any]:
        workload = {"trace": {"path": str(real.write_trace(folder / "trace.jsonl"))}}
        given = scenario_of(model, "rtx-pro-6000-96gb", workload, max_num_seqs=128, **engine)
        return timed(given, timing)

    return scenario


def _llmservingsim(path: Path) -> RunLog:
    columns = {"arrival_ns": "arrival", "ttft_ns": "TTFT", "tpot_ns": "TPOT", "e2e_ns": "latency",
               "input_tokens": "input", "output_tokens": "output"}  # fmt: skip
    return real_run(path, columns=columns)


_SOURCES: dict[str, _Reader] = {
    "llmservingsim": _vllm_019,
    "blis_vllm0151_NOLICENCE": blis_cases,
    "aiconfigurator": silicon_cases,
    "inferencemax_agg": inferencemax_cases,
    "dstack_benchmarks": dstack_cases,
    "apex_vllm060_h100": apex_cases,
    "llm_inference_bench": static_batch_cases,
    "splitwise": splitwise_cases,
    "iiswc24": iiswc24_cases,
}
