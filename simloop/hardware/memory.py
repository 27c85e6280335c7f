"""What fits: weights, activations, and the KV blocks that remain."""

from __future__ import annotations

import attrs

from simloop.errors import InputError
from simloop.hardware.device import Device
from simloop.hardware.roofline import serving_dtype
from simloop.model import Model

__all__ = ["OTHER_BYTES", "MemoryPlan", "memory_plan"]

OTHER_BYTES = int(0.95 * 2**30)
"""Memory outside the engine's own tensors: the driver's reserve, the CUDA context, library workspaces.

vLLM 0.15.1 on an H100 (80 GiB nominal, ``gpu_memory_utilization`` 0.9, 2,048 tokens, 128 sequences) states 7,462 blocks
of 16 tokens for Llama-2-7B on one device and 26,602 for CodeLlama-34B on two: with the weights and the activations of
:func:`memory_plan`, 0.94 GiB and (less 0.33 GiB for NCCL) 1.03 GiB a device remain.
"""


@attrs.frozen
class MemoryPlan:
    """How the memory of one device is shared out, bytes.

    Attributes:
        device_bytes: All memory of the device.
        usable_bytes: What the engine may use: ``gpu_memory_utilization`` of it.
        weight_bytes: The model's weights.
        activation_bytes: Peak of the tensors of one full iteration.
        other_bytes: Driver, context, workspaces.
        kv_bytes: What is left for the KV cache.
        block_bytes: One KV block, all layers.
        block_size: Tokens in one KV block.
        num_blocks: KV blocks.
        overridden: The number of blocks was given, not computed.
    """

    device_bytes: int
    usable_bytes: int
    weight_bytes: int
    activation_bytes: int
    other_bytes: int
    kv_bytes: int
    block_bytes: int
    block_size: int
    num_blocks: int
    overridden: bool = False

    @property
    def num_tokens(self) -> int:
        """Tokens that the KV cache holds."""
        return self.num_blocks * self.block_size

    def __str__(self) -> str:
        rows = [
            ("device memory", self.device_bytes),
            ("usable by the engine", self.usable_bytes),
            ("- weights", self.weight_bytes),
            ("- activations (peak)", self.activation_bytes),
            ("- driver, context, other", self.other_bytes),
            ("= KV cache", self.kv_bytes),
        ]
        lines = [f"{name:<26}{size / 2**30:>9.2f} GiB" for name, size in rows]
        given = ", as given" if self.overridden else ""
        blocks = f"{self.num_blocks:,} KV blocks of {self.block_size} tokens ({self.num_tokens:,} tokens{given})"
        return "\n".join([*lines, blocks])


def memory_plan(
    model: Model,
    device: Device,
    *,
    gpu_memory_utilization: float = 0.9,
    max_num_batched_tokens: int = 2048,
    max_num_seqs: int = 256,
    block_size: int = 16,
    num_gpu_blocks_override: int | None = None,
    dtype: str | None = None,
) -> MemoryPlan:
    """Share out a device's memory as vLLM does: what weights and activations leave of the usable part is KV cache.

    The activation peak is the larger of a feed-forward layer over all tokens of a full iteration (the residual stream
    twice, the gate, the up projection and their product) and of the logits of all sequences in float32, twice.

    Args:
        model: The model.
        device: The device.
        gpu_memory_utilization: Share of the device's memory that the engine may use.
        max_num_batched_tokens: Most tokens of one iteration.
        max_num_seqs: Most sequences of one iteration.
        block_size: Tokens in one KV block.
        num_gpu_blocks_override: KV blocks to have, whatever the memory says.
        dtype: Precision; see :func:`simloop.hardware.serving_dtype`.

    Raises:
        InputError: The weights do not fit, or they leave no room for a single KV block.
    """
    model = model.with_dtype(serving_dtype(model, device, dtype))
    usable = int(device.memory_bytes * gpu_memory_utilization)
    rows = 2 * model.hidden_size + 3 * model.intermediate_size
    layer = max_num_batched_tokens * rows * model.dtype_bytes
    logits = max_num_seqs * model.vocab_size * 2 * 4
    kv_bytes = usable - model.weight_bytes - max(layer, logits) - OTHER_BYTES
    block_bytes = block_size * model.kv_bytes_per_token
    num_blocks = num_gpu_blocks_override or kv_bytes // block_bytes
    if model.weight_bytes >= usable and num_gpu_blocks_override is None:
        raise InputError(
            f"{model.name} needs {model.weight_bytes / 1e9:.1f} GB of weights; "
            f"{device.name} at {gpu_memory_utilization:g} has {usable / 1e9:.1f} GB"
        )
    if num_blocks < 1:
        taken = (model.weight_bytes, max(layer, logits), OTHER_BYTES)
        weights, activations, other = (f"{size / 1e9:.1f} GB" for size in taken)
        raise InputError(
            f"{model.name} on {device.name} at {gpu_memory_utilization:g}: {weights} of weights, {activations} of "
            f"activations and {other} of context leave no room for KV cache in {usable / 1e9:.1f} GB"
        )
    return MemoryPlan(
        device_bytes=device.memory_bytes,
        usable_bytes=usable,
        weight_bytes=model.weight_bytes,
        activation_bytes=max(layer, logits),
        other_bytes=OTHER_BYTES,
        kv_bytes=max(kv_bytes, 0),
        block_bytes=block_bytes,
        block_size=block_size,
        num_blocks=num_blocks,
        overridden=num_gpu_blocks_override is not None,
    )
