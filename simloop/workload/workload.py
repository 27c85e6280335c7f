"""A workload: what a scenario says about requests, turned into a stream of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import attrs
import msgspec

from simloop.errors import InputError
from simloop.workload.arrival import Arrival, arrivals_from_columns
from simloop.workload.describe import describe_spec
from simloop.workload.preset import load_preset
from simloop.workload.spec import ArrivalSpec, ClosedLoop, LengthSpec, PresetTimes, TraceSpec, TraceTimes, WorkloadSpec
from simloop.workload.streams import CHUNK
from simloop.workload.trace import open_trace

__all__ = ["Workload", "open_workload"]

T = TypeVar("T")


class _Taken(TypedDict):
    limit: int | None
    offset: int


@attrs.frozen
class Workload:
    """Requests in order of arrival; iterating again gives the same ones again.

    A few thousand of them at most are in memory at any time.

    Attributes:
        spec: What it was made from.
        total: How many requests there are; None for a large trace, which is not read just to count them.
    """

    spec: WorkloadSpec
    total: int | None
    _open: Callable[[], Iterator[Arrival]] = attrs.field(repr=False)

    def __iter__(self) -> Iterator[Arrival]:
        return self._open()

    @property
    def concurrency(self) -> int | None:
        """Most requests under way at once, where clients send the next when one has ended; its time is then a 0."""
        arrivals = self.spec.arrivals
        return arrivals.concurrency if isinstance(arrivals, ClosedLoop) else None

    def describe(self) -> str:
        """Return in one line what it is: ``2,000 requests, Poisson at 8 requests/s, lengths of azure-conv-2023``."""
        return describe_spec(self.spec)


def open_workload(spec: WorkloadSpec | Mapping[str, Any], *, seed: int, base_dir: Path | None = None) -> Workload:
    """Prepare a workload: check it, look at its files, draw nothing yet.

    Args:
        spec: The ``workload`` of a scenario, as a struct or a mapping of the same shape.
        seed: The run's seed. Times and lengths draw from streams of their own: other lengths leave the times alone.
        base_dir: What paths are relative to; the working directory if not given.

    Raises:
        InputError: It cannot be used. What is wrong further down in a file is raised when the iterator gets there.
    """
    checked = _check(spec)
    if checked.trace is not None:
        return _open_recorded(checked, checked.trace, base_dir)
    if checked.arrivals is None or checked.lengths is None:
        raise InputError("expected arrivals and lengths, or a trace", path="workload")
    times, total = _times(checked.arrivals, checked.requests, seed, base_dir)
    lengths = _lengths(checked.lengths, seed, base_dir)

    def open_stream() -> Iterator[Arrival]:
        chunks = (arrivals_from_columns(ns, *sides) for ns, sides in zip(times(), lengths(), strict=False))
        return islice(chain.from_iterable(chunks), checked.requests)

    return Workload(checked, total, open_stream)


def _check(spec: WorkloadSpec | Mapping[str, Any]) -> WorkloadSpec:
    try:
        return msgspec.convert(msgspec.to_builtins(spec), WorkloadSpec)
    except msgspec.ValidationError as error:
        cause = error.__cause__
        message, _, place = str(error).partition(" - at `$")
        path = f"workload{place.removesuffix('`')}"
        if isinstance(cause, InputError):
            raise InputError(cause.message, path=f"{path}.{cause.path}" if cause.path else path) from None
        raise InputError(message, path=path) from None


def _open_recorded(spec: WorkloadSpec, recorded: TraceSpec, base_dir: Path | None) -> Workload:
    trace, taken = open_trace(recorded, base_dir), _taken(recorded, spec.requests)
    arrivals = partial(trace.arrivals, rate_scale=recorded.rate_scale, **taken)
    return Workload(spec, trace.count(**taken), arrivals)


def _times(
    spec: ArrivalSpec, requests: int | None, seed: int, base_dir: Path | None
) -> tuple[Callable[[], Iterator[list[int]]], int | None]:
    """Return what opens the stream of times, and how many there will be."""
    if isinstance(spec, TraceTimes):
        trace, taken = open_trace(spec, base_dir, lengths=False), _taken(spec, requests)
        recorded = partial(trace.times_ns, rate_scale=spec.rate_scale, **taken)
        return lambda: _chunks(recorded()), trace.count(**taken)
    from simloop.workload.times import synthetic_times

    with _placed("workload.arrivals.preset"):
        if isinstance(spec, PresetTimes):
            load_preset(spec.preset).gaps()
    return partial(synthetic_times, spec, seed), requests


def _taken(spec: TraceSpec, requests: int | None) -> _Taken:
    """Return which rows of a trace are taken."""
    limit = min((count for count in (spec.limit, requests) if count is not None), default=None)
    return {"limit": limit, "offset": spec.offset}


def _lengths(spec: LengthSpec, seed: int, base_dir: Path | None) -> Callable[[], Iterator[tuple[list[int], list[int]]]]:
    if spec.path is not None:
        trace = open_trace(spec, base_dir, times=False)
        return lambda: _sides(chain.from_iterable(trace.arrivals() for _ in repeat(None)))
    from simloop.workload.lengths import synthetic_lengths

    with _placed("workload.lengths.preset"):
        if spec.preset is not None:
            load_preset(spec.preset)
    return partial(synthetic_lengths, spec, seed)


def _chunks(values: Iterator[T]) -> Iterator[list[T]]:
    while chunk := list(islice(values, CHUNK)):
        yield chunk


def _sides(arrivals: Iterator[Arrival]) -> Iterator[tuple[list[int], list[int]]]:
    for chunk in _chunks(arrivals):
        yield [arrival.prompt_tokens for arrival in chunk], [arrival.output_tokens for arrival in chunk]


@contextmanager
def _placed(path: str) -> Iterator[None]:
    """Say where in the scenario something was that is wrong by itself."""
    try:
        yield
    except InputError as error:
        raise InputError(error.message, path=path) from None
