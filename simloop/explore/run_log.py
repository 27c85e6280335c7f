"""What is known of a run, simulated or real, in one shape for both."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import polars as pl

from simloop.errors import InputError
from simloop.explore.token_series import TokenSeries

if TYPE_CHECKING:
    import numpy.typing as npt

    from simloop.metrics import Result

__all__ = ["LATENCIES", "SCHEMA", "STATISTICS", "Key", "RunLog"]

SCHEMA: dict[str, Any] = {
    "id": pl.String,
    "arrival_s": pl.Float64,
    "prompt_tokens": pl.Int64,
    "output_tokens": pl.Int64,
    "ttft_s": pl.Float64,
    "tpot_s": pl.Float64,
    "e2e_s": pl.Float64,
    "finished": pl.Boolean,
    "hash_ids": pl.List(pl.Int64),
}
"""The columns of :attr:`RunLog.requests`; what is not known is null."""

LATENCIES = ("ttft", "tpot", "e2e")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")

Key = tuple[str, str]
"""A metric and its statistic: ``("ttft", "p99")``; the statistic is ``""`` where there is one figure only."""


@attrs.frozen(eq=False)
class RunLog:
    """What is known of a run: each request with its times, the tokens over time, and figures without either.

    Attributes:
        name: What to call it.
        requests: One row per request in order of arrival, with the columns of :data:`SCHEMA`; times in seconds,
            arrivals since the first one. Empty where only figures are known.
        tokens: Output tokens over time, where known better than from the requests' first and last tokens.
        reported: Figures that a file states, in seconds and per second; they count where requests do not tell.
    """

    name: str
    requests: pl.DataFrame
    tokens: TokenSeries | None = None
    reported: Mapping[Key, float] = attrs.field(factory=dict)

    @classmethod
    def of_columns(cls, name: str, columns: Mapping[str, Any], **rest: Any) -> RunLog:
        """Return the log of requests that were measured.

        What follows from other columns is filled in: the TPOT from TTFT, latency and tokens, or the latency from TPOT.

        Args:
            name: What to call it.
            columns: Any columns of :data:`SCHEMA`, in any order of rows; arrivals by any clock.
            rest: Other attributes.
        """
        given = pl.DataFrame(dict(columns), schema_overrides={key: SCHEMA[key] for key in columns})
        null = [pl.lit(None, kind).alias(key) for key, kind in SCHEMA.items() if key not in columns]
        table = given.with_columns(null).select(list(SCHEMA)).with_columns(pl.col("finished").fill_null(True))
        gaps = pl.when(pl.col("output_tokens") > 1).then(pl.col("output_tokens") - 1)
        table = table.with_columns(
            pl.col("arrival_s") - pl.col("arrival_s").min(),
            pl.col("e2e_s").fill_null(pl.col("ttft_s") + pl.col("tpot_s") * gaps.fill_null(0)),
        )
        table = table.with_columns(pl.col("tpot_s").fill_null((pl.col("e2e_s") - pl.col("ttft_s")) / gaps))
        return cls(name, table.sort("arrival_s", maintain_order=True, nulls_last=True), **rest)

    @classmethod
    def of_result(cls, result: Result, name: str = "simulated") -> RunLog:
        """Return the log of a simulation, with the exact time of every token."""
        return cls.of_columns(name, simulated_columns(result.requests), tokens=_token_series(result))

    @cached_property
    def figures(self) -> dict[Key, float]:
        """Every figure that is known: of the finished requests if there are any, else as reported."""
        measured = dict(self._measured())
        return {**self.reported, **measured}

    def values(self, column: str) -> npt.NDArray[np.float64]:
        """Return a column of the requests, NaN for those that did not finish or where it is not known."""
        kept = pl.when(pl.col("finished")).then(pl.col(column).cast(pl.Float64))
        return self.requests.select(kept.fill_null(float("nan"))).to_series().to_numpy()

    @property
    def end_s(self) -> float:
        """When the last request ended or the last token came out, seconds since the first arrival; 0 if not known."""
        ends = self.values("arrival_s") + self.values("e2e_s")
        return max(float(np.nanmax(ends, initial=0.0)), self.tokens.end_s if self.tokens else 0.0)

    @cached_property
    def spread_tokens(self) -> TokenSeries | None:
        """Output tokens over time, each request's spread evenly from its first to its last; ``None`` if not known."""
        known = self.requests.filter("finished").drop_nulls(["arrival_s", "ttft_s", "e2e_s", "output_tokens"])
        if known.is_empty():
            return None
        arrival, ttft, e2e = (known[name].to_numpy() for name in ("arrival_s", "ttft_s", "e2e_s"))
        return TokenSeries.of_spread(arrival + ttft, arrival + e2e, known["output_tokens"].to_numpy())

    def write_trace(self, path: str | Path) -> Path:
        """Write the requests as a trace that a scenario can replay (``workload: {trace: {path: ...}}``).

        One JSON object a line: ``arrival_s``, ``input_tokens``, ``output_tokens``, and ``hash_ids`` where known.
        Requests that failed are in it too, if their sizes are known.

        Returns:
            The file.

        Raises:
            InputError: A request has no arrival or no sizes, or the file cannot be written.
        """
        needed = ["arrival_s", "prompt_tokens", "output_tokens"]
        for name in needed:
            if self.requests[name].null_count() or self.requests.is_empty():
                raise InputError(f"cannot be replayed: {name} is not known of every request", file=self.name)
        target = Path(path)
        staging = target.with_name(f".{target.name}.{os.getpid()}.new")
        try:
            with staging.open("w", encoding="utf-8") as file:
                file.writelines(f"{json.dumps(row)}\n" for row in self._trace_rows())
            staging.replace(target)
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", file=path) from error
        finally:
            staging.unlink(missing_ok=True)
        return target

    def _trace_rows(self) -> Iterator[dict[str, Any]]:
        columns = ["arrival_s", "prompt_tokens", "output_tokens", "hash_ids"]
        for arrival, prompt, output, hashes in self.requests.select(columns).iter_rows():
            row = {"arrival_s": round(arrival, 9), "input_tokens": prompt, "output_tokens": output}
            yield row if hashes is None else {**row, "hash_ids": hashes}

    def _measured(self) -> Iterator[tuple[Key, float]]:
        for metric in LATENCIES:
            values = self.values(f"{metric}_s")
            values = values[~np.isnan(values)]
            if len(values):
                yield (metric, "mean"), float(values.mean())
                for statistic in STATISTICS[1:]:
                    yield (metric, statistic), float(np.percentile(values, float(statistic[1:])))
        ends = self.values("arrival_s") + self.values("e2e_s")
        ended = ~np.isnan(ends)
        if not ended.any():
            return
        makespan = float(ends[ended].max())
        yield ("makespan", ""), makespan
        if makespan > 0:
            yield ("request_throughput", ""), float(ended.sum() / makespan)
            outputs = self.values("output_tokens")[ended]
            if not np.isnan(outputs).any():
                yield ("output_throughput", ""), float(outputs.sum() / makespan)


