"""InferenceMAX's nightly runs of gpt-oss-120b under vLLM 0.11 and 0.13: closed loops on H100 and H200."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from simloop.explore import RunLog
from tests.benchmarks.cases import Case, Gap, Part, always, closed_loop, kernel_tables, priced, scenario_of
from tests.benchmarks.silicon_runs import GREEDY, INFERENCE_X, served

__all__ = ["inferencemax_cases"]

_CARDS = {"h100": ("H100", "h100-sxm-80gb"), "h200": ("H200", "h200-sxm-141gb")}
_STATISTICS = {"mean": "mean", "median": "p50", "p99": "p99"}


def inferencemax_cases(data: Path) -> Iterator[Case | Gap]:
    """Yield each configuration once, with all nights on which it was measured."""
    table = pl.read_csv(data / "dev/agg_dev.csv.gz", infer_schema_length=None)
    one = ["hw", "image", "isl", "osl", "tp", "conc"]
    for (hw, image, isl, osl, tp, clients), nights in table.sort(one).group_by(one, maintain_order=True):
        device, card = _CARDS[str(hw)]
        lengths = {side: INFERENCE_X(int(nominal)) for side, nominal in (("input", isl), ("output", osl))}
        engine = {**served(int(clients)), "tensor_parallel_size": int(tp)}
        scenario = scenario_of("gpt-oss-120b", card, closed_loop(int(clients), lengths), **engine)
        name = f"vLLM {str(image).rpartition('v')[2]}, {isl} + {osl}"
        parts = [Part(name, _reported(row, name), batch=int(clients)) for row in nights.iter_rows(named=True)]
        place = device if tp == 1 else f"{tp} x {device}, TP {tp}"
        case = Case(data.name, "gpt-oss-120b", place, always(scenario), parts)
        yield from priced(case, kernel_tables(data.parent, card), GREEDY)


def _reported(row: dict[str, Any], name: str) -> RunLog:
    reported = {
        (ours, statistic): row[f"{theirs}_{metric}"]
        for metric, ours in (("ttft", "ttft"), ("tpot", "tpot"), ("e2el", "e2e"))
        for theirs, statistic in _STATISTICS.items()
    }
    reported["output_throughput", ""] = row["output_tput_per_gpu"] * row["tp"]
    return RunLog.of_columns(name, {}, reported=reported)
