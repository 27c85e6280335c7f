"""vLLM 0.6.0 on H100, Llama-3.1-70B at TP 4 and 8: recorded requests, and the means of what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from simloop.explore import RunLog
from tests.benchmarks.cases import Case, Gap, Part, kernel_tables, priced, scenario_of, write_trace

__all__ = ["apex_cases"]

_ENGINE: dict[str, Any] = {"gpu_memory_utilization": 0.97, "max_num_seqs": 256, "enable_prefix_caching": False,
           "max_num_batched_tokens": 512}  # fmt: skip
"""A context of more than 32 thousand tokens makes vLLM 0.6.0 chunk prompts, by default to 512 tokens. Then whoever
decodes comes first, as in all later versions."""


def apex_cases(data: Path) -> Iterator[Case | Gap]:
    """Yield the runs; of data-parallel ones each replica by itself."""
    for row in pl.read_csv(data / "dev/runs_dev.csv").iter_rows(named=True):
        keys = ("ttft", "tpot", "e2e")
        reported = {(key, "mean"): row[f"mean_{key}_s"] for key in keys}
        name = row["run"].removeprefix("llama_").replace("_validation", "")
        scenario = _replayed(data / f"dev/requests/{row['run']}.csv.gz", row["tp"])
        device, part = f"{row['tp']} x H100, TP {row['tp']}", Part(name, RunLog.of_columns(name, {}, reported=reported))
        case = Case(data.name, "llama-3.1-70b", device, scenario, [part])
        yield from priced(case, kernel_tables(data.parent, "h100-sxm-80gb"), "vllm-0.6")


def _replayed(path: Path, tp: int) -> Callable[[Path], dict[str, Any]]:
    columns = ("arrival_s", "input_tokens", "output_tokens")

    def scenario(folder: Path) -> dict[str, Any]:
        rows = pl.read_csv(path).select(columns).sort("arrival_s", maintain_order=True)
        workload = write_trace(folder, ((at, new, out, []) for at, new, out in rows.iter_rows()))
        return scenario_of("llama-3.1-70b", "h100-sxm-80gb", workload, **_ENGINE, tensor_parallel_size=tp)

    return scenario
