"""Tables of requests whose columns the user names: CSV, JSON Lines, Parquet."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec
import numpy as np

from simloop.errors import InputError, did_you_mean
from simloop.workload.files import csv_rows, delimiter_of, first_line, is_parquet, json_rows
from simloop.workload.parquet import parquet_names, parquet_rows

__all__ = ["KEYS", "parse_columns", "read_columns"]

_TIMES = ("arrival", "first_token", "finish", "ttft", "tpot", "e2e")
_UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_OTHERS = ("id", "input_tokens", "output_tokens", "failed")
KEYS = (*_OTHERS, *(f"{time}_{unit}" for time in _TIMES for unit in _UNITS))
"""What a column can be: ``ttft_ms`` is the time to first token in milliseconds."""

_NOT_FAILED = {None, "", "0", "false", "no", "none", "null"}


def parse_columns(text: str) -> dict[str, str]:
    """Read ``ttft_ms=ttft,e2e_ms=latency``.

    Raises:
        InputError: It is not written so.
    """
    columns: dict[str, str] = {}
    for part in text.split(","):
        key, equals, name = (piece.strip() for piece in part.partition("="))
        if not (equals and name):
            raise InputError(f"found {part!r}, expected KEY=COLUMN, as in ttft_ms=first_token", file="--columns")
        if key in columns:
            raise InputError("given twice", file="--columns", path=key)
        columns[key] = name
    check_keys(columns, file="--columns")
    return columns


def check_keys(columns: Mapping[str, str], *, file: object = None) -> None:
    """Check what a mapping of columns calls them.

    Raises:
        InputError: There is no such key; or two that say the same, or none that says how long anything took.
    """
    for key in columns:
        if key not in KEYS:
            listed = f"{', '.join(_OTHERS)}, and {', '.join(_TIMES)} with _s, _ms, _us or _ns"
            raise InputError(f"expected one of {listed}{did_you_mean(key, KEYS)}", file=file, path=key)
    times = [key.rpartition("_")[0] for key in columns if key not in _OTHERS]
    twice = next((time for time in times if times.count(time) > 1), None)
    if twice:
        raise InputError(f"{twice} is given in two units, expected one", file=file)
    durations = {"ttft", "tpot", "e2e"} & set(times) or ("arrival" in times and {"first_token", "finish"} & set(times))
    if not durations:
        raise InputError(
            "no column of durations, expected at least one of ttft, tpot, e2e; or arrival with first_token or finish",
            file=file,
        )


def read_columns(path: Path, columns: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read a table of requests into the columns of a :class:`~simloop.explore.RunLog`.

    Args:
        path: A CSV file with column names in its first line, JSON Lines, either of them gzipped, or Parquet.
        columns: Key of :data:`KEYS` -> name of the column; columns called like a key if not given.

    Raises:
        InputError: The file or one of its values cannot be read.
    """
    table = _Table.open(path)
    if columns is None:
        columns = {key: key for key in KEYS if key in table.names}
        if not columns:
            keys = "arrival_s=...,ttft_s=...,e2e_s=..."
            raise InputError(
                f"cannot tell its columns ({_listed(table.names)}); name them: --columns {keys}", file=path
            )
    check_keys(columns, file=path)
    for key, name in columns.items():
        if name not in table.names:
            near = did_you_mean(name, table.names)
            raise InputError(f"no column {name!r} for {key}{near} (there are: {_listed(table.names)})", file=path)
    return _with_durations(table.read(columns))


@attrs.frozen
class _Table:
    """A file of rows.

    Attributes:
        path: The file.
        names: Its columns.
        rows: What reads some of them.
        row: What a row is called in messages.
    """

    path: Path
    names: Sequence[str]
    rows: Callable[..., Any]
    row: str = "line"

    @classmethod
    def open(cls, path: Path) -> _Table:
        """Find out what kind of file it is."""
        if is_parquet(path):
            return cls(path, parquet_names(path), parquet_rows, "row")
        line = first_line(path)
        if not line.lstrip().startswith("{"):
            return cls(path, [name.strip().strip('"') for name in line.split(delimiter_of(line))], csv_rows)
        try:
            return cls(path, list(msgspec.json.decode(line, type=dict[str, Any])), json_rows)
        except msgspec.MsgspecError as error:
            message = f"expected a JSON object in each line: {error}"
            raise InputError(message, file=path, path="line 1") from None

    def read(self, columns: Mapping[str, str]) -> dict[str, Any]:
        """Return the values of the named columns, by key; times in seconds."""
        read: dict[str, list[Any]] = {key: [] for key in columns}
        readers = [(values, columns[key], *_reader(key)) for key, values in read.items()]
        # A name too many, since csv_rows gives the bare value where there is one.
        for line, row in self.rows(self.path, [*columns.values(), None]):
            for value, (values, name, parse, expected) in zip(row, readers, strict=False):
                try:
                    values.append(parse(value))
                except (TypeError, ValueError, OverflowError):
                    message = f"{name}: found {str(value)[:40]!r}, expected {expected}"
                    raise InputError(message, file=self.path, path=f"{self.row} {line}") from None
        if not all(read.values()):
            raise InputError("no request in it, expected at least one", file=self.path)
        return read


def _reader(key: str) -> tuple[Callable[[Any], Any], str]:
    """Return what reads a value of one key, and what it expects."""
    if key == "id":
        return lambda value: None if value is None else str(value), "text"
    if key == "failed":
        return lambda value: (value if value is None else str(value).strip().lower()) not in _NOT_FAILED, "a truth"
    if key in _OTHERS:
        return _tokens, "a whole number >= 0"
    time, _, unit = key.rpartition("_")
    scale = _UNITS[unit]
    if time in ("arrival", "first_token", "finish"):
        return lambda value: _seconds(value, scale, -math.inf), "a number"
    return lambda value: _seconds(value, scale, 0.0), "a number >= 0"


def _tokens(value: Any) -> int | None:
    if value is None or value == "":
        return None
    number = float(value)
    if not 0 <= number <= 1e9 or number != int(number):
        raise ValueError
    return int(number)


def _seconds(value: Any, scale: float, least: float) -> float | None:
    if value is None or value == "":
        return None
    number = float(value) / scale
    if math.isnan(number):
        return None
    if math.isinf(number) or number < least:
        raise ValueError
    return number


def _with_durations(read: dict[str, Any]) -> dict[str, Any]:
    """Name columns as a log does, and turn times of day into durations."""
    seconds = {key.rpartition("_")[0]: values for key, values in read.items() if key not in _OTHERS}
    for duration, end in (("ttft", "first_token"), ("e2e", "finish")):
        ends = seconds.pop(end, None)
        if ends is not None and "arrival" in seconds and duration not in seconds:
            apart = np.array(ends, np.float64) - np.array(seconds["arrival"], np.float64)
            seconds[duration] = [None if math.isnan(one) else float(one) for one in apart]
    columns = {f"{time}_s": values for time, values in seconds.items()}
    for key, name in (("id", "id"), ("input_tokens", "prompt_tokens"), ("output_tokens", "output_tokens")):
        if key in read:
            columns[name] = read[key]
    if "failed" in read:
        columns["finished"] = [not failed for failed in read["failed"]]
    return columns


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 120 else f"{text[:117]}..."
