"""Quantised weights: what they occupy, scales included, and the precision they are multiplied in."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import attrs

__all__ = ["Kernel", "Quantization"]

Kernel: TypeAlias = Literal["fp8", "fp8_block", "int8", "nvfp4", "int4", "mxfp4"]
"""Kinds of kernels that devices are calibrated for."""

_ARITHMETIC: dict[Kernel, str] = {"fp8": "fp8", "fp8_block": "fp8", "int8": "int8", "nvfp4": "fp4"}
"""Precision of the arithmetic; kernels that are not listed widen the weights to the model's own precision."""


@attrs.frozen
class Quantization:
    """How the weight of a matrix product is stored and multiplied.

    Attributes:
        kernel: The kind of kernel that multiplies it.
        bits: Bits of one weight.
        group: Weights that share a scale: along the inner and along the outer dimension; 0 is all of them.
        group_bits: Bits of the scale of a group, and of its zero point if it has one.
        weight_only: Whether the activations stay as they are, so that the arithmetic has the model's own precision.
    """

    kernel: Kernel
    bits: int
    group: tuple[int, int] = (0, 0)
    group_bits: int = 32
    weight_only: bool = False

    @property
    def arithmetic(self) -> str | None:
        """Precision of the arithmetic, as device cards name it; ``None`` is the model's own."""
        return None if self.weight_only else _ARITHMETIC.get(self.kernel)

    def stored_bytes(self, k: int, n: int) -> int:
        """Return the bytes of a ``[k, n]`` weight with its scales."""
        along_k, along_n = self.group
        groups = math.ceil(k / (along_k or k)) * math.ceil(n / (along_n or n))
        return math.ceil((k * n * self.bits + groups * self.group_bits) / 8)
