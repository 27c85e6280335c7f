"""Decodes in the kernel for prompts, written apart from the product, for all that compare with it."""

from __future__ import annotations

from simloop.hardware import Device
from simloop.model import Attention, LatentAttention


def takes_tiles(operator: Attention | LatentAttention, device: Device, *, mixed: bool, kv: int = 2) -> bool:
    """FlashAttention 2, beside prompts or with a window; not for MLA, sinks, or a quantised cache."""
    plain = isinstance(operator, Attention) and operator.parameters == 0 and kv == 2
    return plain and device.calibration.unpacked is not None and (mixed or operator.window is not None)


def tiles_ns(operator: Attention, device: Device, requests: int, context: int) -> float:
    """What the units compute, or what comes from memory if the heads of a group run apart."""
    calibration, identity = device.calibration, device.peak_identity
    assert calibration.unpacked is not None
    assert identity is not None
    assert device.onchip_memory_mb is not None
    if operator.window is not None:
        context = min(context, requests * operator.window)
    fit, heads, dim = calibration.prefill_attention, operator.num_heads, operator.head_dim
    mean, tiles = context / requests, requests * heads
    tile = 4 * dim * calibration.unpacked.tile_rows * (mean + fit.ramp_tokens / 2)
    rate = fit.compute_efficiency * device.peak_flops("bfloat16") / 1e9
    compute = tile * tiles / rate * max(1, identity.units / tiles)
    group = heads // operator.num_kv_heads
    reads = group / min(max(identity.units / requests, 1), group)
    one_head, cache = context * dim * 2 * 2, device.onchip_memory_mb * 1e6
    reads = 1 + (reads - 1) * min(1, max(0, (one_head - cache) / cache))
    moved = 2 * dim * (2 * operator.num_kv_heads * context + 2 * heads * requests)
    memory = moved * reads / (calibration.decode_attention.memory_efficiency * device.memory_bandwidth_gb_s)
    return 1e3 * calibration.decode_attention.overhead_us + max(compute, memory)
