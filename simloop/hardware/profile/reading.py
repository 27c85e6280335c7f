"""CSV tables of measurements, plain or gzipped, with errors that name the line."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeAlias

from simloop.errors import InputError, did_you_mean

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
