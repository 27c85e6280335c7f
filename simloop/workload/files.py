"""Lines and table rows of a file, plain or gzipped, one at a time; whatever is wrong with it has a line number."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from simloop.errors import InputError, did_you_mean
from simloop.workload.units import shorten

__all__ = ["count_lines", "csv_rows", "delimiter_of", "first_line", "is_parquet", "json_rows", "open_lines"]

_GZIP = b"\x1f\x8b"


def open_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file, unpacked if it is gzipped.

    Raises:
        InputError: It is missing, unreadable, not text, or its gzip data is damaged or ends early.
    """
    number = 0
    try:
        with _open(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as text:
            for line in text:
                number += 1
                yield line
    except EOFError:
        raise InputError("the gzip data ends early; is the file complete?", file=path, path=_after(number)) from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"the gzip data is damaged: {error}", file=path, path=_after(number)) from None
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text: {error.reason}", file=path, path=_after(number)) from None
    except FileNotFoundError:
        raise InputError(f"there is no such file{_nearest(path)}", file=path) from None
    except IsADirectoryError:
        raise InputError("found a folder, expected a file", file=path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=path) from None


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path, "rb")) if _starts_with(path, _GZIP) else path.open("rb")


def _starts_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def is_parquet(path: Path) -> bool:
    """Tell whether a file begins as Parquet files do; one that cannot be read does not."""
    try:
        return _starts_with(path, b"PAR1")
    except OSError:
        return False


def _after(number: int) -> str:
    return f"after line {number}"


def _nearest(path: Path) -> str:
    try:
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir()])
    except OSError:
        return f" (nor the folder {str(path.parent)!r})"


def count_lines(path: Path) -> int:
    """Return how many lines of a file are not blank.

    Raises:
        InputError: As :func:`open_lines`.
    """
    return sum(1 for line in open_lines(path) if not line.isspace())


def first_line(path: Path) -> str:
    """Return the first line that is not blank, without its end.

    Raises:
        InputError: As :func:`open_lines`, or there is none.
    """
    for line in open_lines(path):
        if line.strip():
            return line.strip("\r\n")
    raise InputError("the file is empty, expected a trace of at least one request", file=path)


def delimiter_of(header: str) -> str:
    """Return what separates the columns: a tab if the first line has one, else a comma."""
    return "\t" if "\t" in header else ","


def csv_rows(path: Path, names: Sequence[str | None]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield line number and text of the named columns, row by row; None stands for a column that is not there.

    Args:
        path: A table with its column names in the first line, separated by commas or tabs.
        names: Columns to take; all that are not None must be there.

    Raises:
        InputError: As :func:`open_lines`; a row has too few or too many fields.
    """
    delimiter = delimiter_of(first_line(path))
    reader = csv.reader(open_lines(path), delimiter=delimiter)
    try:
        header = next(row for row in reader if row)
        width = len(header)
        stripped = [name.strip() for name in header]
        pick = itemgetter(*(-1 if name is None else stripped.index(name) for name in names))
        for row in reader:
            if len(row) == width:
                row.append(None)  # type: ignore[arg-type] # what pick finds at -1
                yield reader.line_num, pick(row)
            elif row:
                message = f"found {len(row)} fields, expected {width} as in the first line"
                raise InputError(message, file=path, path=f"line {reader.line_num}")
    except csv.Error as error:
        raise InputError(f"not valid CSV: {error}", file=path, path=f"line {reader.line_num}") from None


def json_rows(path: Path, names: Sequence[str | None]) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield line number and the named values, line by line; None stands for a value that is not there.

    Args:
        path: One JSON object a line.
        names: Keys to take; which of them must be there is the caller's concern.

    Raises:
        InputError: As :func:`open_lines`; a line is not a JSON object.
    """
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    for number, line in enumerate(open_lines(path), 1):
        if line.isspace():
            continue
        try:
            row = decode(line)
        except (msgspec.MsgspecError, RecursionError) as error:
            message = f"found {shorten(line.strip())}, expected a JSON object: {error}"
            raise InputError(message, file=path, path=f"line {number}") from None
        yield number, [None if name is None else row.get(name) for name in names]
