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
        dtype: Precision of weights and arithmetic; ``auto`` is the model's own. Quantised weights stay quantised.
        kv_cache_dtype: Precision of the KV cache: ``auto`` (the model's own), ``bfloat16``, ``float16``, ``fp8``,
            ``fp8_e4m3`` or ``fp8_e5m2``.
        tensor_parallel_size: Devices that share every layer; a worker is all of them.
        pipeline_parallel_size: Stages of consecutive layers. Only 1 so far.
        data_parallel_size: Ranks with requests of their own. Where the model has experts the ranks share them and
            iterate together; otherwise they have nothing to do with each other.
        enable_expert_parallel: Give each rank whole experts, not a slice of each.
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
    kv_cache_dtype: str = "auto"
    tensor_parallel_size: _Positive = 1
    pipeline_parallel_size: _Positive = 1
    data_parallel_size: _Positive = 1
    enable_expert_parallel: bool = False
