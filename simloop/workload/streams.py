"""Random streams by name: what one draws never depends on what another does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CHUNK", "generator"]

CHUNK = 4096
"""Draws at a time. Part of what a seed means: it must not depend on how many requests are asked for."""


def generator(seed: int, name: str) -> np.random.Generator:
    """Return a generator that is the same for the same seed and name, in every process.

    Args:
        seed: The run's seed.
        name: ``workload.arrivals``, ``workload.lengths.input`` or ``workload.lengths.output``.
    """
    import numpy as np

    from simloop.clock import seed_for

    return np.random.Generator(np.random.PCG64(seed_for(seed, name)))
