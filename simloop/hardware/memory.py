"""What fits: weights, activations, and the KV blocks that remain."""

from __future__ import annotations

from typing import NamedTuple

import attrs

from simloop.errors import InputError
from simloop.hardware.device import Device
from simloop.hardware.roofline import serving_dtype
from simloop.model import Experts, Model, Plan, Stage, shard

__all__ = ["NCCL_BYTES", "OTHER_BYTES", "MemoryPlan", "memory_plan"]

OTHER_BYTES = int(0.95 * 2**30)
"""Memory outside the engine's own tensors: the driver's reserve, the CUDA context, library workspaces.

vLLM 0.15.1 on an H100 (80 GiB nominal, ``gpu_memory_utilization`` 0.9, 2,048 tokens, 128 sequences) states 7,462 blocks
of 16 tokens for Llama-2-7B on one device and 26,602 for CodeLlama-34B on two: with the weights and the activations of
:func:`memory_plan`, 0.94 GiB and (less 0.33 GiB for NCCL) 1.03 GiB a device remain.
"""


NCCL_BYTES = {1: 0, 2: 342 * 2**20, 4: 392 * 2**20, 8: 392 * 2**20}
"""Buffers of NCCL on each rank, by the number of ranks (aiconfigurator's system tables)."""


@attrs.frozen
class MemoryPlan:
    """How the memory of one device is shared out, bytes.

    Attributes:
        device_bytes: All memory of the device.
        usable_bytes: What the engine may use: ``gpu_memory_utilization`` of it.
        weight_bytes: The weights on this device.
        activation_bytes: Peak of the tensors of one full iteration.
        other_bytes: Driver, context, workspaces, buffers of the interconnect.
        window_bytes: KV cache of layers with a sliding window, kept apart for all sequences at once; 0 where the blocks
            hold these layers, too.
        kv_bytes: What is left for the KV blocks.
        block_bytes: One KV block, all layers that blocks hold.
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
    window_bytes: int = 0

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
            *([("- KV of sliding windows", self.window_bytes)] if self.window_bytes else []),
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
    kv_cache_dtype: str | None = None,
    plan: Plan | None = None,
) -> MemoryPlan:
    """Share out a device's memory as vLLM does: what weights and activations leave of the usable part is KV cache.

    The activation peak is the larger of a feed-forward layer over all tokens of a full iteration (the residual stream
    twice, the gate, the up projection and their product; of experts, for every expert that a token goes to) and of the
    logits of all sequences in float32, twice. Of a plan over several devices it is the rank with the fewest blocks.

    Args:
        model: The model.
        device: The device.
        gpu_memory_utilization: Share of the device's memory that the engine may use.
        max_num_batched_tokens: Most tokens of one iteration.
        max_num_seqs: Most sequences of one iteration.
        block_size: Tokens in one KV block.
        num_gpu_blocks_override: KV blocks to have, whatever the memory says.
        dtype: Precision; see :func:`simloop.hardware.serving_dtype`.
        kv_cache_dtype: Precision of the KV cache; ``None`` and ``"auto"`` are the model's own.
        plan: How the model is spread over devices; one device if not given.

    Raises:
        InputError: The weights do not fit, they leave no room for a single KV block, or the plan does not divide the
            model.
    """
    model = model.with_dtype(serving_dtype(model, device, dtype)).with_kv_cache_dtype(kv_cache_dtype)
    limits = _Limits(gpu_memory_utilization, max_num_batched_tokens, max_num_seqs, block_size, num_gpu_blocks_override)
    ranks = [_rank(model, device, plan or Plan(), stage, limits) for stage in shard(model, plan or Plan())]
    least = min(ranks, key=lambda found: found.num_blocks)
    if least.num_blocks < 1:
        taken = (least.weight_bytes, least.activation_bytes, least.other_bytes, least.usable_bytes)
        weights, activations, other, usable = (f"{size / 1e9:.1f} GB" for size in taken)
        raise InputError(
            f"{model.name} on {device.name} at {gpu_memory_utilization:g}: {weights} of weights, {activations} of "
            f"activations and {other} of context leave no room for KV cache in {usable}"
        )
    return least


class _Limits(NamedTuple):
    """The engine's arguments that decide about memory."""

    utilization: float
    tokens: int
    sequences: int
    block_size: int
    override: int | None


def _rank(model: Model, device: Device, plan: Plan, stage: Stage, limits: _Limits) -> MemoryPlan:
    """Share out the memory of one rank of a stage."""
    usable = int(device.memory_bytes * limits.utilization)
    weights = stage.weight_bytes(model.dtype_bytes)
    if weights >= usable and limits.override is None:
        devices = plan.expert_ranks * plan.pipeline_parallel
        each = f" on each of {devices}" if devices > 1 else ""
        raise InputError(
            f"{model.name} needs {weights / 1e9:.1f} GB of weights{each}; "
            f"{device.name} at {limits.utilization:g} has {usable / 1e9:.1f} GB"
        )
    activations = _activation_bytes(model, stage, limits.tokens, limits.sequences)
    other = OTHER_BYTES + _nccl_bytes(plan)
    left = usable - weights - activations - other
    layout = _layout(model, stage, left, limits.sequences, limits.tokens)
    block_bytes = limits.block_size * layout.token_bytes
    return MemoryPlan(
        device_bytes=device.memory_bytes,
        usable_bytes=usable,
        weight_bytes=weights,
        activation_bytes=activations,
        other_bytes=other,
        window_bytes=layout.window_bytes,
        kv_bytes=max(left - layout.window_bytes, 0),
        block_bytes=block_bytes,
        block_size=limits.block_size,
        num_blocks=limits.override or (left - layout.window_bytes) // block_bytes,
        overridden=limits.override is not None,
    )


class _Layout(NamedTuple):
    """What the KV blocks hold of each token, and what windows take beside them, bytes."""

    token_bytes: int
    window_bytes: int


def _layout(model: Model, stage: Stage, room: int, sequences: int, tokens: int) -> _Layout:
    """Return the better of two ways to keep the layers with a sliding window.

    Either blocks hold them like all others, or each sequence that may run has its windows apart (and one iteration's
    new tokens), which is what vLLM's hybrid KV cache manager needs at most. Its capacity is between the two.
    """
    whole = windows = kept = 0
    for operator, calls in stage.attentions():
        size = operator.kv_elements * calls * model.kv_dtype_bytes
        whole += size
        if operator.window is not None:
            windows += size
            kept += size * (sequences * operator.window + tokens)
    if windows and windows < whole and (room - kept) * whole > room * (whole - windows):
        return _Layout(whole - windows, kept)
    return _Layout(whole, 0)


def _activation_bytes(model: Model, stage: Stage, tokens: int, sequences: int) -> int:
    widest = model.intermediate_size // stage.tensor_parallel * 3
    for operator, _ in stage.operators:
        if isinstance(operator, Experts):
            each = max(2 * operator.width, operator.hidden) + operator.width
            widest = max(widest, operator.top_k * each * operator.gathered)
    layer = tokens * (2 * model.hidden_size + widest) * model.dtype_bytes
    return max(layer, sequences * model.vocab_size * 2 * 4 * stage.last)


def _nccl_bytes(plan: Plan) -> int:
    ranks = plan.tensor_parallel * plan.pipeline_parallel * plan.data_parallel
    return next((size for most, size in NCCL_BYTES.items() if most >= ranks), NCCL_BYTES[8])
