"""When requests arrive: each process yields whole nanoseconds, a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from simloop.errors import InputError
from simloop.workload.preset import load_preset
from simloop.workload.spec import Burst, ClosedLoop, Constant, Gamma, Poisson, PresetTimes
from simloop.workload.streams import CHUNK, generator

__all__ = ["synthetic_times"]

_Floats: TypeAlias = npt.NDArray[np.float64]
_LATEST_NS = 2.0**62
"""146 years; the next chunk would not fit into 64 bits."""


def synthetic_times(
    spec: Poisson | Gamma | Constant | Burst | ClosedLoop | PresetTimes, seed: int
) -> Iterator[list[int]]:
    """Yield the arrival times of a process without end, ns, in chunks of :data:`simloop.workload.streams.CHUNK`.

    Args:
        spec: The process.
        seed: The run's seed; the stream ``workload.arrivals`` is drawn from.

    Raises:
        InputError: A time would lie beyond what 64 bits of nanoseconds hold.
    """
    if isinstance(spec, Constant):
        return _at(lambda index: index * 1e9 / spec.rate)
    if isinstance(spec, ClosedLoop):
        return _at(lambda index: index * 0.0)  # whoever serves them waits for a client that has nothing to do
    if isinstance(spec, Burst):
        size, every_ns = spec.size, (spec.every_s or 0.0) * 1e9
        return _at(lambda index: index * 0.0 if size is None else index // size * every_ns)
    return _after(_gaps(spec, generator(seed, "workload.arrivals")))


def _gaps(spec: Poisson | Gamma | PresetTimes, rng: np.random.Generator) -> Callable[[], _Floats]:
    """Return what draws the next chunk of gaps, ns."""
    if isinstance(spec, Poisson):
        mean_ns = 1e9 / spec.rate
        return lambda: rng.standard_exponential(CHUNK) * mean_ns
    if isinstance(spec, Gamma):
        shape, scale_ns = spec.burstiness, 1e9 / (spec.rate * spec.burstiness)
        return lambda: rng.standard_gamma(shape, CHUNK) * scale_ns
    gaps, scale_ns = load_preset(spec.preset).gaps(), 1e9 / spec.rate_scale
    return lambda: gaps.draw(rng.random(CHUNK)) * scale_ns


def _after(draw: Callable[[], _Floats]) -> Iterator[list[int]]:
    """Yield the sums of gaps, each rounded to whole ns so that no error gathers; the first request comes after one."""
    now = 0
    while True:
        gaps = np.rint(draw())
        _check(now + float(gaps.sum()))
        times = np.cumsum(gaps.astype(np.int64)) + now
        now = int(times[-1])
        yield times.tolist()


def _at(time_ns: Callable[[_Floats], _Floats]) -> Iterator[list[int]]:
    """Yield the times that follow from the requests' numbers, without adding up."""
    first = 0
    while True:
        times = np.rint(time_ns(np.arange(first, first + CHUNK, dtype=np.float64)))
        _check(float(times[-1]))
        yield times.astype(np.int64).tolist()
        first += CHUNK


def _check(latest_ns: float) -> None:
    if latest_ns > _LATEST_NS:
        raise InputError("requests would arrive later than in 146 years; the rate is too low", path="workload.arrivals")
