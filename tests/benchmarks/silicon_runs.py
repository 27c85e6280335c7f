"""Serving points of aiconfigurator: InferenceX (vLLM, TensorRT-LLM) and NVIDIA's own, closed loops on H100 and H200.

Of each run the means of TTFT and TPOT are known. Other engines than vLLM are simulated with vLLM's scheduler, and the
tables say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from simloop.explore import RunLog
from simloop.hardware.profile import VLLM_0_15
from tests.benchmarks.cases import Case, Gap, Part, always, closed_loop, kernel_tables, priced, scenario_of

__all__ = ["INFERENCE_X", "served", "silicon_cases"]

_SHARE = 5
"""Of the runs, one in so many is simulated unless all are asked for."""

_MOST_RANKS = 8
_CARDS = {"h100_sxm": ("H100", "h100-sxm-80gb"), "h200_sxm": ("H200", "h200-sxm-141gb")}
_ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "trtllm": "TensorRT-LLM"}
_MODELS = {
    ("Qwen/Qwen3-32B", None): "qwen3-32b",
    ("Qwen/Qwen3-32B", "fp8"): "qwen3-32b-fp8",
    ("meta-llama/Llama-3.1-70B", "fp8"): "llama-3.1-70b-fp8",
    ("meta-llama/Llama-3.1-8B-Instruct", None): "llama-3.1-8b",
    ("meta-llama/Llama-3.1-8B-Instruct", "fp8"): "llama-3.1-8b-fp8",
    ("nvidia/Llama-3.1-8B-Instruct-FP8", "fp8"): "llama-3.1-8b-fp8",
    ("openai/gpt-oss-120b", "fp4"): "gpt-oss-120b",
    ("openai/gpt-oss-120b", "fp8"): "gpt-oss-120b",
}
"""Our model, by theirs and its precision. Nobody says which checkpoint in FP8 of Qwen3-32B it was."""


def silicon_cases(data: Path, *, everything: bool = False) -> Iterator[Case | Gap]:
    """Yield the runs by engine and model, one in five of them unless all are asked for."""
    known, rows = pl.col("clients").is_not_null(), _rows(data / "dev/silicon_e2e_dev.csv.gz")
    inside = pl.col("tp_size") <= _MOST_RANKS
    yield Gap(data.name, f"{len(rows.filter(~known))} runs", "their number of clients is not stated")
    yield Gap(data.name, f"{len(rows.filter(~inside))} runs on more than 8 GPUs", "links between servers are not known")
    rows = rows.filter(known, inside)
    chosen = rows if everything else rows.gather_every(_SHARE)
    for row in chosen.iter_rows(named=True):
        yield from _case(data, row)
    if not everything:
        why = f"every {_SHARE}th is here; --all runs the others too"
        yield Gap(data.name, f"{len(rows) - len(chosen)} of {len(rows)} serving points", why)


def _rows(path: Path) -> pl.DataFrame:
    """Return the runs, those of vLLM first; each with its clients, and whether InferenceX ran it."""
    table = pl.read_csv(path, infer_schema_length=None)
    source = pl.col("silicon_data_source")
    return table.with_columns(
        clients=source.str.extract(r"silicon_concurrency=(\d+)").cast(pl.Int64),
        inference_x=source.str.contains("source_file=20"),
        other=pl.col("backend").ne("vllm"),
    ).sort("other", "backend", "model_path", "system", "tp_size", "isl", "osl", "clients", "id")


def _case(data: Path, row: dict[str, Any]) -> Iterator[Case]:
    device, card = _CARDS[row["system"]]
    model, tp, clients = _MODELS[row["model_path"], row["precision"]], row["tp_size"], row["clients"]
    lengths = {"input": INFERENCE_X(row["isl"]), "output": INFERENCE_X(row["osl"])}
    if not row["inference_x"]:  # of NVIDIA's own runs only the nominal lengths are known
        lengths = {"input": row["isl"], "output": between(row["osl"], 0.8, 1.2)}
    engine: dict[str, Any] = {"tensor_parallel_size": tp}
    if expert_parallel := tp > 1 and row["moe_ep_size"] == tp:
        engine["enable_expert_parallel"] = True
    scenario = scenario_of(model, card, closed_loop(clients, lengths), **served(clients), **engine)
    reported = {("ttft", "mean"): row["silicon_ttft_ms"] / 1e3, ("tpot", "mean"): row["silicon_tpot_ms"] / 1e3}
    place = device if tp == 1 else f"{tp} x {device}, TP {tp}{', EP' * expert_parallel}"
    version = re.match(r"[\d.]+\d", row["backend_version"] or "")
    name = f"{_ENGINES[row['backend']]}{f' {version[0]}' if version else ''}, {row['isl']} + {row['osl']}"
    part = Part(name, RunLog.of_columns(row["id"], {}, reported=reported), batch=clients)
    case = Case(data.name, model, place, always(scenario), [part])
    if row["other"]:
        yield from priced(case, kernel_tables(data.parent, card), note=", as vLLM")
    else:
        yield from priced(case, kernel_tables(data.parent, card), GREEDY if row["inference_x"] else "vllm-0.15")


def between(nominal: int, low: float, high: float) -> dict[str, Any]:
    """Return lengths between two shares of a nominal one, all equally likely."""
    return {"distribution": "uniform", "min": round(low * nominal), "max": round(high * nominal)}


INFERENCE_X = partial(between, low=0.8, high=1.0)
"""The lengths that InferenceX draws."""

GREEDY = msgspec.to_builtins(msgspec.structs.replace(VLLM_0_15, sampling_us=0.0))
"""What the engine adds to requests of InferenceX, which are greedy: nothing is sorted to sample them."""


def served(clients: int) -> dict[str, Any]:
    """Return the arguments that InferenceX starts vLLM with; they stand for those of other runs, too."""
    return {"max_num_seqs": clients, "max_num_batched_tokens": 8192, "enable_prefix_caching": False}
