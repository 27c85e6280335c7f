"""gpt-oss-120b on 8 x H200 under SGLang, prefill and decode on workers of their own: closed loops.

Two and two workers have two GPUs each. Of one and one nobody says; we let them share out the 8 GPUs, too: at 32 clients
their tokens take 7.4 ms, which vLLM on the same GPUs reaches with TP 4 (7.2 ms), not with TP 2 (10.6 ms).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from simloop.explore import RunLog
from tests.benchmarks.cases import Case, Gap, Part, always, closed_loop, kernel_tables, priced

__all__ = ["dstack_cases"]

_NETWORK = {"bandwidth_gb_s": 900.0, "latency_us": 10.0}
"""The NVLinks of two GPUs; nobody says what carried the KV."""


def dstack_cases(data: Path) -> Iterator[Case | Gap]:
    """Yield the runs."""
    broken = (pl.col("prefill") == 1) & (pl.col("conc") == 128) & (pl.col("osl") > 30_000)
    table = pl.read_csv(data / "dev/pd_ratio_h200_gptoss120b_dev.csv")
    for row in table.filter(~broken).iter_rows(named=True):
        ratio = f"{row['prefill']} to {row['decode']}"
        name = f"{row['isl']} + {row['osl']}"
        part = Part(name, RunLog.of_columns(name, {}, reported=_reported(row)), batch=row["conc"])
        device = f"8 x H200, TP {_ranks(row)}, prefill to decode {ratio}"
        case = Case(data.name, "gpt-oss-120b", device, always(_scenario(row)), [part])
        yield from priced(case, kernel_tables(data.parent, "h200-sxm-141gb"))
    yield Gap(data.name, "1 to 1, 128 clients, 2048 + 32784", "the measurement is broken: most requests failed")


def _ranks(row: dict[str, Any]) -> int:
    """Return how many GPUs a worker has."""
    return int(8 / (row["prefill"] + row["decode"]))


def _scenario(row: dict[str, Any]) -> dict[str, Any]:
    """SGLang's scheduler is not modelled: vLLM's stands for it. Outputs end early; only their mean is known."""
    mean = row["total_output_tokens"] / row["completed"]
    output = {"distribution": "uniform", "min": 1, "max": min(row["osl"], round(2 * mean - 1))}
    engine = {"tensor_parallel_size": _ranks(row), "max_num_seqs": row["conc"], "max_num_batched_tokens": 8192,
              "enable_prefix_caching": False}  # fmt: skip
    groups = [
        {"name": name, "device": "h200-sxm-141gb", "count": row[name], "engine": engine}
        for name in ("prefill", "decode")
    ]
    lengths = {"input": round(row["total_input_tokens"] / row["completed"]), "output": output}
    return {
        "model": "gpt-oss-120b",
        "workers": groups,
        "network": _NETWORK,
        "policies": {"route": "disaggregated", "schedule": "disaggregated"},
        "workload": closed_loop(row["conc"], lengths, requests=row["completed"]),
    }


def _reported(row: dict[str, Any]) -> dict[tuple[str, str], float]:
    statistics = {"mean": "mean", "median": "p50", "p99": "p99"}
    figures = {
        (key, ours): row[f"{theirs}_{key}_ms"] / 1e3 for key in ("ttft", "tpot") for theirs, ours in statistics.items()
    }
    return {**figures, ("makespan", ""): row["duration"], ("output_throughput", ""): row["output_throughput"]}
