"""Drawing from tables of quantiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from simloop.workload.preset import Tables

__all__ = ["JointQuantiles", "Quantiles"]

_Floats: TypeAlias = npt.NDArray[np.float64]


class Quantiles:
    """A distribution given by its quantiles, straight lines between them.

    Args:
        levels: Probabilities from 0 to 1, rising.
        values: The quantile at each of them.
    """

    def __init__(self, levels: Sequence[float], values: Sequence[float]) -> None:
        self._levels = np.asarray(levels, dtype=np.float64)
        self._values = np.asarray(values, dtype=np.float64)

    def draw(self, uniform: _Floats) -> _Floats:
        """Return the quantiles at ``uniform``: numbers in [0, 1), any shape."""
        return np.interp(uniform, self._levels, self._values)


class JointQuantiles:
    """Input lengths, and output lengths that depend on how long the input is among all inputs.

    Args:
        tables: The quantile tables.
    """

    def __init__(self, tables: Tables) -> None:
        self._input = Quantiles(tables.levels, tables.input)
        self._levels = np.asarray(tables.output_levels, dtype=np.float64)
        self._output = np.asarray(tables.output, dtype=np.float64)
        self._max_total = tables.max_total

    def draw(self, uniform: _Floats, uniform_output: _Floats) -> tuple[_Floats, _Floats]:
        """Return input and output lengths in whole tokens.

        Args:
            uniform: Numbers in [0, 1) that say how long the inputs are among all; shape (n,).
            uniform_output: The same for the outputs, among those with inputs like theirs; shape (n,).
        """
        inputs = np.maximum(np.rint(self._input.draw(uniform)), 1)
        outputs = np.minimum(np.rint(self._draw_output(uniform, uniform_output)), self._max_total - inputs)
        return inputs, np.maximum(outputs, 1)

    def _draw_output(self, uniform: _Floats, uniform_output: _Floats) -> _Floats:
        rows = self._output
        row = (uniform * len(rows)).astype(np.int64)
        right = np.searchsorted(self._levels, uniform_output, side="right")
        left = right - 1
        share = (uniform_output - self._levels[left]) / (self._levels[right] - self._levels[left])
        low: _Floats = rows[row, left]
        return low + share * (rows[row, right] - low)
