"""What one operator costs on one device."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from simloop.hardware.device import Device
from simloop.model import Attention, Elementwise, Gemm, dtype_bytes

__all__ = ["Cost", "Prices"]


@attrs.frozen
class Cost:
    """The time of one call of an operator, in its parts, nanoseconds.

    Attributes:
        total: What the call takes.
        compute: Arithmetic alone, at the rate that the device reaches.
        memory: Memory traffic alone, likewise.
        overhead: Fixed cost of the kernel.
    """

    total: float
    compute: float
    memory: float
    overhead: float

    @property
    def bound(self) -> str:
        """What limits the call: ``compute``, ``memory`` or ``overhead``."""
        largest = max(self.compute, self.memory, self.overhead)
        if largest == self.overhead:
            return "overhead"
        return "compute" if largest == self.compute else "memory"


@attrs.frozen
class Prices:
    """The calibrated roofline of one device in one precision, operator by operator.

    The formulas stand with their parameters in :mod:`simloop.hardware.calibration`.

    Attributes:
        device: The device.
        dtype: Precision of weights, activations and KV cache.
    """

    device: Device
    dtype: str

    @property
    def _flop_per_ns(self) -> float:
        return self.device.peak_flops(self.dtype) / 1e9

    def gemm(self, operator: Gemm, rows: int) -> Cost:
        """Price a matrix product of ``rows`` rows."""
        fit = self.device.calibration.gemm
        compute = operator.flops(rows) / (fit.compute_efficiency * self._flop_per_ns)
        memory = self._memory_ns(operator.elements(rows), fit.memory_efficiency)
        larger, smaller = max(compute, memory), min(compute, memory)
        busy = larger * (1 + (smaller / larger) ** fit.sharpness) ** (1 / fit.sharpness)
        return Cost(1e3 * fit.overhead_us + busy, compute, memory, 1e3 * fit.overhead_us)

    def elementwise(self, operator: Elementwise, rows: int) -> Cost:
        """Price an operator bound by memory traffic, of ``rows`` rows."""
        fit = self.device.calibration.elementwise
        memory = self._memory_ns(operator.elements(rows), fit.memory_efficiency)
        return Cost(1e3 * fit.overhead_us + memory, 0.0, memory, 1e3 * fit.overhead_us)

    def prefill(self, operator: Attention, chunks: Sequence[tuple[int, int]]) -> Cost:
        """Price the attention of prompt chunks, ``(new tokens, cached tokens)`` each: one kernel, the requests' sum."""
        fit = self.device.calibration.prefill_attention
        rate = fit.compute_efficiency * self._flop_per_ns
        busy = compute = memory = 0.0
        for new, cached in chunks:
            pairs = operator.attended(new, cached) + new * fit.ramp_tokens / 2
            arithmetic = 4 * operator.num_heads * operator.head_dim * pairs / rate
            traffic = self._memory_ns(
                2 * new * operator.num_heads * operator.head_dim + (new + cached) * operator.kv_elements,
                fit.memory_efficiency,
            )
            compute, memory, busy = compute + arithmetic, memory + traffic, busy + max(arithmetic, traffic)
        return Cost(1e3 * fit.overhead_us + busy, compute, memory, 1e3 * fit.overhead_us)

    def decode(self, operator: Attention, requests: int, context: int) -> Cost:
        """Price the attention of ``requests`` new tokens that attend to ``context`` tokens in all.

        A sliding window counts as if all requests had the mean context. That is exact when they lie on one side of
        the window, and at most the cost without a window otherwise; the sum over requests is not needed for it.
        """
        fit = self.device.calibration.decode_attention
        if operator.window is not None:
            context = min(context, requests * operator.window)
        width = operator.num_heads * operator.head_dim
        compute = 4 * width * context / (fit.compute_efficiency * self._flop_per_ns)
        elements = context * operator.kv_elements + 2 * requests * width
        memory = self._memory_ns(elements, fit.memory_efficiency)
        return Cost(1e3 * fit.overhead_us + max(compute, memory), compute, memory, 1e3 * fit.overhead_us)

    def _memory_ns(self, elements: float, efficiency: float) -> float:
        """Return the time of moving ``elements``; 1 GB/s is one byte each nanosecond."""
        return elements * dtype_bytes(self.dtype) / (efficiency * self.device.memory_bandwidth_gb_s)
