"""CSV tables of measurements, plain or gzipped, with errors that name the line."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from simloop.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Columns", "find_table", "has_table", "header_of", "number", "read_table", "time_number", "whole"]

Columns: TypeAlias = Mapping[str, Callable[[str], Any]]
"""Names of the columns to read, and what turns a cell into a value (raising ``ValueError`` with what was expected)."""


def whole(cell: str) -> int:
    """Return a cell as a whole number that is not negative."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (value >= 0 and value.is_integer()):
        raise ValueError("a whole number that is not negative")
    return int(value)


def number(cell: str) -> float:
    """Return a cell as a finite number."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError("a number")
    return value


def time_number(cell: str) -> float:
    """Return a cell as a time: a finite number above zero."""
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise ValueError("a time above zero")
    return value


def has_table(folder: Path, name: str) -> Path | None:
    """Return ``folder/name.csv`` or ``folder/name.csv.gz``, whichever exists, or ``None``."""
    return next((file for end in (".csv", ".csv.gz") if (file := folder / f"{name}{end}").is_file()), None)


def find_table(folder: Path, name: str) -> Path:
    """Return the file of a table that must be there.

    Raises:
        InputError: There is neither ``name.csv`` nor ``name.csv.gz`` in the folder.
    """
    file = has_table(folder, name)
    if file is None:
        raise InputError(f"has neither {name}.csv nor {name}.csv.gz", file=folder)
    return file


def read_table(file: Path, columns: Columns, *, where: Mapping[str, str] | None = None) -> list[tuple[Any, ...]]:
    """Return the rows of a table, only the named columns, in their order; others are ignored.

    Args:
        file: A CSV file, gzipped if its name ends in ``.gz``.
        columns: Columns to read.
        where: Keep only rows whose cells are these texts.

    Raises:
        InputError: The file cannot be read, lacks a column or rows, or a cell is wrong; the message names the line.
    """
    try:
        rows = _all_right(file, columns, where or {})
        if rows is not None:
            return rows
        with _open(file) as stream:
            reader = csv.reader(stream)
            header = next(reader, [])
            rows = list(_rows(file, reader, header, columns, where or {}))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", file=file) from error
    if not rows:
        wanted = "".join(f", {key} = {value}" for key, value in (where or {}).items())
        raise InputError(f"has no rows{wanted}", file=file)
    return rows


def _all_right(file: Path, columns: Columns, where: Mapping[str, str]) -> list[tuple[Any, ...]] | None:
    """Read a table in which nothing is wrong, ten times as fast; ``None`` where line by line will say what is."""
    import polars as pl

    if not all(convert is str or convert in _RIGHT for convert in columns.values()):
        return None
    try:
        frame = pl.read_csv(file, columns=list({**columns, **where}), infer_schema=False).fill_null("")
        frame = frame.filter(*(pl.col(name) == text for name, text in where.items()))
        frame = frame.with_columns(
            pl.col(name).cast(pl.Float64) for name, convert in columns.items() if convert is not str
        )
        right = [_RIGHT[convert](pl.col(name)).all() for name, convert in columns.items() if convert is not str]
        if frame.is_empty() or not all(frame.select(pl.all_horizontal(*right)).row(0) if right else ()):
            return None
        whole_columns = [pl.col(name).cast(pl.Int64) for name, convert in columns.items() if convert is whole]
        return frame.with_columns(*whole_columns).select(list(columns)).rows()
    except (pl.exceptions.PolarsError, OSError):
        return None


_RIGHT: dict[Callable[[str], Any], Callable[[pl.Expr], pl.Expr]] = {
    whole: lambda column: (column >= 0) & (column == column.floor()) & column.is_finite(),
    number: lambda column: column.is_finite(),
    time_number: lambda column: (column > 0) & column.is_finite(),
}
"""What a column must be like for each way to read it."""


def header_of(file: Path) -> list[str]:
    """Return the names of a table's columns.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with _open(file) as stream:
            return next(csv.reader(stream), [])
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", file=file) from error


def _open(file: Path) -> IO[str]:
    return gzip.open(file, "rt", encoding="utf-8", newline="") if file.suffix == ".gz" else file.open(newline="")


def _rows(
    file: Path, reader: Iterator[list[str]], header: list[str], columns: Columns, where: Mapping[str, str]
) -> Iterator[tuple[Any, ...]]:
    picked = [(name, _place(file, header, name), convert) for name, convert in columns.items()]
    wanted = [(_place(file, header, name), text) for name, text in where.items()]
    for line, row in enumerate(reader, 2):
        if not row:
            continue
        if len(row) != len(header):
            raise InputError(f"has {len(row)} cells, the header has {len(header)}", file=file, path=f"line {line}")
        if all(row[place] == text for place, text in wanted):
            yield tuple(_cell(file, line, name, row[place], convert) for name, place, convert in picked)


def _place(file: Path, header: list[str], name: str) -> int:
    if name not in header:
        found = ", ".join(header) or "nothing"
        raise InputError(f"no column {name!r}{did_you_mean(name, header)} (there are: {found})", file=file)
    return header.index(name)


def _cell(file: Path, line: int, name: str, cell: str, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(cell)
    except ValueError as error:
        raise InputError(f"{name}: expected {error}, found {cell!r}", file=file, path=f"line {line}") from error
