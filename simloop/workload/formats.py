"""How traces are laid out: which column is what, and which layout a file has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from simloop.errors import InputError, did_you_mean
from simloop.workload.files import csv_rows, delimiter_of, first_line, is_parquet, json_rows
from simloop.workload.parquet import parquet_names, parquet_rows
from simloop.workload.spec import Columns, TraceFormat

__all__ = ["FORMATS", "Layout", "find_layout"]


@attrs.frozen(kw_only=True)
class Layout:
    """Names of the columns of one file; None for what it does not have.

    Attributes:
        format: Its name.
        syntax: ``csv`` (with commas or tabs), ``jsonl`` or ``parquet``.
        unit: How times are written: a key of :data:`simloop.workload.units.UNITS`.
        time: Column of the arrival time.
        input: Column of the length of the prompt.
        output: Column of the tokens to generate.
        session: Column of the conversation's name.
        priority: Column of the priority.
        hash_ids: Column of the block hashes.
        hash_block_size: Tokens that one block hash stands for.
    """

    format: str
    syntax: str
    unit: str
    time: str | None
    input: str | None
    output: str | None
    session: str | None = None
    priority: str | None = None
    hash_ids: str | None = None
    hash_block_size: int = 16

    @property
    def names(self) -> list[str | None]:
        """The columns in the order of :class:`simloop.workload.Arrival`."""
        return [self.time, self.input, self.output, self.session, self.priority, self.hash_ids]

    def rows(self, path: Path) -> Iterator[tuple[int, Sequence[Any]]]:
        """Yield the line number of each row, and its values in the order of :attr:`names`.

        Raises:
            InputError: The file or one of its rows cannot be read.
        """
        return _ROWS[self.syntax](path, self.names)


_ROWS = {"csv": csv_rows, "jsonl": json_rows, "parquet": parquet_rows}
_SYNTAX = {"csv": "a table with a first line of column names", "jsonl": "JSON objects", "parquet": "a Parquet file"}

_LLMSERVINGSIM = Layout(
    format="llmservingsim",
    syntax="csv",
    unit="ns",
    time="arrival_time_ns",
    input="input_toks",
    output="output_toks",
    session="session_id",
    hash_ids="hash_ids",
)

FORMATS: tuple[Layout, ...] = (
    Layout(
        format="azure",
        syntax="csv",
        unit="timestamp",
        time="TIMESTAMP",
        input="ContextTokens",
        output="GeneratedTokens",
    ),
    Layout(
        format="mooncake",
        syntax="jsonl",
        unit="ms",
        time="timestamp",
        input="input_length",
        output="output_length",
        hash_ids="hash_ids",
        hash_block_size=512,
    ),
    attrs.evolve(_LLMSERVINGSIM, hash_ids=None),
    attrs.evolve(_LLMSERVINGSIM, syntax="jsonl"),
    Layout(
        format="vidur",
        syntax="csv",
        unit="s",
        time="arrived_at",
        input="num_prefill_tokens",
        output="num_decode_tokens",
    ),
)
"""The layouts whose columns are fixed."""


def find_layout(
    path: Path,
    format: TraceFormat | None,  # noqa: A002 # the name of the key
    columns: Columns | None,
    *,
    times: bool,
    lengths: bool,
) -> Layout:
    """Return how a file is laid out, from what the user said and what its first line says.

    Args:
        path: The trace.
        format: Its format, if the user named one.
        columns: The names of its columns, if the user gave them.
        times: Whether arrival times are wanted.
        lengths: Whether lengths are wanted.

    Returns:
        A layout without the columns that are not wanted.

    Raises:
        InputError: The format cannot be guessed, or a column that is wanted is not there.
    """
    syntax, there = _look(path)
    if columns is not None or format in _SYNTAX:
        layout = _plain(path, format or syntax, columns or _own(there))
    elif format is not None:
        layout = _fixed(format, syntax)
    else:
        layout = _guess(path, syntax, there)
    if layout.syntax != syntax:
        raise InputError(f"found {_SYNTAX[syntax]}, expected {_SYNTAX[layout.syntax]} (format {format})", file=path)
    layout = _wanted(layout, times=times, lengths=lengths)
    _check_required(path, layout, there, times=times, lengths=lengths)
    return _without_missing(path, layout, there, mapped=columns is not None)


def _look(path: Path) -> tuple[str, list[str]]:
    """Return the syntax of a file and the names of the columns (or keys) of its first row."""
    if is_parquet(path):
        return "parquet", parquet_names(path)
    line = first_line(path)
    if not line.lstrip().startswith("{"):
        return "csv", [name.strip().strip('"') for name in line.split(delimiter_of(line))]
    try:
        return "jsonl", list(msgspec.json.decode(line, type=dict[str, Any]))
    except msgspec.MsgspecError as error:
        raise InputError(f"expected a JSON object in each line: {error}", file=path, path="line 1") from None


def _own(there: Sequence[str]) -> Columns:
    """Return the columns that are called as simloop calls them."""
    return Columns(**{name: name for name in Columns.__struct_fields__ if name in there})


def _plain(path: Path, syntax: str, columns: Columns) -> Layout:
    unit = next((unit for unit in ("s", "ms", "ns") if getattr(columns, f"arrival_{unit}")), None)
    if columns.hash_ids is not None and syntax == "csv":
        raise InputError("a table of text cannot hold hash_ids, expected jsonl or parquet", file=path)
    return Layout(
        format=syntax,
        syntax=syntax,
        unit=unit or "s",
        time=getattr(columns, f"arrival_{unit}") if unit else None,
        input=columns.input_tokens,
        output=columns.output_tokens,
        session=columns.session,
        priority=columns.priority,
        hash_ids=columns.hash_ids,
    )


def _fixed(format: str, syntax: str) -> Layout:  # noqa: A002
    layouts = [layout for layout in FORMATS if layout.format == format]
    return next((layout for layout in layouts if layout.syntax == syntax), layouts[0])


def _guess(path: Path, syntax: str, there: Sequence[str]) -> Layout:
    for layout in FORMATS:
        if layout.syntax == syntax and {layout.input, layout.output} <= set(there):
            return layout
    if {"arrival_s", "arrival_ms", "arrival_ns", "input_tokens", "output_tokens"} & set(there):
        return _plain(path, syntax, _own(there))
    raise InputError(
        f"cannot tell its format from the names {_listed(there)}; say format (azure, mooncake, llmservingsim, vidur) "
        f"or columns ({', '.join(Columns.__struct_fields__)})",
        file=path,
        path="line 1",
    )


def _wanted(layout: Layout, *, times: bool, lengths: bool) -> Layout:
    if not times:
        layout = attrs.evolve(layout, time=None)
    if not lengths:
        layout = attrs.evolve(layout, input=None, output=None, session=None, priority=None, hash_ids=None)
    return layout


def _check_required(path: Path, layout: Layout, there: Sequence[str], *, times: bool, lengths: bool) -> None:
    required = [("arrival_s, arrival_ms or arrival_ns", layout.time)] if times else []
    required += [("input_tokens", layout.input), ("output_tokens", layout.output)] if lengths else []
    for ours, name in required:
        if name is None:
            message = f"no column for {ours} among {_listed(there)}; name it in columns"
            raise InputError(message, file=path, path="line 1")
        if name not in there:
            raise _missing(path, name, there)


def _without_missing(path: Path, layout: Layout, there: Sequence[str], *, mapped: bool) -> Layout:
    """Drop optional columns that are not there, unless the user named them; a later JSON row may still have them."""
    absent = [key for key in ("session", "priority", "hash_ids") if getattr(layout, key) not in (None, *there)]
    if mapped and absent:
        raise _missing(path, getattr(layout, absent[0]), there)
    if layout.syntax == "jsonl":
        return layout
    none: dict[str, Any] = dict.fromkeys(absent)
    return attrs.evolve(layout, **none)


def _missing(path: Path, name: str, there: Sequence[str]) -> InputError:
    message = f"no column {name!r}{did_you_mean(name, there)} (there are: {_listed(there)})"
    return InputError(message, file=path, path="line 1")


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(names)
    return text if len(text) <= 120 else f"{text[:117]}..."
