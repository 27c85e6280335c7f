"""vLLM 0.15.1 on H100 under inference-perf: request logs, and statistics by stage.

The load is 100 prompts in turn, so that all but the first hundred requests find their prompt in the prefix cache.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import polars as pl

from simloop.explore import RunLog, real_run
from tests.benchmarks.cases import Case, Gap, Part, Request, scenario_of, timed, write_trace

__all__ = ["blis_cases", "blis_logs"]

_BLIS_MODELS = {
    "codellama/CodeLlama-34b-Instruct-hf": "codellama-34b",
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Llama-3.1-8B-Instruct": "llama-3.1-8b",
    "Qwen/Qwen3-14B": "qwen3-14b",
}
_STAGES = {"general-lite": [(2.5, 600), (6.0, 600)], "reasoning": [(4.0, 1200)]}
_ONE_STAGE = ("roleplay", "reasoning")


def blis_cases(data: Path) -> Iterator[Case | Gap]:
    """Yield the request logs, and the runs of which only statistics are known."""
    logs: dict[str, RunLog] = {}
    for row in pl.read_csv(data / "experiments.csv").iter_rows(named=True):
        name, model = row["experiment"], _BLIS_MODELS[row["model"]]
        real = _blis_log(data / f"dev/requests/{name}.csv.gz")
        logs.setdefault(row["profile"], real)
        requests = _by_prompt(real)
        engine = {
            "tensor_parallel_size": row["tp"],
            "max_num_batched_tokens": row["max_num_batched_tokens"],
            "num_gpu_blocks_override": row["kv_blocks_gpu"],
        }
        scenario = _cycled(data, model, requests, **engine)
        yield Case(data.name, model, _device(row["tp"]), scenario, [Part(f"{row['profile']} (log)", real)])
    yield from _blis_aggregates(data, logs)


def blis_logs(data: Path, seconds: float) -> Iterator[tuple[str, RunLog, dict[str, Any]]]:
    """Yield name, log and scenario of the first seconds of every stage (of ten minutes) of every request log."""
    for row in pl.read_csv(data / "experiments.csv").iter_rows(named=True):
        whole = _blis_log(data / f"dev/requests/{row['experiment']}.csv.gz")
        kept = whole.requests.filter(pl.col("arrival_s") % 600.0 < seconds)
        log = attrs.evolve(whole, requests=kept)
        engine = {"num_gpu_blocks_override": row["kv_blocks_gpu"], "tensor_parallel_size": row["tp"]}
        with tempfile.TemporaryDirectory() as folder:
            yield (
                row["experiment"],
                log,
                _cycled(data, _BLIS_MODELS[row["model"]], _by_prompt(log), **engine)(Path(folder)),
            )


def _device(tp: int) -> str:
    return "H100" if tp == 1 else f"{tp} x H100, TP {tp}"


def _blis_log(path: Path) -> RunLog:
    columns = {
        "id": "index",
        "arrival_us": "arrival_time_us",
        "input_tokens": "input_tokens",
        "output_tokens": "output_tokens_generated",
        "ttft_s": "ttft_s",
        "e2e_s": "e2e_s",
        "failed": "has_error",
    }
    return real_run(path, columns=columns)


def _blis_aggregates(data: Path, logs: Mapping[str, RunLog]) -> Iterator[Case]:
    """Runs of which only statistics by stage are known.

    Their requests are taken from the log of the same profile, or drawn as the profile says with the log's lengths.
    """
    table = pl.read_csv(data / "dev/aggregate_actuals_dev.csv", infer_schema_length=None)
    for (name,), rows in table.group_by("experiment", maintain_order=True):
        first = rows.row(0, named=True)
        profile, model = first["workload"], _BLIS_MODELS[first["model"]]
        requests = _by_prompt(logs[profile]) if profile in logs else _drawn(profile, logs["general"])
        engine = {"max_num_batched_tokens": first["max_num_batched_tokens"],
                  "gpu_memory_utilization": first["gpu_mem_util"],
                  "tensor_parallel_size": first["tp"]}  # fmt: skip
        stages = rows.group_by("stage_index", maintain_order=True)
        parts = [_stage(profile, str(name), stage, part) for (stage,), part in stages]
        yield Case(data.name, model, _device(first["tp"]), _cycled(data, model, requests, **engine), parts)


def _stage(profile: str, experiment: str, stage: Any, rows: pl.DataFrame) -> Part:
    """Return what was measured in one stage of ten minutes; of all stages together where its number is -1."""
    keys = {"itl": "tpot", "ttft": "ttft", "e2e": "e2e"}
    reported = {}
    for metric, actual_ms in rows.select("metric_name", "actual_ms").iter_rows():
        what, _, statistic = metric.partition("_")
        reported[keys[what], statistic] = actual_ms / 1e3
    name = f"{profile} (no. {experiment.split('-')[0]}{'' if stage < 0 else f', stage {stage}'})"
    whole = stage < 0 or profile in _ONE_STAGE
    bounds = (0.0, math.inf) if whole else ((0.0, 600.0), (600.0, math.inf))[stage]
    return Part(name, RunLog.of_columns(name, {}, reported=reported), *bounds)


def _by_prompt(log: RunLog) -> list[Request]:
    """A hundred prompts in turn: what repeats is known to the prefix cache."""
    columns = log.requests.select("id", "arrival_s", "prompt_tokens", "output_tokens")
    return [(arrival, prompt, output, _hashes(int(index) % 100, prompt))
            for index, arrival, prompt, output in columns.iter_rows()]  # fmt: skip


def _hashes(prompt_id: int, tokens: int) -> list[int]:
    return [prompt_id * 1_000 + block for block in range(tokens // 16)]


def _drawn(profile: str, like: RunLog) -> list[Request]:
    """Draw the arrivals of a profile; lengths are a log's, for ``reasoning`` made longer by what its questions are."""
    longer, output = (487, 1448) if profile == "reasoning" else (0, 248)
    prompts = like.requests.head(100)["prompt_tokens"].to_list()
    generator, start = np.random.default_rng(0), 0.0
    requests: list[Request] = []
    for rate, seconds in _STAGES[profile]:
        times = start + np.cumsum(generator.exponential(1 / rate, round(rate * seconds)))
        for time in times:
            prompt_id = len(requests) % 100
            prompt = prompts[prompt_id] + longer
            requests.append((float(time), prompt, output, _hashes(prompt_id, prompt)))
        start = float(times[-1])
    return requests


def _cycled(data: Path, model: str, requests: list[Request], **engine: Any) -> Callable[[Path], dict[str, Any]]:
    given = {"max_num_seqs": 128, "max_model_len": 4096, "dtype": "float16", **engine}
    tables = data.parent / "aiconfigurator/calib/h100_sxm"
    timing = {"model": "kernels", "path": str(tables), "overheads": "vllm-0.15"}
    return lambda folder: timed(scenario_of(model, "h100-sxm-80gb", write_trace(folder, requests), **given), timing)