def _token_series(result: Result) -> TokenSeries:
    """Count the tokens of each step, which come out together, and those of prefills: O(steps), not O(tokens)."""
    tokens, steps = result.tokens, len(result.tokens.step_ends)
    joining, leaving = (np.bincount(place, minlength=steps + 1) for place in (tokens.starts, tokens.stops))
    firsts = tokens.firsts[tokens.firsts >= 0]
    times_ns = np.concatenate([tokens.step_ends, firsts])
    counts = np.concatenate([(joining - leaving).cumsum()[:steps], np.ones(len(firsts), np.int64)])
    came = counts > 0
    origin_ns = int(result.table["arrival_ns"].min(initial=2**62))
    return TokenSeries.of_tokens("token times", (times_ns[came] - origin_ns) / 1e9, counts[came].astype(np.float64))


def simulated_columns(requests: pl.DataFrame) -> dict[str, Any]:
    """Return the columns of a log from the table of requests of a simulation.

    ``output_tokens`` is what was generated where a request finished, and what was asked for where it did not.
    """
    finished = requests["status"] == "finished"
    names = ("arrival_s", "prompt_tokens", "output_tokens", "ttft_s", "tpot_s", "e2e_s")
    return {"id": requests["request_id"].cast(pl.String), "finished": finished, **{n: requests[n] for n in names}}
