"""What a scenario's ``workload`` says, as frozen structs. The keys of the file are the fields' names."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from simloop.errors import InputError

__all__ = [
    "ArrivalSpec",
    "Burst",
    "ClosedLoop",
    "Columns",
    "Constant",
    "Gamma",
    "LengthSpec",
    "Lognormal",
    "Normal",
    "Poisson",
    "PresetTimes",
    "TraceFormat",
    "TraceSpec",
    "TraceTimes",
    "Uniform",
    "WorkloadSpec",
]

TraceFormat = Literal["azure", "mooncake", "llmservingsim", "vidur", "csv", "jsonl", "parquet"]

_Name = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=1, le=10**15)]
_Rate = Annotated[float, Meta(gt=0, le=1e9)]
_Tokens = Annotated[int, Meta(ge=1, le=10**9)]
_Positive = Annotated[float, Meta(gt=0, le=1e9)]


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which column (or JSON key) of a trace holds what; one of the three times, and both lengths.

    Attributes:
        arrival_s: Arrival time, seconds.
        arrival_ms: Arrival time, milliseconds.
        arrival_ns: Arrival time, nanoseconds.
        input_tokens: Length of the prompt.
        output_tokens: Tokens to generate.
        session: Name of the conversation.
        priority: Lower is more urgent.
        hash_ids: List of block hashes (JSON and Parquet only).
    """

    arrival_s: _Name | None = None
    arrival_ms: _Name | None = None
    arrival_ns: _Name | None = None
    input_tokens: _Name | None = None
    output_tokens: _Name | None = None
    session: _Name | None = None
    priority: _Name | None = None
    hash_ids: _Name | None = None

    def __post_init__(self) -> None:
        times = [name for name in ("arrival_s", "arrival_ms", "arrival_ns") if getattr(self, name) is not None]
        if len(times) > 1:
            raise InputError(f"found {' and '.join(times)}, expected one of them")


class TraceSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of requests: when they arrived and how long they were.

    Attributes:
        path: The file; gzip is recognised by its content.
        format: How it is laid out; guessed from its first line if not given.
        columns: Names of the columns, for ``csv``, ``jsonl`` and ``parquet``; our own names if not given.
        rate_scale: How much faster than recorded: 2 halves every time.
        limit: Most requests to take.
        offset: Requests to skip first; times then count from the first that is kept.
        hash_block_size: Tokens that one block hash stands for; 512 for ``mooncake`` and 16 for others if not given.
    """

    path: _Name
    format: TraceFormat | None = None
    columns: Columns | None = None
    rate_scale: _Positive = 1.0
    limit: _Count | None = None
    offset: Annotated[int, Meta(ge=0)] = 0
    hash_block_size: _Count | None = None

    def __post_init__(self) -> None:
        _check_columns(self.format, self.columns)


class Poisson(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="process", tag="poisson"
):
    """Independent requests: exponential gaps.

    Attributes:
        rate: Mean requests per second.
    """

    rate: _Rate


class Gamma(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="process", tag="gamma"):
    """Gaps with a gamma distribution, as in ``vllm bench serve --burstiness``.

    Attributes:
        rate: Mean requests per second.
        burstiness: Shape of the gamma distribution; gaps vary by a coefficient of 1/sqrt(burstiness). 1 is Poisson,
            below 1 comes in bursts, above 1 is more even.
    """

    rate: _Rate
    burstiness: Annotated[float, Meta(ge=1e-3, le=1e6)]


class Constant(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="process", tag="constant"
):
    """Equal gaps: request i arrives at i / rate.

    Attributes:
        rate: Requests per second.
    """

    rate: _Rate


class Burst(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="process", tag="burst"):
    """All requests at once, or in groups.

    Attributes:
        size: Requests in a group; all of them if not given.
        every_s: Time from one group to the next, s; needed with ``size``.
    """

    size: _Count | None = None
    every_s: _Positive | None = None

    def __post_init__(self) -> None:
        if (self.size is None) != (self.every_s is None):
            given, missing = ("every_s", "size") if self.size is None else ("size", "every_s")
            raise InputError(f"missing: {given} says nothing without it", path=missing)


class ClosedLoop(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="process", tag="closed_loop"
):
    """Clients that each send the next request when their last one has ended: ``vllm bench serve --max-concurrency``.

    Attributes:
        concurrency: How many clients: so many requests at most are under way at once.
    """

    concurrency: _Count


class TraceTimes(TraceSpec, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="process", tag="trace"):
    """The times of a trace, for requests of other lengths; the attributes are those of :class:`TraceSpec`."""


class PresetTimes(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="process", tag="preset"
):
    """Gaps drawn one by one from a preset's table of gaps: its rate and its burstiness, not its trend over time.

    Attributes:
        preset: Name of the preset.
        rate_scale: How much faster than recorded.
    """

    preset: _Name
    rate_scale: _Positive = 1.0


ArrivalSpec = Poisson | Gamma | Constant | Burst | ClosedLoop | TraceTimes | PresetTimes
"""When requests arrive; ``process`` says which."""


class Uniform(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="distribution", tag="uniform"
):
    """Whole numbers from ``min`` to ``max``, both included, all equally likely.

    Attributes:
        min: Shortest length.
        max: Longest length.
    """

    min: _Tokens
    max: _Tokens

    def __post_init__(self) -> None:
        _check_limits(self.min, self.max)


class Normal(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="distribution", tag="normal"
):
    """A normal distribution, rounded to whole tokens; what falls outside ``min`` and ``max`` is moved to them.

    Attributes:
        mean: Mean before it is cut, tokens.
        std: Standard deviation before it is cut, tokens.
        min: Shortest length.
        max: Longest length; no limit if not given.
    """

    mean: _Positive
    std: Annotated[float, Meta(ge=0, le=1e9)]
    min: _Tokens = 1
    max: _Tokens | None = None

    def __post_init__(self) -> None:
        _check_limits(self.min, self.max)


class Lognormal(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="distribution", tag="lognormal"
):
    """A log-normal distribution, rounded to whole tokens; what falls outside ``min`` and ``max`` is moved to them.

    Attributes:
        mean: Mean of the lengths (not of their logarithms) before they are cut, tokens.
        std: Standard deviation of the lengths before they are cut, tokens.
        min: Shortest length.
        max: Longest length; no limit if not given.
    """

    mean: _Positive
    std: Annotated[float, Meta(ge=0, le=1e9)]
    min: _Tokens = 1
    max: _Tokens | None = None

    def __post_init__(self) -> None:
        _check_limits(self.min, self.max)


_Length = _Tokens | Uniform | Normal | Lognormal


class LengthSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long requests are: those of a preset, those of a trace file, or each side by itself.

    Attributes:
        preset: Name of a preset (``simloop workloads``).
        input: Length of the prompt: a number, or a distribution.
        output: Tokens to generate: a number, or a distribution.
        path: A trace file whose lengths are taken in order, from the start again after the last.
        format: As in :class:`TraceSpec`.
        columns: As in :class:`TraceSpec`.
    """

    preset: _Name | None = None
    input: _Length | None = None
    output: _Length | None = None
    path: _Name | None = None
    format: TraceFormat | None = None
    columns: Columns | None = None

    def __post_init__(self) -> None:
        sides = self.input is not None or self.output is not None
        if (self.preset is not None) + (self.path is not None) + sides != 1:
            raise InputError("expected exactly one of: preset, path, or input and output")
        if sides and (self.input is None or self.output is None):
            missing = "input" if self.input is None else "output"
            raise InputError("missing, expected a whole number >= 1 or a distribution", path=missing)
        if self.path is None and (self.format is not None or self.columns is not None):
            raise InputError("says nothing without path", path="format" if self.format is not None else "columns")
        _check_columns(self.format, self.columns)


class WorkloadSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The requests: a trace as it was recorded, or arrivals and lengths.

    Attributes:
        requests: How many; a trace, or the times of one, may end before.
        arrivals: When they arrive.
        lengths: How long they are.
        trace: A file that says both.
    """

    requests: _Count | None = None
    arrivals: ArrivalSpec | None = None
    lengths: LengthSpec | None = None
    trace: TraceSpec | None = None

    def __post_init__(self) -> None:
        if self.trace is not None:
            for name in ("arrivals", "lengths"):
                if getattr(self, name) is not None:
                    raise InputError("says nothing beside trace, which has times and lengths of its own", path=name)
            return
        for name in ("arrivals", "lengths"):
            if getattr(self, name) is None:
                raise InputError("missing, expected arrivals and lengths, or a trace", path=name)
        if self.requests is None and not isinstance(self.arrivals, TraceTimes):
            raise InputError("missing, expected a whole number >= 1: these arrivals have no end", path="requests")


def _check_columns(format: str | None, columns: Columns | None) -> None:  # noqa: A002 # the name of the key
    if columns is not None and format not in (None, "csv", "jsonl", "parquet"):
        raise InputError(
            f"the columns of format {format} are fixed; leave them out, or say format: csv", path="columns"
        )


def _check_limits(least: int, most: int | None) -> None:
    if most is not None and most < least:
        raise InputError(f"found {most}, expected at least min ({least})", path="max")
