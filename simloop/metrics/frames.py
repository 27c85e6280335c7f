"""The two tables of a result as polars data frames; what never happened is null, times are in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from simloop.serving import Status

if TYPE_CHECKING:
    import numpy.typing as npt

    from simloop.metrics.result import Result

__all__ = ["lockstep_frame", "requests_frame", "timeseries_frame", "tokens_frame"]


def requests_frame(result: Result) -> pl.DataFrame:
    """Return one row per request, by id; the same run gives the same bits."""
    table, latencies = result.table, result.latencies
    columns = {
        "request_id": pl.Series(table["id"]),
        "status": _names(table["status"], [status.name.lower() for status in Status]),
        "reason": _names(table["reason"], result.records.reasons),
        "worker": _names(table["worker"], result.worker_names),
        "prompt_tokens": pl.Series(table["prompt_tokens"]),
        "output_tokens": pl.Series(table["output_tokens"]),
        "generated_tokens": pl.Series(table["generated"]),
        "preemptions": pl.Series(table["preemptions"]),
        "swaps": pl.Series(table["swaps"]),
        "arrival_s": _seconds(table["arrival_ns"]),
        "scheduled_s": _seconds(table["scheduled_ns"]),
        "first_token_s": _seconds(table["first_token_ns"]),
        "finish_s": _seconds(table["finish_ns"]),
        "queueing_s": _floats(latencies.queueing / 1e9),
        "ttft_s": _floats(latencies.ttft / 1e9),
        "tpot_s": _floats(latencies.tpot / 1e9),
        "max_gap_s": _floats(latencies.max_gap / 1e9),
        "e2e_s": _floats(latencies.e2e / 1e9),
        "normalised_latency_s": _floats(latencies.normalised / 1e9),
        "slo_attained": pl.Series([None] * len(table) if result.good is None else result.good, dtype=pl.Boolean),
    }
    return pl.DataFrame(columns)


def timeseries_frame(result: Result) -> pl.DataFrame:
    """Return one row per sample, by time and worker; rates are over the time since that worker's sample before."""
    series, samples = result.series, result.series.samples
    columns = {
        "time_s": _seconds(samples["time_ns"]),
        "worker": _names(samples["worker"], result.worker_names),
        "running": pl.Series(samples["running"]),
        "waiting": pl.Series(samples["waiting"]),
        "kv_used_blocks": pl.Series(samples["kv_used"]),
        "kv_usage": _floats(series.kv_usage),
        "batch_size": _floats(series.rate("generated", "iterations")),
        "prompt_tokens_per_s": _floats(series.rate("prompt", "time_ns", 1e9)),
        "output_tokens_per_s": _floats(series.rate("generated", "time_ns", 1e9)),
        "utilisation": _floats(series.rate("busy_ns", "time_ns")),
        "iterations": pl.Series(series.since_last("iterations")),
        "preemptions": pl.Series(series.since_last("preemptions")),
    }
    return pl.DataFrame(columns)


def lockstep_frame(result: Result) -> pl.DataFrame:
    """Return one row per iteration and rank of engines whose ranks iterate together, in the order of time."""
    table = result.records.iterations()
    columns = {
        "worker": _names(table["worker"], result.worker_names),
        "wave": pl.Series(table["wave"]),
        "start_s": _seconds(table["start_ns"]),
        "end_s": _seconds(table["end_ns"]),
        "tokens": pl.Series(table["tokens"]),
        "padding": pl.Series(table["padding"]),
        "dispatched_bytes": pl.Series(table["dispatched_bytes"]),
        "combined_bytes": pl.Series(table["combined_bytes"]),
    }
    return pl.DataFrame(columns)


def tokens_frame(result: Result) -> pl.DataFrame:
    """Return one row per token, by request and time: 16 bytes each, so 160 MB for ten million."""
    rows, times = result.tokens.expand()
    return pl.DataFrame({"request_id": result.table["id"][rows], "time_s": times / 1e9})


def _names(codes: npt.NDArray[np.int32], names: Sequence[str | None]) -> pl.Series:
    """Replace each code by its name, a negative one by null."""
    null = len(names)
    return pl.Series([*names, None], dtype=pl.String).gather(np.where(codes >= 0, codes, null))


def _seconds(times_ns: npt.NDArray[np.int64]) -> pl.Series:
    return _floats(np.where(times_ns >= 0, times_ns / 1e9, np.nan))


def _floats(values: npt.NDArray[np.float64]) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64, nan_to_null=True)
