"""The figures of a run as one flat mapping, under the key names of ``vllm bench serve`` where it has them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from simloop.metrics.distribution import Distribution
from simloop.serving import Status

if TYPE_CHECKING:
    import numpy.typing as npt

    from simloop.metrics.result import Result

__all__ = ["PERCENTILES", "summarise"]

PERCENTILES = (90, 95, 99)
"""The percentiles that a summary gives of each latency, beside its median."""


def summarise(result: Result) -> dict[str, Any]:
    """Return the summary of a run: ``Result.summary`` with the definition of each block beside it."""
    blocks: dict[str, Any] = {
        **_run(result),
        **_counts(result),
        **_throughput(result),
        **_latencies(result),
        **_slo(result),
        **_workers(result),
        "lockstep": _lockstep(result),
    }
    return {key: _plain(value) for key, value in blocks.items()}


def _run(result: Result) -> dict[str, Any]:
    workload = result.scenario.get("workload")
    arrivals = workload.get("arrivals") if isinstance(workload, Mapping) else None
    arrivals = arrivals if isinstance(arrivals, Mapping) else {}
    return {
        "backend": "simloop",
        "model_id": result.scenario.get("model"),
        "request_rate": arrivals.get("rate"),
        "burstiness": arrivals.get("burstiness"),
        "seed": result.seed,
        "complete": result.complete,
        "incomplete_reason": None if result.complete else result.reason or "unknown",
        "duration": result.duration_s,
        "simulated_s": result.end_ns / 1e9,
        "wall_s": result.wall_s,
        "simulated_s_per_wall_s": result.end_ns / 1e9 / result.wall_s if result.wall_s > 0 else None,
        "iterations": result.iterations,
    }


def _counts(result: Result) -> dict[str, Any]:
    table, done = result.table, result.finished
    by_status = np.bincount(table["status"], minlength=len(Status))
    return {
        "num_prompts": len(table),
        "completed": by_status[Status.FINISHED],
        "failed": by_status[Status.FAILED],
        "rejected": by_status[Status.REJECTED],
        "unfinished": by_status[Status.UNFINISHED],
        "rejected_reasons": _reasons(result, Status.REJECTED),
        "failed_reasons": _reasons(result, Status.FAILED),
        "preemptions": table["preemptions"].sum(),
        "swaps": table["swaps"].sum(),
        "total_input_tokens": table["prompt_tokens"][done].sum(),
        "total_output_tokens": table["generated"][done].sum(),
        "total_generated_tokens": table["generated"].sum(),
    }


def _reasons(result: Result, status: Status) -> dict[str, int]:
    """Count the reasons of one status, the most frequent first."""
    codes, texts = result.table["reason"][result.table["status"] == status], result.records.reasons
    counted = Counter({texts[code] or "no reason given": int(count) for code, count in enumerate(np.bincount(codes))})
    return dict(sorted((+counted).items(), key=lambda item: (-item[1], item[0])))


def _throughput(result: Result) -> dict[str, Any]:
    table, done = result.table, result.finished
    inputs, outputs = table["prompt_tokens"][done].sum(), table["generated"][done].sum()
    end = np.where(table["finish_ns"] >= 0, table["finish_ns"], result.end_ns)
    return {
        "request_throughput": result.per_second(done.sum()),
        "request_goodput": result.goodput,
        "output_throughput": result.per_second(outputs),
        "total_token_throughput": result.per_second(inputs + outputs),
        **_busiest_seconds(result),
        "mean_concurrent_requests": result.per_second((end - table["arrival_ns"]).sum(dtype=np.float64) / 1e9),
    }


def _busiest_seconds(result: Result) -> dict[str, int]:
    """Return the peaks over whole seconds since the first arrival of a completed request, as vLLM counts."""
    arrivals, finishes = (result.table[name][result.finished] for name in ("arrival_ns", "finish_ns"))
    origin = int(arrivals.min()) if len(arrivals) else 0
    _, tokens = result.tokens.select(result.finished).per_second(origin)
    bounds = np.concatenate([(arrivals - origin) // 10**9, (finishes - origin) // 10**9 + 1])
    changes = np.repeat([1, -1], len(arrivals))
    order = np.lexsort((changes, bounds))
    return {
        "max_output_tokens_per_s": int(tokens.max(initial=0)),
        "max_concurrent_requests": int(changes[order].cumsum().max(initial=0)),
    }


def _latencies(result: Result) -> dict[str, Any]:
    of, done = result.latencies, result.finished
    distributions = {
        "ttft": _distribution(of.ttft[done]),
        "tpot": _distribution(of.tpot[done]),
        "itl": result.inter_token_gaps,
        "e2el": _distribution(of.e2e[done]),
        "max_gap": _distribution(of.max_gap[done]),
        "queueing": _distribution(of.queueing[done]),
        "normalised_latency": _distribution(of.normalised[done]),
    }
    return {
        f"{statistic}_{name}_ms": None if value is None else value / 1e6
        for name, distribution in distributions.items()
        for statistic, value in _statistics(distribution).items()
    }


def _distribution(values: npt.NDArray[np.float64]) -> Distribution:
    return Distribution.of(values[~np.isnan(values)])


def _statistics(distribution: Distribution) -> dict[str, float | None]:
    return {
        "mean": distribution.mean,
        "median": distribution.percentile(50),
        "std": distribution.std,
        **{f"p{percent}": distribution.percentile(percent) for percent in PERCENTILES},
        "max": distribution.max,
    }


def _slo(result: Result) -> dict[str, Any]:
    """Return the share of all requests that kept each limit; a request that did not finish kept none."""
    if result.slo is None or result.good is None:
        return {"slo": None, "slo_attainment": None}
    total = max(len(result.table), 1)
    attained = {name: kept.sum() / total for name, kept in result.latencies.attained(result.slo).items()}
    return {"slo": result.slo.limits(), "slo_attainment": {**attained, "all": result.good.sum() / total}}


def _workers(result: Result) -> dict[str, Any]:
    series, duration = result.series, result.duration_ns
    utilisation = series.totals("busy_ns") / max(duration, 1)
    kv_mean, kv_max = series.mean_over_time(series.kv_usage, duration), series.peaks(series.kv_usage)
    rows: list[dict[str, Any]] = [
        {"name": name, "utilisation": busy, "mean_kv_usage": mean, "max_kv_usage": peak}
        for name, busy, mean, peak in zip(result.worker_names, utilisation, kv_mean, kv_max, strict=True)
    ]
    for row, stages in zip(rows, result.stage_busy_ns, strict=False):
        if stages:
            row["stage_utilisation"] = [busy / max(duration, 1) for busy in stages]
    return {
        "mean_utilisation": utilisation.mean() if len(utilisation) else None,
        "mean_kv_usage": kv_mean.mean() if len(kv_mean) else None,
        "max_kv_usage": kv_max.max(initial=0.0),
        "workers": rows,
    }


def _lockstep(result: Result) -> list[dict[str, Any]]:
    """Return what iterating together cost each engine whose ranks share experts."""
    table = result.records.iterations()
    return [_engine(table[table["engine"] == first], result.worker_names) for first in np.unique(table["engine"])]


def _engine(rows: npt.NDArray[np.void], names: Sequence[str]) -> dict[str, Any]:
    ranks = [names[index] for index in np.unique(rows["worker"])]
    tokens, padding = int(rows["tokens"].sum()), int(rows["padding"].sum())
    mine = rows[rows["worker"] == rows["worker"][0]]  # time and traffic are the same for all ranks
    return {
        "ranks": ranks,
        "waves": mine["wave"].max(),
        "iterations": len(mine),
        "busy_s": (mine["end_ns"] - mine["start_ns"]).sum() / 1e9,
        "dummies": (rows["tokens"] == 0).sum(),
        "tokens": tokens,
        "padding_tokens": padding,
        "padding_share": padding / (tokens + padding),
        "dispatched_bytes": mine["dispatched_bytes"].sum(),
        "combined_bytes": mine["combined_bytes"].sum(),
    }


def _plain(value: Any) -> Any:
    """Turn numpy's scalars into Python's, round to a millionth, and write what is not a number as ``None``."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, float):  # numpy's float64 is one
        return round(float(value), 6) + 0.0 if math.isfinite(value) else None
    return value
