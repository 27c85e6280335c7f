"""Workloads in words."""

from __future__ import annotations

from pathlib import PurePath

from simloop.workload.spec import (
    ArrivalSpec,
    Burst,
    ClosedLoop,
    Constant,
    Gamma,
    LengthSpec,
    Lognormal,
    Normal,
    Poisson,
    PresetTimes,
    TraceSpec,
    Uniform,
    WorkloadSpec,
)

__all__ = ["describe_spec"]


def describe_spec(spec: WorkloadSpec) -> str:
    """Return in one line what a workload is."""
    count = "" if spec.requests is None else f"{spec.requests:,} requests"
    if spec.trace is not None:
        return ", ".join(part for part in (count and f"at most {count}", f"trace {_trace(spec.trace)}") if part)
    arrivals = None if spec.arrivals is None else _arrivals(spec.arrivals)
    lengths = None if spec.lengths is None else _lengths(spec.lengths)
    return ", ".join(part for part in (count, arrivals, lengths) if part)


def _trace(spec: TraceSpec) -> str:
    parts = [PurePath(spec.path).name]
    parts += [f"{spec.rate_scale:g} times as fast"] if spec.rate_scale != 1 else []
    parts += [f"from request {spec.offset:,}"] if spec.offset else []
    parts += [f"at most {spec.limit:,}"] if spec.limit is not None else []
    return ", ".join(parts)


def _arrivals(spec: ArrivalSpec) -> str:
    match spec:
        case Poisson(rate=rate):
            return f"Poisson at {rate:g} requests/s"
        case Gamma(rate=rate, burstiness=burstiness):
            return f"gamma at {rate:g} requests/s with burstiness {burstiness:g}"
        case Constant(rate=rate):
            return f"one every {1 / rate:g} s"
        case Burst(size=None):
            return "all at once"
        case Burst(size=size, every_s=every_s):
            return f"groups of {size:,} every {every_s:g} s"
        case ClosedLoop(concurrency=clients):
            return f"{clients:,} client{'s' if clients > 1 else ''} in a closed loop"
        case PresetTimes(preset=preset, rate_scale=scale):
            return f"gaps of {preset}" + (f", {scale:g} times as fast" if scale != 1 else "")
    return f"times of {_trace(spec)}"


def _lengths(spec: LengthSpec) -> str:
    if spec.preset is not None:
        return f"lengths of {spec.preset}"
    if spec.path is not None:
        return f"lengths of {PurePath(spec.path).name}"
    return f"{_side(spec.input)} in and {_side(spec.output)} out"


def _side(spec: int | Uniform | Normal | Lognormal | None) -> str:
    match spec:
        case Uniform(min=least, max=most):
            return f"{least:,} to {most:,} tokens"
        case Normal(mean=mean, std=std):
            return f"normal {mean:g} ± {std:g} tokens"
        case Lognormal(mean=mean, std=std):
            return f"log-normal {mean:g} ± {std:g} tokens"
    return f"{spec:,} tokens"
