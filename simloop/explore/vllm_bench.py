"""Result files of ``vllm bench serve``: with the times of each request, or with percentiles only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from simloop.errors import InputError
from simloop.explore.run_log import STATISTICS, Key, RunLog
from simloop.explore.token_series import TokenSeries

__all__ = ["is_bench_result", "read_bench_result"]

_METRICS = {"ttft": "ttft", "tpot": "tpot", "e2e": "e2el"}
_REPORTED: dict[str, tuple[Key, float]] = {
    "duration": (("makespan", ""), 1.0),
    "request_throughput": (("request_throughput", ""), 1.0),
    "output_throughput": (("output_throughput", ""), 1.0),
    **{
        f"{name}_{theirs}_ms": ((metric, statistic), 1e3)
        for metric, theirs in _METRICS.items()
        for statistic in STATISTICS
        for name in ({statistic, "median"} if statistic == "p50" else {statistic})
    },
}
"""Key of the file -> our figure, and how many of theirs are one of ours."""


class _Lists(msgspec.Struct, kw_only=True):
    """The lists of a result that was saved in detail; one element per request. All times in seconds."""

    ttfts: list[float | None]
    itls: list[list[float]] | None = None
    input_lens: list[int | None] | None = None
    output_lens: list[int | None] | None = None
    start_times: list[float] | None = None
    latencies: list[float | None] | None = None
    errors: list[str | None] | None = None


def is_bench_result(document: Any) -> bool:
    """Tell whether a JSON document is such a result."""
    return isinstance(document, Mapping) and ("ttfts" in document or not _REPORTED.keys().isdisjoint(document))


def read_bench_result(path: Path, document: Mapping[str, Any]) -> RunLog:
    """Return what a result says; requests that failed count in nothing, as in vLLM.

    Args:
        path: The file, for messages.
        document: What is in it.

    Raises:
        InputError: Its lists cannot be used.
    """
    reported = {figure: _number(path, key, document[key]) / per for key, (figure, per) in _REPORTED.items()
                if document.get(key) is not None}  # fmt: skip
    if not document.get("ttfts"):
        if not reported:
            raise InputError("found no figure, expected mean_ttft_ms and its like, or ttfts", file=path)
        return RunLog.of_columns(path.name, {}, reported=reported)
    lists = _lists(path, document)
    columns: dict[str, Any] = {"ttft_s": lists.ttfts, "e2e_s": _latencies(lists)}
    given = {"prompt_tokens": lists.input_lens, "output_tokens": lists.output_lens, "arrival_s": lists.start_times}
    columns |= {name: values for name, values in given.items() if values is not None}
    columns["finished"] = _succeeded(lists)
    return RunLog.of_columns(path.name, columns, tokens=_token_series(lists), reported=reported)


def _number(path: Path, key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"found {value!r}, expected a number", file=path, path=key)
    return float(value)


def _lists(path: Path, document: Mapping[str, Any]) -> _Lists:
    try:
        lists = msgspec.convert(document, _Lists)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$.")
        raise InputError(message, file=path, path=place.removesuffix("`") or None) from None
    for name in lists.__struct_fields__:
        values = getattr(lists, name)
        if values is not None and len(values) != len(lists.ttfts):
            message = f"found {len(values)} elements, expected {len(lists.ttfts)}, as many as ttfts has"
            raise InputError(message, file=path, path=name)
    return lists


def _succeeded(lists: _Lists) -> list[bool]:
    """A request that failed says why, or has no time to its first token."""
    errors = lists.errors or [None] * len(lists.ttfts)
    return [not error and bool(ttft) for error, ttft in zip(errors, lists.ttfts, strict=True)]


def _latencies(lists: _Lists) -> list[float | None]:
    """Return the end-to-end latencies: as stated, or the first token's and all gaps after it together."""
    if lists.latencies is not None:
        return lists.latencies
    if lists.itls is None:
        return [None] * len(lists.ttfts)
    return [None if ttft is None else ttft + sum(itl) for ttft, itl in zip(lists.ttfts, lists.itls, strict=True)]


def _token_series(lists: _Lists) -> TokenSeries | None:
    """Return every token's time; a chunk of the stream that held several counts as so many."""
    if lists.itls is None or lists.start_times is None:
        return None
    times, weights = [], []
    origin = min(lists.start_times)
    outputs = lists.output_lens or [None] * len(lists.ttfts)
    for ok, start, ttft, itl, output in zip(
        _succeeded(lists), lists.start_times, lists.ttfts, lists.itls, outputs, strict=True
    ):
        if ok and ttft is not None:
            times.append(start - origin + np.cumsum([ttft, *itl]))
            chunks = len(itl) + 1
            weights.append(np.full(chunks, (chunks if output is None else output) / chunks))
    if not times:
        return None
    return TokenSeries.of_tokens("token times", np.concatenate(times), np.concatenate(weights))
