"""Trace files -> a stream of requests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import attrs

from simloop.errors import InputError
from simloop.workload.arrival import Arrival
from simloop.workload.formats import Layout, find_layout
from simloop.workload.spec import LengthSpec, TraceSpec
from simloop.workload.units import UNITS, to_hash_ids, to_priority, to_tokens

__all__ = ["Trace", "open_trace"]

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
        for line, row in self._rows(offset, limit):
            arrival = self._arrival(line, row)
            if origin is None:
                origin = last = self._origin(arrival.arrival_ns, offset)
            if arrival.arrival_ns < last:
                self._fail_order(line, row[0], arrival.arrival_ns)
            last = arrival.arrival_ns
            time_ns = last - origin
            yield arrival._replace(arrival_ns=time_ns if rate_scale == 1.0 else round(time_ns / rate_scale))

    def times_ns(self, *, rate_scale: float = 1.0, limit: int | None = None, offset: int = 0) -> Iterator[int]:
        """Yield the times alone; as :meth:`arrivals`."""
        return (arrival.arrival_ns for arrival in self.arrivals(rate_scale=rate_scale, limit=limit, offset=offset))

    def _rows(self, offset: int, limit: int | None) -> Iterator[tuple[int, list[Any]]]:
        rows = islice(self.layout.rows(self.path), offset, None if limit is None else offset + limit)
        first = next(rows, None)
        if first is None:
            message = (
                "no request in it" if offset == 0 else f"no request after the first {offset:,}, which offset skips"
            )
            raise InputError(f"{message}, expected at least one", file=self.path)
        yield first
        yield from rows

    def _arrival(self, line: int, row: list[Any]) -> Arrival:
        time, prompt, output, session, priority, hashes = row
        try:
            return Arrival(
                0 if self.layout.time is None else UNITS[self.layout.unit][0](time),
                1 if self.layout.input is None else to_tokens(prompt),
                1 if self.layout.output is None else to_tokens(output),
                None if session in (None, "") else str(session),
                to_priority(priority),
                to_hash_ids(hashes),
            )
        except (ValueError, OverflowError):
            self._fail(line, row)

    def _origin(self, first_ns: int, offset: int) -> int:
        absolute = self.layout.unit == "timestamp" or offset > 0 or first_ns >= _UNIX_NS
        return first_ns if absolute else 0

    def _fail(self, line: int, row: list[Any]) -> NoReturn:
        checks = (
            (UNITS[self.layout.unit][0], UNITS[self.layout.unit][1]),
            (to_tokens, "a whole number >= 1"),
            (to_tokens, "a whole number >= 1 (an engine generates at least one token)"),
            (str, ""),
            (to_priority, "a whole number"),
            (to_hash_ids, "a list of whole numbers"),
        )
        for value, name, (read, expected) in zip(row, self.layout.names, checks, strict=True):
            try:
                if name is not None:
                    read(value)
            except (ValueError, OverflowError):
                found = "nothing" if value is None or value == "" else repr(value)[:60]
                raise InputError(
                    f"{name}: found {found}, expected {expected}", file=self.path, path=self._place(line)
                ) from None
        raise InputError("cannot be read", file=self.path, path=self._place(line))

    def _fail_order(self, line: int, found: Any, time_ns: int) -> NoReturn:
        expected = "at least 0" if time_ns < 0 else "no less than in the row before (sort the file by time)"
        message = f"{self.layout.time}: found {str(found)!r}, expected {expected}"
        raise InputError(message, file=self.path, path=self._place(line))

    def _place(self, line: int) -> str:
        return f"{'row' if self.layout.syntax == 'parquet' else 'line'} {line}"


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
    trace = Trace(path, find_layout(path, spec.format, spec.columns, times=times, lengths=lengths))
    next(trace.arrivals(offset=spec.offset if isinstance(spec, TraceSpec) else 0))
    return trace
