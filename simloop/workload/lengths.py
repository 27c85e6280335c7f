"""How long requests are: input and output lengths, a chunk at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from simloop.errors import InputError
from simloop.workload.preset import Tables, load_preset
from simloop.workload.quantiles import JointQuantiles
from simloop.workload.spec import LengthSpec, Lognormal, Normal, Uniform
from simloop.workload.streams import CHUNK, generator

__all__ = ["synthetic_lengths"]

_Floats: TypeAlias = npt.NDArray[np.float64]
_Pairs: TypeAlias = Iterator[tuple[list[int], list[int]]]


def synthetic_lengths(spec: LengthSpec, seed: int) -> _Pairs:
    """Yield input and output lengths without end, in chunks of :data:`simloop.workload.streams.CHUNK`.

    Args:
        spec: A preset, or both sides.
        seed: The run's seed; ``workload.lengths.input`` and ``workload.lengths.output`` are drawn from.

    Raises:
        InputError: There is no preset of that name.
    """
    if spec.preset is not None:
        preset = load_preset(spec.preset)
        if preset.tables is not None:
            return _joint(preset.tables, seed)
        spec = preset.lengths or spec
    if spec.input is None or spec.output is None:
        raise InputError("expected input and output", path="workload.lengths")
    sides = _side(spec.input, seed, "input"), _side(spec.output, seed, "output")
    return _independent(*sides)


def _independent(draw_input: Callable[[], list[int]], draw_output: Callable[[], list[int]]) -> _Pairs:
    while True:
        yield draw_input(), draw_output()


def _joint(tables: Tables, seed: int) -> _Pairs:
    quantiles = JointQuantiles(tables)
    for_input, for_output = generator(seed, "workload.lengths.input"), generator(seed, "workload.lengths.output")
    while True:
        inputs, outputs = quantiles.draw(for_input.random(CHUNK), for_output.random(CHUNK))
        yield inputs.astype(np.int64).tolist(), outputs.astype(np.int64).tolist()


def _side(spec: int | Uniform | Normal | Lognormal, seed: int, side: str) -> Callable[[], list[int]]:
    """Return what draws the next chunk of one side."""
    if isinstance(spec, int):
        fixed = [spec] * CHUNK
        return lambda: fixed
    rng = generator(seed, f"workload.lengths.{side}")
    if isinstance(spec, Uniform):
        least, width = spec.min, spec.max - spec.min + 1
        return lambda: (least + (rng.random(CHUNK) * width).astype(np.int64)).tolist()
    if isinstance(spec, Normal):
        return lambda: _whole(spec.mean + spec.std * rng.standard_normal(CHUNK), spec.min, spec.max)
    sigma = math.sqrt(math.log1p((spec.std / spec.mean) ** 2))
    mu = math.log(spec.mean) - sigma**2 / 2
    return lambda: _whole(np.exp(mu + sigma * rng.standard_normal(CHUNK)), spec.min, spec.max)


def _whole(lengths: _Floats, least: int, most: int | None) -> list[int]:
    whole: list[int] = np.clip(np.rint(lengths), least, 10**9 if most is None else most).astype(np.int64).tolist()
    return whole
