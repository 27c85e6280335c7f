"""Trace files -> a stream of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import attrs

from simloop.errors import InputError
from simloop.workload.arrival import Arrival
from simloop.workload.files import count_lines
from simloop.workload.formats import Layout, find_layout
from simloop.workload.spec import LengthSpec, TraceSpec
from simloop.workload.units import UNITS, shorten, to_hash_ids, to_priority, to_session, to_tokens

__all__ = ["Trace", "open_trace"]

_Field: TypeAlias = tuple[Callable[[Any], Any], str]
"""What reads a value, raising ValueError, and what it expects."""

_UNIX_NS = 10**17
"""Times beyond this (3 years) are taken for the time of day that a log recorded, not for time since its beginning."""


@attrs.frozen
class Trace:
    """A file of requests that was looked at, and can be read any number of times.

    Attributes:
        path: The file.
        layout: Which of its columns is what.
    """

    path: Path
    layout: Layout

    def arrivals(self, *, rate_scale: float = 1.0, limit: int | None = None, offset: int = 0) -> Iterator[Arrival]:
        """Yield the requests in their order.

        Times that are times of day count from the first request that is taken, and so does every time once requests
        are skipped; others stay as they are.

        Args:
            rate_scale: How much faster than recorded.
            limit: Most requests to take.
            offset: Requests to skip first.

        Raises:
            InputError: A row cannot be used; there is none; times fall.
        """
        origin: int | None = None
        last = 0
        for line, (time_ns, *rest) in self._values(offset, limit):
            if origin is None:
                origin = last = self._origin(time_ns, offset)
            if time_ns < last:
                self._fail_order(line, time_ns, last)
            last = time_ns
            since_ns = time_ns - origin
            yield Arrival(since_ns if rate_scale == 1.0 else round(since_ns / rate_scale), *rest)

    def times_ns(self, *, rate_scale: float = 1.0, limit: int | None = None, offset: int = 0) -> Iterator[int]:
        """Yield the times alone; as :meth:`arrivals`."""
        return (arrival.arrival_ns for arrival in self.arrivals(rate_scale=rate_scale, limit=limit, offset=offset))

    def count(self, *, limit: int | None = None, offset: int = 0) -> int | None:
        """Return how many requests there are to take, or None where counting would take long; rows are not checked."""
        if self.layout.syntax == "parquet" or self.path.stat().st_size > _COUNTABLE_BYTES:
            return None
        rows = count_lines(self.path) - (self.layout.syntax == "csv") - offset
        return rows if limit is None else min(rows, limit)

    def _values(self, offset: int, limit: int | None) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Yield line number and the values of an :class:`Arrival`, time as recorded, for each row that is taken."""
        fields = self._fields()
        time, prompt, output, *optional = [read for read, _ in fields]
        plain = self.layout.names[3:] == [None, None, None]
        line = 0
        for line, row in islice(self.layout.rows(self.path), offset, None if limit is None else offset + limit):
            try:
                values: tuple[Any, ...] = time(row[0]), prompt(row[1]), output(row[2])
                if not plain:
                    values += tuple(read(value) for read, value in zip(optional, row[3:], strict=True))
                    values += (self.layout.hash_block_size,)
            except (ValueError, OverflowError):
                raise self._error(line, row, fields) from None
            yield line, values
        if line == 0:
            where = f"after the first {offset:,}, which offset skips" if offset else "in it"
            raise InputError(f"no request {where}, expected at least one", file=self.path)

    def _fields(self) -> list[_Field]:
        """Return what reads each value of a row; where there is no column, that is a constant."""
        layout = self.layout
        return [
            UNITS[layout.unit] if layout.time else (lambda _: 0, ""),
            (to_tokens, "a whole number >= 1") if layout.input else (lambda _: 1, ""),
            (to_tokens, "a whole number >= 1 (an engine generates at least one)")
            if layout.output
            else (lambda _: 1, ""),
            (to_session, "text or a whole number"),
            (to_priority, "a whole number"),
            (to_hash_ids, "a list of whole numbers"),
        ]

    def _origin(self, first_ns: int, offset: int) -> int:
        absolute = self.layout.unit == "timestamp" or offset > 0 or first_ns >= _UNIX_NS
        return first_ns if absolute else 0

    def _error(self, line: int, row: Sequence[Any], fields: Sequence[_Field]) -> InputError:
        """Return what to say about a row that cannot be read: its first value that cannot."""
        message = "cannot be read"
        for value, name, (read, expected) in zip(row, self.layout.names, fields, strict=True):
            try:
                read(value)
            except (ValueError, OverflowError):
                found = "nothing" if value is None or value == "" else shorten(value)
                message = f"{name}: found {found}, expected {expected}"
                break
        return InputError(message, file=self.path, path=self._place(line))

    def _fail_order(self, line: int, time_ns: int, last_ns: int) -> NoReturn:
        if time_ns < 0:
            message = f"{self.layout.time}: found a negative time, expected at least 0"
        else:
            early = (last_ns - time_ns) / 1e9
            message = f"{self.layout.time}: {early:g} s earlier than the row before, expected a file sorted by time"
        raise InputError(message, file=self.path, path=self._place(line))

    def _place(self, line: int) -> str:
        return f"{'row' if self.layout.syntax == 'parquet' else 'line'} {line}"


_COUNTABLE_BYTES = 4 * 2**20
"""Larger files are not read just to say how many requests are to come."""


def open_trace(
    spec: TraceSpec | LengthSpec, base_dir: Path | None, *, times: bool = True, lengths: bool = True
) -> Trace:
    """Look at a trace file and find out how to read it.

    Args:
        spec: Its path, and its format and columns where they were given.
        base_dir: What a relative path is relative to; the working directory if not given.
        times: Whether arrival times are wanted.
        lengths: Whether lengths are wanted.

    Raises:
        InputError: It cannot be read, has no request, or its first request cannot be used.
    """
    path = Path(base_dir or ".", str(spec.path)).expanduser()
    layout = find_layout(path, spec.format, spec.columns, times=times, lengths=lengths)
    if isinstance(spec, TraceSpec) and spec.hash_block_size is not None:
        layout = attrs.evolve(layout, hash_block_size=spec.hash_block_size)
    trace = Trace(path, layout)
    next(trace.arrivals(offset=spec.offset if isinstance(spec, TraceSpec) else 0))
    return trace
