"""The real runs that simloop can be held to, and how each is modelled; nothing here is fitted to them."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import msgspec
import numpy as np
import polars as pl

from simloop.explore import RunLog, real_run
from simloop.explore.token_series import TokenSeries
from simloop.hardware.profile import VLLM_0_19
from tests.benchmarks.blis_runs import blis_cases
from tests.benchmarks.cases import Case, Gap, Part, always, scenario_of, timed
from tests.benchmarks.ispass_runs import ispass_cases

__all__ = ["all_cases"]


def all_cases(data: Path) -> Iterator[Case | Gap]:
    """Yield every run of the folders that are there."""
    for name, read in _SOURCES.items():
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


# -- static batches, A100 and H100 -------------------------------------------------------------------------------

_BENCH_MODELS = {
    "meta-llama/Llama-2-7b-hf": ("llama-2-7b", 4096),
    "meta-llama/Meta-Llama-3-8B": ("llama-3-8b", 8192),
    "mistralai/Mistral-7B-v0.1": ("mistral-7b-v0.1", 32_768),
}
"""Our name, and the token budget: vLLM 0.6 takes the longest context for it."""

_BENCH_DEVICES = {"Nvidia A100 GPU": ("A100-40GB", "a100-sxm-40gb"), "Nvidia H100 GPU": ("H100", "h100-sxm-80gb")}


def _static_batches(data: Path) -> Iterator[Case | Gap]:
    with gzip.open(data / "dev/static_batch_dev.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["Framework"] == "vLLM" and row["Num of Hardware"] == "1"]
    for row in rows:
        if row["Model"] not in _BENCH_MODELS or row["Hardware"] not in _BENCH_DEVICES:
            continue
        length, batch = int(row["Input Output Length"]), int(row["Batch Size"])
        reported = {("makespan", ""): float(row["Latency"])}
        (model, budget), (device, card) = _BENCH_MODELS[row["Model"]], _BENCH_DEVICES[row["Hardware"]]
        lengths = {"input": length, "output": length}
        workload = {"requests": batch, "arrivals": {"process": "burst"}, "lengths": lengths}
        given = scenario_of(model, card, workload, version="0.6", max_num_batched_tokens=budget, dtype="float16")
        part = Part(f"{length} + {length}", RunLog.of_columns("batch", {}, reported=reported), batch=batch)
        yield Case(data.name, model, device, always(given), [part])
    yield Gap(data.name, "2 and 4 GPUs", "tensor parallelism is newer than these tables")
    yield Gap(data.name, "TensorRT-LLM, DeepSpeed-MII", "engines that simloop does not model")


# -- vLLM of early 2024 on RTX 3090, 100 ShareGPT requests -------------------------------------------------------


def _rtx_3090(data: Path) -> Iterator[Case | Gap]:
    table = pl.read_csv(data / "llmservingsim_iiswc24_eval1_vllm_rtx3090.csv")
    trace = {"path": str(data / "datasets/share-gpt-req100-rate10.tsv")}
    for run, model in (("GPT3-7B", "gpt3-6.7b"), ("LLaMA-7B", "llama-7b")):
        rows = table.filter(pl.col("model") == run)
        starts, rates = rows["t_s"].to_numpy().astype(float), rows["vllm_gen_tok_s"].to_numpy().astype(float)
        tokens = TokenSeries.of_rates(starts, starts + 0.5, rates / 2)
        end = float(starts[np.flatnonzero(rates)[-1]] + 0.5)
        real = RunLog.of_columns(run, {}, tokens=tokens, reported={("makespan", ""): end})
        given = scenario_of(model, "rtx-3090-24gb", {"trace": trace}, version="0.6", dtype="float16")
        yield Case(data.name, model, "RTX 3090", always(given), [Part(run, real)])
    yield Gap(data.name, "GPT3-30B, LLaMA-30B on 4 GPUs", "tensor parallelism is newer than these tables")


def _gaps(*rows: tuple[str, str]) -> Callable[[Path], Iterator[Case | Gap]]:
    return lambda data: (Gap(data.name, what, why) for what, why in rows)


_SOURCES: dict[str, Callable[[Path], Iterator[Case | Gap]]] = {
    "llmservingsim": _vllm_019,
    "blis_vllm0151_NOLICENCE": blis_cases,
    "llm_inference_bench": _static_batches,
    "iiswc24": _rtx_3090,
    "apex_vllm060_h100": _gaps(
        ("Llama-3.1-70B at TP 4 and 8, all runs", "tensor parallelism is newer than these tables")
    ),
    "splitwise": _gaps(
        ("Llama-2-70B, BLOOM-176B at TP 2 to 8, all points", "tensor parallelism is newer than these tables")
    ),
    "aiconfigurator": _gaps(("885 serving points on H100 and H200", "closed-loop clients; most are MoE or at TP > 1")),
    "inferencemax_agg": _gaps(
        ("gpt-oss-120b on H100 and H200", "MoE at TP > 1 is newer than these tables; closed-loop clients")
    ),
    "dstack_benchmarks": _gaps(
        ("gpt-oss-120b on 8 x H200, prefill and decode apart", "MoE at TP > 1 is newer than these tables")
    ),
}
