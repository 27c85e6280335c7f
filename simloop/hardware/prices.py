"""What one operator costs on one device."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from simloop.hardware.calibration import GemmFit
from simloop.hardware.device import Device
from simloop.hardware.tiles import Tiles
from simloop.model import (
    Attention,
    Balanced,
    Collective,
    Elementwise,
    Experts,
    Gemm,
    LatentAttention,
    Quantization,
    Routing,
    dtype_bytes,
)

__all__ = ["Cost", "Prices"]


@attrs.frozen
class Cost:
    """The time of one call of an operator, in its parts, nanoseconds.

    Attributes:
        total: What the call takes.
        compute: Arithmetic alone, at the rate that the device reaches.
        memory: Memory traffic alone, likewise.
        overhead: Fixed cost of the kernel.
        network: Exchange with other devices alone.
    """

    total: float
    compute: float
    memory: float
    overhead: float
    network: float = 0.0

    @property
    def bound(self) -> str:
        """What limits the call: ``compute``, ``memory``, ``network`` or ``overhead``."""
        parts = {"overhead": self.overhead, "compute": self.compute, "memory": self.memory, "network": self.network}
        return max(parts, key=parts.__getitem__)


@attrs.frozen
class Prices:
    """The calibrated roofline of one device in one precision, operator by operator.

    The formulas stand with their parameters in :mod:`simloop.hardware.calibration`.

    Attributes:
        device: The device.
        dtype: Precision of activations, and of weights that are not quantised.
        kv_bytes: Bytes of one element of the KV cache.
        routing: How tokens spread over experts.
    """

    device: Device
    dtype: str
    kv_bytes: int = attrs.field(default=attrs.Factory(lambda self: dtype_bytes(self.dtype), takes_self=True))
    routing: Routing = attrs.field(factory=Balanced)

    @property
    def _flop_per_ns(self) -> float:
        return self.device.peak_flops(self.dtype) / 1e9

    def row(self, operator: Gemm | Elementwise | Experts | Collective, rows: int) -> Cost:
        """Price anything but attention, for ``rows`` rows."""
        if isinstance(operator, Gemm):
            return self.gemm(operator, rows)
        if isinstance(operator, Experts):
            return self.experts(operator, rows)
        return (
            self.elementwise(operator, rows) if isinstance(operator, Elementwise) else self.collective(operator, rows)
        )

    def gemm(self, operator: Gemm, rows: int) -> Cost:
        """Price a matrix product of ``rows`` rows."""
        stored = operator.quantization
        fit = self.device.calibration.for_gemm(stored.kernel if stored else None)
        return self._product(fit, stored, operator.flops(rows), operator.moved_bytes(rows, dtype_bytes(self.dtype)))

    def experts(self, operator: Experts, rows: int) -> Cost:
        """Price the experts of one rank, for ``rows`` tokens of each data-parallel rank: those of the busiest one."""
        stored = operator.quantization
        fit = self.device.calibration.for_experts(stored.kernel if stored else None)
        pairs, active = self.routing.load(operator, rows * operator.gathered)
        moved = operator.moved_bytes(pairs, active, dtype_bytes(self.dtype))
        return self._product(fit, stored, operator.flops(pairs), moved)

    def _product(self, fit: GemmFit, stored: Quantization | None, flops: float, moved: float) -> Cost:
        wanted = self.dtype if stored is None or stored.arithmetic is None else stored.arithmetic
        # Where the device lacks the precision, the weights are widened, as by vLLM's Marlin kernels.
        rate = self.device.peak_tflops.get(wanted, self.device.peak_tflops[self.dtype]) * 1e3
        compute = flops / (fit.compute_efficiency * rate)
        memory = moved / (fit.memory_efficiency * self.device.memory_bandwidth_gb_s)
        larger, smaller = max(compute, memory), min(compute, memory)
        busy = larger * (1 + (smaller / larger) ** fit.sharpness) ** (1 / fit.sharpness)
        return Cost(1e3 * fit.overhead_us + busy, compute, memory, 1e3 * fit.overhead_us)

    def elementwise(self, operator: Elementwise, rows: int) -> Cost:
        """Price an operator bound by memory traffic, of ``rows`` rows."""
        fit = self.device.calibration.elementwise
        moved = operator.moved_bytes(rows, dtype_bytes(self.dtype))
        memory = moved / (fit.memory_efficiency * self.device.memory_bandwidth_gb_s)
        return Cost(1e3 * fit.overhead_us + memory, 0.0, memory, 1e3 * fit.overhead_us)

    def collective(self, operator: Collective, rows: int) -> Cost:
        """Price an exchange with the other ranks.

        Raises:
            InputError: The card states no interconnect, or none for so many ranks.
        """
        size = rows * operator.elements * dtype_bytes(self.dtype)
        fixed, transfer = self.device.links().collective_ns(operator.kind, operator.ranks, size)
        return Cost(fixed + transfer, 0.0, 0.0, fixed, transfer)

    def prefill(self, operator: Attention | LatentAttention, chunks: Sequence[tuple[int, int]]) -> Cost:
        """Price the attention of prompt chunks, ``(new tokens, cached tokens)`` each: one kernel, the requests' sum."""
        fit = self.device.calibration.prefill_attention
        rate = fit.compute_efficiency * self._flop_per_ns
        bandwidth = fit.memory_efficiency * self.device.memory_bandwidth_gb_s
        row_bytes, kv_bytes = dtype_bytes(self.dtype) * operator.row_elements, self.kv_bytes * operator.context_elements
        pair_ns, expand_ns = operator.pair_flops / rate, operator.expand_flops / rate
        busy = compute = memory = 0.0
        for new, cached in chunks:
            pairs = operator.attended(new, cached) + new * fit.ramp_tokens / 2
            arithmetic = pair_ns * pairs + expand_ns * cached
            traffic = (new * row_bytes + (new + cached) * kv_bytes) / bandwidth
            compute, memory, busy = compute + arithmetic, memory + traffic, busy + max(arithmetic, traffic)
        return Cost(1e3 * fit.overhead_us + busy, compute, memory, 1e3 * fit.overhead_us)

    def decode(self, operator: Attention | LatentAttention, requests: int, context: int) -> Cost:
        """Price the attention of ``requests`` new tokens that attend to ``context`` tokens in all.

        A sliding window counts as if all requests had the mean context. That is exact when they lie on one side of
        the window, and at most the cost without a window otherwise; the sum over requests is not needed for it.
        """
        calibration = self.device.calibration
        fit = calibration.decode_attention
        if isinstance(operator, LatentAttention) and calibration.latent_decode is not None:
            fit = calibration.latent_decode
        if operator.window is not None:
            context = min(context, requests * operator.window)
        compute = operator.decode_flops * context / (fit.compute_efficiency * self._flop_per_ns)
        moved = context * operator.kv_elements * self.kv_bytes
        moved += requests * operator.decode_row_elements * dtype_bytes(self.dtype)
        memory = moved / (fit.memory_efficiency * self.device.memory_bandwidth_gb_s)
        return Cost(1e3 * fit.overhead_us + max(compute, memory), compute, memory, 1e3 * fit.overhead_us)

    def tiles(self, operator: Attention | LatentAttention, *, beside_prompts: bool) -> Tiles | None:
        """Return what decodes cost in the kernel for prompts, if they take it.

        That is beside prompts and with a sliding window, where the card says so
        (:class:`~simloop.hardware.calibration.Unpacked`). Attention sinks and a KV cache in another precision take
        other kernels.

        Args:
            operator: The attention.
            beside_prompts: Whether a prompt is in the iteration.
        """
        calibration, device = self.device.calibration, self.device
        if calibration.unpacked is None or isinstance(operator, LatentAttention) or operator.parameters:
            return None
        if not (beside_prompts or operator.window) or self.kv_bytes != dtype_bytes(self.dtype):
            return None
        fit = calibration.prefill_attention
        bandwidth = calibration.decode_attention.memory_efficiency * device.memory_bandwidth_gb_s
        return Tiles(
            pair_ns=operator.pair_flops * calibration.unpacked.tile_rows / (fit.compute_efficiency * self._flop_per_ns),
            ramp=fit.ramp_tokens / 2,
            read_ns=operator.kv_elements * self.kv_bytes / bandwidth,
            request_ns=operator.decode_row_elements * dtype_bytes(self.dtype) / bandwidth,
            heads=operator.num_heads,
            group=operator.num_heads // operator.num_kv_heads,
            units=device.peak_identity.units if device.peak_identity is not None else 1,
            head_bytes=2 * operator.head_dim * self.kv_bytes,
            cache_bytes=1e6 * (device.onchip_memory_mb or 0),
            window=operator.window,
        )

    def running_decode(
        self, operator: Attention | LatentAttention, requests: int, context: int, *, beside_prompts: bool
    ) -> Cost:
        """As :meth:`decode`, in the kernel that decodes take: their own, or that for prompts (:meth:`tiles`)."""
        alone = self.decode(operator, requests, context)
        tiles = self.tiles(operator, beside_prompts=beside_prompts)
        if tiles is None or requests == 0:
            return alone
        compute, memory = tiles.parts(requests, context)
        return Cost(alone.overhead + max(compute, memory), compute, memory, alone.overhead)
