"""How far one set of figures is from another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

__all__ = ["mean_absolute_percentage_error", "relative_error", "weighted_absolute_percentage_error"]


def relative_error(run: float, real: float) -> float | None:
    """Return (run - real) / real: 0.02 is two percent too much; ``None`` where real is 0 and run is not."""
    if run == real:
        return 0.0
    return (run - real) / real if real else None


def mean_absolute_percentage_error(run: Floats, real: Floats) -> float | None:
    """Return the mean of the absolute difference over real, pair by pair (MAPE); 0.02 is two percent.

    Pairs in which either is NaN, or real is not above 0, are left out.

    Args:
        run: One value per pair.
        real: What it should have been, in the same order.

    Returns:
        The mean; ``None`` if no pair is left.
    """
    counted = ~np.isnan(run) & (real > 0)
    if not counted.any():
        return None
    return float(np.mean(np.abs(run[counted] - real[counted]) / real[counted]))


def weighted_absolute_percentage_error(run: Floats, real: Floats) -> float | None:
    """Return the sum of the absolute differences over the sum of real (WAPE); 0.02 is two percent.

    Args:
        run: One value per bin.
        real: What it should have been, bin by bin.

    Returns:
        The quotient; ``None`` if the sum of real is 0.
    """
    total = float(np.sum(real))
    return float(np.sum(np.abs(run - real))) / total if total else None
