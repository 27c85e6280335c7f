"""The time of an iteration and the KV memory as the public TokenSim has them, to check against its results.

Source: Wu et al., "TokenSim: Enabling Hardware and Software Exploration for Large Language Model Inference Systems",
2025, and the behaviour of its public code.
"""

from __future__ import annotations

from simloop.errors import InputError
from simloop.hardware.device import Device
from simloop.hardware.memory import MemoryPlan
from simloop.hardware.timing import IterationShape
from simloop.model import Model

__all__ = ["TOKENSIM_HOST_GB_S", "TOKENSIM_HOST_NS", "TokenSim", "tokensim_memory"]

TERA = 2**40
"""What its "T" in TFLOPS and TB/s stands for: "312 TFLOPS" are 343e12."""

PREFILL_FACTOR, PREFILL_S, DECODE_SHARE = 1.41, 0.009, 0.55
"""Its constants, the same for every device and model."""

TILE = 128
"""Prompt tokens come in tiles of so many; a whole number of tiles is charged for one more."""

TOKENSIM_HOST_GB_S, TOKENSIM_HOST_NS = 64 * 2**30 / 1e9, 10_000
"""Its link to the host, PCIe 5: GB/s and latency, paid for swapping out; swapping in is free."""

_FEED_FORWARD = ("gate_up_proj", "up_proj", "down_proj")


class TokenSim:
    """A :class:`~simloop.hardware.TimingModel`: TokenSim's closed form.

    With ``W`` the weights of the decoder blocks (all heads with keys and values of their own, no embedding, no head),
    ``D`` the width, ``L`` the layers, ``F`` FLOP/s and ``B`` bytes/s, 16 bits an element::

        prompts p_i:  1.41 [max(2 W tiles / F, 2 W / B) + sum 4 p_i^2 D L / F] + 9 ms,  tiles = 128 (sum p_i // 128 + 1)
        n decodes:    [max(2 W n / F, 2 W / B) + 4 D L context / B] / 0.55

    It never mixes the two; where a policy does, the tokens of both are read together as prompts, and the attention of
    the decodes comes on top. What rounding to whole nanoseconds leaves over goes to the next iteration, so that a
    worker's clock stays within a nanosecond of one in floating point, however long the run: one worker, one object.

    Args:
        model: The model, with a dense feed-forward layer.
        device: What it runs on.
        peak_tflops: Arithmetic peak, 2^40 FLOP/s; the number that the card gives for float16 in TFLOP/s if not given.
        memory_bandwidth_tb_s: Memory bandwidth, 2^40 bytes/s; the number that the card gives in TB/s if not given.

    Raises:
        InputError: The model has experts, or the card states no float16 peak.
    """

    def __init__(
        self,
        model: Model,
        device: Device,
        *,
        peak_tflops: float | None = None,
        memory_bandwidth_tb_s: float | None = None,
    ) -> None:
        flop_s = (peak_tflops or device.peak_flops("float16") / 1e12) * TERA
        byte_s = (memory_bandwidth_tb_s or device.memory_bandwidth_gb_s / 1e3) * TERA
        weights = _weights(model)
        self._token_s, self._weights_s = 2 * weights / flop_s, 2 * weights / byte_s
        self._pair_s = 4 * model.hidden_size * model.num_layers / flop_s
        self._read_s = 4 * model.hidden_size * model.num_layers / byte_s
        self._rest_ns = 0.0

    def iteration_ns(self, shape: IterationShape) -> int:
        """Return the duration of one iteration, nanoseconds."""
        decodes, context = shape.num_decodes, shape.decode_context
        if shape.chunks or context == decodes:  # who attends to itself alone is a prompt of one token
            seconds = self._prefill_s(shape)
        else:
            dense_s = decodes * self._token_s
            seconds = (
                (dense_s if dense_s > self._weights_s else self._weights_s) + context * self._read_s
            ) / DECODE_SHARE
        exact_ns = seconds * 1e9 + self._rest_ns
        whole = round(exact_ns)
        self._rest_ns = exact_ns - whole
        return whole

    def _prefill_s(self, shape: IterationShape) -> float:
        dense_s = max((shape.num_tokens // TILE + 1) * TILE * self._token_s, self._weights_s)
        pairs = sum(new * (new + cached) for new, cached in shape.chunks)
        if shape.decode_context == shape.num_decodes:
            return PREFILL_FACTOR * (dense_s + (pairs + shape.num_decodes) * self._pair_s) + PREFILL_S
        decoding_s = shape.decode_context * self._read_s / DECODE_SHARE
        return PREFILL_FACTOR * (dense_s + pairs * self._pair_s) + PREFILL_S + decoding_s


def tokensim_memory(
    model: Model, device: Device, *, block_size: int = 16, num_gpu_blocks_override: int | None = None
) -> MemoryPlan:
    """Share out a device's memory as TokenSim does: all of it is weights or KV blocks.

    Weights are ``2 (12 L D^2 + 50000 D)`` bytes whatever the feed-forward layer, a token's keys and values ``4 D L``
    bytes whatever the number of KV heads.

    Args:
        model: The model.
        device: The device.
        block_size: Tokens in one KV block.
        num_gpu_blocks_override: KV blocks to have, whatever the memory says.

    Raises:
        InputError: The weights leave no room for a single KV block.
    """
    width, layers = model.hidden_size, model.num_layers
    weights, token_bytes = 2 * (12 * layers * width**2 + 50_000 * width), 4 * width * layers
    left = max(device.memory_bytes - weights, 0)
    blocks = num_gpu_blocks_override or left // token_bytes // block_size
    if not blocks:
        raise InputError(
            f"{model.name} needs {weights / 1e9:.1f} GB of weights and a KV block; {device.name} has "
            f"{device.memory_bytes / 1e9:.1f} GB"
        )
    return MemoryPlan(
        device_bytes=device.memory_bytes,
        usable_bytes=device.memory_bytes,
        weight_bytes=weights,
        activation_bytes=0,
        other_bytes=0,
        kv_bytes=left,
        block_bytes=block_size * token_bytes,
        block_size=block_size,
        num_blocks=blocks,
        overridden=num_gpu_blocks_override is not None,
    )


def _weights(model: Model) -> int:
    """Return TokenSim's count of the weights in all decoder blocks."""
    width, inner = model.hidden_size, model.intermediate_size
    matrices = round(sum(op.parameters for op in model.block if op.name in _FEED_FORWARD) / (width * inner))
    if not matrices:
        raise InputError(f"{model.name} has experts, which TokenSim does not know")
    return model.num_layers * (4 * width**2 + matrices * width * inner)
