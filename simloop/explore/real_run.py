"""Files that measurements leave behind -> a log of the run, whatever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl

from simloop.errors import InputError, did_you_mean
from simloop.explore.columns import read_columns
from simloop.explore.run_log import RunLog, simulated_columns
from simloop.explore.token_series import TokenSeries
from simloop.explore.vllm_bench import is_bench_result, read_bench_result
from simloop.workload.files import csv_rows, first_line, is_parquet, json_rows, open_lines

__all__ = ["is_run_folder", "real_run"]

_BENCH = {
    "id": "request_id",
    "arrival_s": "queued_ts",
    "first_token_s": "first_token_ts",
    "finish_s": "last_token_ts",
    "input_tokens": "input_toks",
    "output_tokens": "output_toks",
}
"""``requests.jsonl`` of a bench folder. Its ``arrival_time`` is by another clock than the rest."""


def real_run(path: str | Path, *, columns: Mapping[str, str] | None = None) -> RunLog:
    """Read what a run left behind.

    Args:
        path: A result file of ``vllm bench serve``; a bench folder (``requests.jsonl``, with ``timeseries.csv``,
            ``meta.json`` and ``block_hashes.jsonl`` beside it if there are any; each may end in ``.gz``); a folder that
            ``simloop run --out`` wrote; or a table of requests (CSV, JSON Lines, gzipped or not; Parquet).
        columns: For a table: what its columns are, ``{"ttft_ms": "first_token", ...}``; the keys are those of
            ``--columns``. Those that are called like a key if not given.

    Raises:
        InputError: It cannot be used; one line that says why.
    """
    file = Path(path)
    if not file.exists():
        raise InputError(f"there is no such file or folder{_nearest(file)}", file=path)
    if file.is_dir():
        if columns is not None:
            raise InputError("has no effect on a folder, whose columns are known", file="--columns")
        return _folder(file)
    document = None if is_parquet(file) else _document(file)
    if document is None:
        return RunLog.of_columns(file.name, read_columns(file, columns))
    if columns is not None:
        raise InputError("has no effect on a result of vllm bench serve, whose keys are known", file="--columns")
    return read_bench_result(file, document)


def is_run_folder(path: str | Path) -> bool:
    """Tell whether ``simloop run --out`` wrote a folder."""
    return (Path(path) / "requests.parquet").is_file()


def _document(path: Path) -> Mapping[str, Any] | None:
    """Return the JSON object that a file is; ``None`` for a table, JSON Lines included."""
    line = first_line(path)
    if not line.lstrip().startswith("{"):
        return None
    try:
        first = msgspec.json.decode(line)
    except msgspec.DecodeError:
        first = None
    if isinstance(first, dict) and not is_bench_result(first):
        return None
    try:
        document = msgspec.json.decode("".join(open_lines(path)))
    except msgspec.DecodeError as error:
        message = f"expected one result of vllm bench serve, or one request in each line: {error}"
        raise InputError(message, file=path) from None
    if not is_bench_result(document):
        keys = ", ".join(list(document)[:5])
        raise InputError(f"no result of vllm bench serve (found {keys}; expected ttfts or mean_ttft_ms)", file=path)
    return document  # type: ignore[no-any-return]


def _folder(folder: Path) -> RunLog:
    name = "/".join(folder.resolve().parts[-2:]).lstrip("/")
    if is_run_folder(folder):
        return _simulated(folder, name)
    requests = _file(folder, "requests.jsonl")
    if requests is None:
        message = "neither a run of simloop (requests.parquet) nor a bench folder (requests.jsonl)"
        raise InputError(f"found {message}", file=folder)
    columns = read_columns(requests, _BENCH)
    hashes = _file(folder, "block_hashes.jsonl")
    if hashes is not None:
        rows = list(json_rows(hashes, ["hash_ids"]))
        if len(rows) == len(columns["arrival_s"]):
            columns["hash_ids"] = [row[0] for _, row in rows]
    series = _file(folder, "timeseries.csv")
    tokens = None if series is None else _ticks(series, _lead_s(folder, requests))
    return RunLog.of_columns(name, columns, tokens=tokens)


def _file(folder: Path, name: str) -> Path | None:
    return next((folder / one for one in (name, f"{name}.gz") if (folder / one).is_file()), None)


def _lead_s(folder: Path, requests: Path) -> float:
    """Return how long before the first arrival the clock of the time series began, seconds; both by the wall clock."""
    meta = _file(folder, "meta.json")
    stamps = [row[0] for _, row in json_rows(requests, ["arrival_time"])]
    if meta is None or None in stamps:
        return 0.0
    try:
        started = msgspec.json.decode("".join(open_lines(meta)))["started_at"]
        return float(min(stamps)) - datetime.fromisoformat(started).timestamp()
    except (msgspec.DecodeError, KeyError, TypeError, ValueError):
        return 0.0


def _ticks(path: Path, lead_s: float) -> TokenSeries:
    """Read ticks, each with the mean rate since the one before."""
    times, rates = [], []
    for line, (time, rate) in csv_rows(path, _present(path, ["t", "gen_throughput"])):
        try:
            times.append(float(time))
            rates.append(float(rate))
        except ValueError:
            raise InputError(f"found {time!r}, {rate!r}, expected numbers", file=path, path=f"line {line}") from None
    if not times or any(after <= before for before, after in zip([0.0, *times], times, strict=False)):
        raise InputError("t: expected ascending times above 0", file=path)
    ends = np.array(times)
    starts = np.concatenate([[max(ends[0] - np.diff(ends).mean(), 0.0) if len(ends) > 1 else 0.0], ends[:-1]])
    tokens = np.array(rates) * (ends - starts)
    return TokenSeries.of_rates(starts - lead_s, ends - lead_s, tokens, grid_s=float(starts[0]) - lead_s)


def _present(path: Path, names: list[str]) -> list[str]:
    there = [name.strip() for name in first_line(path).split(",")]
    for name in names:
        if name not in there:
            raise InputError(f"no column {name!r}{did_you_mean(name, there)}", file=path, path="line 1")
    return names


def _simulated(folder: Path, name: str) -> RunLog:
    requests = _parquet(folder / "requests.parquet", "request_id", "status", "arrival_s", "e2e_s")
    columns = simulated_columns(requests)
    arrivals = requests["arrival_s"].drop_nulls()
    origin = float(arrivals.min()) if len(arrivals) else 0.0  # type: ignore[arg-type]
    return RunLog.of_columns(name, columns, tokens=_simulated_tokens(folder, origin))


def _simulated_tokens(folder: Path, origin_s: float) -> TokenSeries | None:
    if (folder / "tokens.parquet").is_file():
        times = _parquet(folder / "tokens.parquet", "time_s")["time_s"]
        return TokenSeries.of_tokens("token times", times.to_numpy() - origin_s)
    if not (folder / "timeseries.parquet").is_file():
        return None
    samples = _parquet(folder / "timeseries.parquet", "time_s", "worker", "output_tokens_per_s")
    before = pl.col("time_s").shift(1, fill_value=0.0).over("worker")
    spans = samples.with_columns(before_s=before, start_s=before.clip(lower_bound=origin_s))
    spans = spans.drop_nulls("output_tokens_per_s").filter(pl.col("time_s") > pl.col("start_s"))
    if spans.is_empty():
        return None
    tokens = spans["output_tokens_per_s"] * (spans["time_s"] - spans["before_s"])
    starts, ends = (spans[name].to_numpy() - origin_s for name in ("start_s", "time_s"))
    return TokenSeries.of_rates(starts, ends, tokens.to_numpy())


def _parquet(path: Path, *needed: str) -> pl.DataFrame:
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"not a Parquet file: {' '.join(str(error).split())[:200]}", file=path) from None
    missing = next((name for name in needed if name not in table.columns), None)
    if missing:
        raise InputError(f"no column {missing!r}; was it written by simloop run --out?", file=path)
    return table


def _nearest(path: Path) -> str:
    try:
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        return f" (nor the folder {str(path.parent)!r})"
