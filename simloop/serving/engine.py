"""What an engine is told when it starts: vLLM's own argument names."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

__all__ = ["Engine"]

_Positive = Annotated[int, Meta(ge=1)]


class Engine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Arguments of one serving engine, named as in vLLM.

    Attributes:
        max_num_seqs: Most requests that run at once.
        max_num_batched_tokens: Most new tokens in one iteration (the token budget).
        block_size: Tokens in one KV block.
        gpu_memory_utilization: Share of the device's memory that the engine may use, 0 to 1.
        max_model_len: Longest prompt plus output, tokens; the model's own limit if not given.
        num_gpu_blocks_override: KV blocks to have, whatever the memory says.
        long_prefill_token_threshold: Most prompt tokens of one request in one iteration; 0 is no limit.
        scheduler_reserve_full_isl: Admit a request only when its whole prompt fits, not just its first chunk.
        scheduling_policy: Who is admitted first and preempted last: ``fcfs``, or ``priority`` (lower is more urgent).
        enable_prefix_caching: Keep freed blocks and find them again by their hashes, where the workload gives hashes.
        dtype: Precision of weights and arithmetic; ``auto`` is the model's own.
    """

    max_num_seqs: _Positive = 256
    max_num_batched_tokens: _Positive = 2048
    block_size: _Positive = 16
    gpu_memory_utilization: Annotated[float, Meta(gt=0, le=1)] = 0.9
    max_model_len: _Positive | None = None
    num_gpu_blocks_override: _Positive | None = None
    long_prefill_token_threshold: Annotated[int, Meta(ge=0)] = 0
    scheduler_reserve_full_isl: bool = True
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    enable_prefix_caching: bool = True
    dtype: str = "auto"
