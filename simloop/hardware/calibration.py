"""How much of its peak a device reaches, one small set of numbers for each kind of operator.

The formulas are the roofline of Williams, Waterman and Patterson (CACM 2009) with a fixed cost and two efficiencies,
and its smooth form; the numbers come from measured kernels (``tests/benchmarks/fit_devices.py``) and stand in the
device cards with the error that they leave.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from simloop.model import Kernel

__all__ = ["AttentionFit", "Calibration", "ElementwiseFit", "GemmFit", "Launch", "Unpacked"]

_Share = Annotated[float, Meta(gt=0, le=1)]
_Time = Annotated[float, Meta(ge=0)]
_Error = Annotated[float, Meta(ge=0)]


class _Fit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every set of fitted numbers has.

    Attributes:
        source: What it was fitted to, or where it was carried over from.
        overhead_us: Fixed cost of one kernel on the device, microseconds (it does not include launching it).
        memory_efficiency: Share of the memory bandwidth that is reached.
        median_error: Median absolute relative error of the fit on its points, where it was fitted.
        p90_error: 90th percentile of the same.
    """

    source: str
    overhead_us: _Time
    memory_efficiency: _Share
    median_error: _Error | None = None
    p90_error: _Error | None = None


class ElementwiseFit(_Fit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Norms, activation, rotary embedding, sampling: ``t = overhead + bytes / (memory_efficiency · bandwidth)``.

    Attributes:
        memory_efficiency: As for the others, but it may exceed 1: what the operator before has just written is often
            still in the last-level cache.
    """

    memory_efficiency: Annotated[float, Meta(gt=0, le=4)]


class GemmFit(_Fit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Matrix products: ``t = overhead + (C^q + M^q)^(1/q)``, with ``C`` the compute and ``M`` the memory time.

    ``C = flops / (compute_efficiency · peak)`` and ``M = bytes / (memory_efficiency · bandwidth)``.

    Attributes:
        compute_efficiency: Share of the peak FLOP/s that large products reach.
        sharpness: ``q``: 1 adds the two times, a large value takes the larger one (no overlap, full overlap).
    """

    compute_efficiency: _Share
    sharpness: Annotated[float, Meta(ge=1)]


class AttentionFit(_Fit, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Attention kernels: ``t = overhead + sum over requests of max(C, M)``.

    ``C = 4 · heads · head_dim · (pairs + new · ramp_tokens / 2) / (compute_efficiency · peak)``, where ``pairs`` counts
    the (query, key) pairs of the request; ``M`` is its queries, outputs, keys and values over the achieved bandwidth.

    Attributes:
        compute_efficiency: Share of the peak FLOP/s that long prompts reach.
        ramp_tokens: Length at which a prompt reaches half of that: every new token costs as much as attending to half
            as many tokens more, so that a prompt of ``S`` tokens runs at ``S / (S + ramp_tokens)`` of the rate.
    """

    compute_efficiency: _Share
    ramp_tokens: Annotated[float, Meta(ge=0)] = 0.0


class Launch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the host spends on starting kernels.

    Attributes:
        source: Where the number comes from.
        kernel_us: One launch, microseconds. An iteration that is replayed from a CUDA graph pays for one; any other
            takes at least as long as launching all of its kernels.
    """

    source: str
    kernel_us: _Time


class Unpacked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Decodes in the kernel for prompts, which does not pack the query heads that share a key-value head.

    FlashAttention 2 packs them where all requests decode and nothing is masked; beside prompts, and with a sliding
    window, each query head of a request takes a tile of its own, most of it empty, and reads keys and values by itself.

    Attributes:
        source: What it was checked with.
        tile_rows: Query rows of a tile.
    """

    source: str
    tile_rows: Annotated[int, Meta(ge=1)]


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Achieved efficiency of each kind of operator.

    Attributes:
        gemm: Matrix products with weights.
        prefill_attention: AttentionFit of prompt chunks.
        decode_attention: AttentionFit of one new token for each request.
        elementwise: Everything bound by memory traffic alone.
        launch: Host time of launching kernels.
        gemm_quantized: Matrix products with quantised weights, by kind of kernel; ``gemm`` holds for what is missing.
        moe: Grouped products of a mixture's experts; ``gemm`` holds where it is missing.
        moe_quantized: The same with quantised weights, by kind of kernel; ``moe`` holds for what is missing.
        latent_decode: Latent attention (MLA) of one new token for each request; ``decode_attention`` holds where it
            is missing.
        unpacked: Decodes beside prompts or with a sliding window; as other decodes where it is missing.
    """

    gemm: GemmFit
    prefill_attention: AttentionFit
    decode_attention: AttentionFit
    elementwise: ElementwiseFit
    launch: Launch
    gemm_quantized: dict[Kernel, GemmFit] = {}
    moe: GemmFit | None = None
    moe_quantized: dict[Kernel, GemmFit] = {}
    latent_decode: AttentionFit | None = None
    unpacked: Unpacked | None = None

    def for_gemm(self, kernel: Kernel | None) -> GemmFit:
        """Return the numbers for matrix products with weights of one kind; ``None`` is not quantised."""
        return self.gemm_quantized.get(kernel, self.gemm) if kernel else self.gemm

    def for_experts(self, kernel: Kernel | None) -> GemmFit:
        """Return the numbers for experts with weights of one kind; ``None`` is not quantised."""
        plain = self.moe or self.gemm
        return self.moe_quantized.get(kernel, plain) if kernel else plain
