"""Rows of a Parquet file, a slice at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from simloop.errors import InputError

__all__ = ["parquet_names", "parquet_rows"]

_SLICE = 65_536


def parquet_names(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises:
        InputError: The file cannot be read.
    """
    import polars as pl

    try:
        return list(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"not a Parquet file: {_one_line(error)}", file=path) from None


def parquet_rows(path: Path, names: Sequence[str | None]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield row number (from 1) and values of the named columns, row by row; None for a column that is not there.

    Raises:
        InputError: The file cannot be read.
    """
    import polars as pl

    scan = pl.scan_parquet(path).select([name for name in dict.fromkeys(names) if name is not None])
    start = 0
    while True:
        try:
            table = scan.slice(start, _SLICE).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(f"cannot be read: {_one_line(error)}", file=path, path=f"after row {start}") from None
        for number, row in enumerate(table.iter_rows(named=True), start + 1):
            yield number, [None if name is None else row[name] for name in names]
        start += len(table)
        if len(table) < _SLICE:
            return


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
