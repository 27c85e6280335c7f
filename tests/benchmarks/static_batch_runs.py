"""LLM-Inference-Bench: static batches of equal requests on A100 and H100, under vLLM of 2024."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path

from simloop.explore import RunLog
from tests.benchmarks.cases import Case, Gap, Part, always, kernel_tables, priced, scenario_of

__all__ = ["static_batch_cases"]

_MODELS = {
    "meta-llama/Llama-2-7b-hf": ("llama-2-7b", 4096),
    "meta-llama/Meta-Llama-3-8B": ("llama-3-8b", 8192),
    "mistralai/Mistral-7B-v0.1": ("mistral-7b-v0.1", 32_768),
}
"""Our name, and the token budget: vLLM 0.6 takes the longest context for it."""

_DEVICES = {"Nvidia A100 GPU": ("A100-40GB", "a100-sxm-40gb"), "Nvidia H100 GPU": ("H100", "h100-sxm-80gb")}


def static_batch_cases(data: Path, overheads: str = "vllm-0.6") -> Iterator[Case | Gap]:
    """Yield every batch, by number of GPUs; ``overheads`` are what the engine adds to its kernels."""
    with gzip.open(data / "dev/static_batch_dev.csv.gz", "rt") as file:
        rows = [row for row in csv.DictReader(file) if row["Framework"] == "vLLM" and row["Hardware"] in _DEVICES]
    for row in sorted(rows, key=lambda row: int(row["Num of Hardware"])):
        length, batch, tp = (int(row[key]) for key in ("Input Output Length", "Batch Size", "Num of Hardware"))
        (model, budget), (device, card) = _MODELS[row["Model"]], _DEVICES[row["Hardware"]]
        lengths = {"input": length, "output": length}
        workload = {"requests": batch, "arrivals": {"process": "burst"}, "lengths": lengths}
        engine = {"max_num_batched_tokens": budget, "dtype": "float16", "tensor_parallel_size": tp}
        given = scenario_of(model, card, workload, version="0.6", **engine)
        reported = {("makespan", ""): float(row["Latency"])}
        part = Part(f"{length} + {length}", RunLog.of_columns("batch", {}, reported=reported), batch=batch)
        case = Case(data.name, model, device if tp == 1 else f"{tp} x {device}, TP {tp}", always(given), [part])
        yield from priced(case, kernel_tables(data.parent, card), overheads)
    yield Gap(data.name, "TensorRT-LLM, DeepSpeed-MII", "engines that simloop does not model")
    yield Gap(data.name, "AMD, Intel and Grace Hopper devices", "no card of theirs, or software that was young")
