"""The LLMServingSim paper's runs: vLLM of early 2024 on one RTX 3090 and on four, 100 ShareGPT requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from simloop.explore import RunLog
from simloop.explore.token_series import TokenSeries
from tests.benchmarks.cases import Case, Gap, Part, always, scenario_of, timed

__all__ = ["iiswc24_cases"]

_RUNS = {"GPT3-7B": ("gpt3-6.7b", 1), "LLaMA-7B": ("llama-7b", 1), "GPT3-30B": ("gpt3-30b", 4),
         "LLaMA-30B": ("llama-30b", 4)}  # fmt: skip
"""Our model, and tensor parallelism."""


def iiswc24_cases(data: Path) -> Iterator[Case | Gap]:
    """Yield the four runs; of each, tokens in bins of half a second are known."""
    table = pl.read_csv(data / "llmservingsim_iiswc24_eval1_vllm_rtx3090.csv")
    trace = {"path": str(data / "datasets/share-gpt-req100-rate10.tsv")}
    for run, (model, tp) in _RUNS.items():
        rows = table.filter(pl.col("model") == run)
        starts = rows["t_s"].to_numpy().astype(float)
        rates = rows["vllm_gen_tok_s"].fill_null(0).to_numpy().astype(float)
        tokens = TokenSeries.of_rates(starts, starts + 0.5, rates / 2)
        end = float(starts[np.flatnonzero(rates)[-1]] + 0.5)
        real = RunLog.of_columns(run, {}, tokens=tokens, reported={("makespan", ""): end})
        engine = {"dtype": "float16", "tensor_parallel_size": tp}
        kernels = scenario_of(model, "rtx-3090-24gb", {"trace": trace}, version="0.6", **engine)
        given = timed(kernels, {"model": "roofline", "overheads": "vllm-0.6"})
        device = "RTX 3090" if tp == 1 else f"{tp} x RTX 3090, TP {tp}"
        yield Case(data.name, model, device, always(given), [Part(run, real)], by="roofline")
