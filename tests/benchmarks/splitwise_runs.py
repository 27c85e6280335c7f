"""Splitwise's measurements of whole models: batches of equal prompts, the time of reading them and of one token.

Software of 2023, before vLLM had CUDA graphs. A burst of requests whose prompts fit into one iteration is the same
thing: TTFT is the time of the prompts, TPOT that of a token.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

import simloop.model
from simloop.explore import RunLog
from tests.benchmarks.cases import Case, Gap, Part, kernel_tables, priced, scenario_of

__all__ = ["splitwise_cases"]

_CATALOG = Path(simloop.model.__file__).parent / "catalog"

_CARDS = {"a100-80gb": ("A100", "a100-sxm-80gb"), "h100-80gb": ("H100", "h100-sxm-80gb")}
_LONGEST = 16_384
_BLOOM = {"model_type": "gpt2", "n_embd": 14_336, "n_layer": 70, "n_head": 112, "vocab_size": 250_880,
          "n_positions": _LONGEST, "torch_dtype": "float16"}  # fmt: skip
"""BLOOM-176B as a GPT-2 of its size: the same matrices; ALiBi costs nothing beside them."""


def splitwise_cases(data: Path) -> Iterator[Case | Gap]:
    """Yield every configuration, with the mean of its repetitions."""
    table = pl.read_csv(data / "calib/perf_model.csv.gz")
    key = ["model", "hardware", "tensor_parallel", "prompt_size", "batch_size", "token_size"]
    means = table.group_by(key).agg(pl.col("prompt_time", "token_time").mean()).sort(key)
    broken = (pl.col("model") == "llama2-70b") & (pl.col("tensor_parallel") == 2) & (pl.col("batch_size") == 64)
    for row in means.filter(~broken).iter_rows(named=True):
        device, card = _CARDS[row["hardware"]]
        model = "bloom-176b" if row["model"] == "bloom-176b" else "llama-2-70b"
        reported = {("ttft", "mean"): row["prompt_time"] / 1e3, ("tpot", "mean"): row["token_time"] / 1e3}
        name, tp = f"{row['prompt_size']} + {row['token_size']}", row["tensor_parallel"]
        part = Part(name, RunLog.of_columns(name, {}, reported=reported), batch=row["batch_size"])
        case = Case(data.name, model, f"{tp} x {device}, TP {tp}", _burst(model, card, row), [part])
        yield from priced(case, kernel_tables(data.parent, card))
    yield Gap(data.name, "Llama-2-70B at TP 2, batch 64", "the measurement is of preempted requests")


def _bundled(model: str) -> dict[str, Any]:
    """Return the configuration of a bundled model."""
    facts: dict[str, Any] = json.loads((_CATALOG / f"{model}.json").read_text(encoding="utf-8"))
    return facts


def _burst(model: str, card: str, row: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    prompt, batch, output = row["prompt_size"], row["batch_size"], row["token_size"]
    lengths = {"input": prompt, "output": output}
    workload = {"requests": batch, "arrivals": {"process": "burst"}, "lengths": lengths}
    engine = {"tensor_parallel_size": row["tensor_parallel"], "max_num_batched_tokens": batch * prompt,
              "max_num_seqs": batch, "dtype": "float16", "enable_prefix_caching": False,
              "num_gpu_blocks_override": batch * (prompt + output)}  # fmt: skip

    def scenario(folder: Path) -> dict[str, Any]:
        facts = _BLOOM if model == "bloom-176b" else {**_bundled(model), "max_position_embeddings": _LONGEST}
        config = folder / "config.json"
        config.write_text(json.dumps(facts), encoding="utf-8")
        return scenario_of(str(config), card, workload, version="0.6", **engine)

    return scenario
