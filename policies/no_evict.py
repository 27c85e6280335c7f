"""Continuous batching that never preempts: a request is admitted when everybody's prompt and output fit to their ends.

KV memory for the longest a request can become is reserved at admission, so fewer run at once than with ``vllm``, and
nothing is ever computed twice. Everybody who decodes gets a token, then prompts are read in chunks, first come, first
served, within ``max_num_batched_tokens``. A decode-only iteration costs the same whatever the batch size.

Source: NVIDIA TensorRT-LLM, capacity scheduler policy ``GUARANTEED_NO_EVICT`` (its default); there the longest is
``max_tokens``, which is the output's length here.
"""

from __future__ import annotations

from simloop.serving import Batch, Worker

IGNORES = ("long_prefill_token_threshold", "scheduler_reserve_full_isl", "swap_space")


async def schedule(worker: Worker) -> Batch:
    """Return the next iteration of a worker."""
    batch, kv = worker.batch(), worker.kv
    budget = worker.engine.max_num_batched_tokens
    batch.add_decodes()
    for request in worker.prefilling:
        if request.to_prefill and batch.num_tokens < budget:  # none if a pipeline stage has the last chunk
            batch.add_prefill(request, min(request.to_prefill, budget - batch.num_tokens))
    while worker.waiting and len(worker.running) < worker.engine.max_num_seqs and batch.num_tokens < budget:
        request = worker.waiting[0]
        longest = request.total_tokens - 1  # the last token is never read
        cached, idle = kv.found(request)  # blocks in the prefix cache, and how many of them count as free now
        if kv.blocks_for(longest) - cached + idle > kv.free:
            break
        worker.admit(request, reserve_tokens=longest)
        batch.add_prefill(request, min(request.to_prefill, budget - batch.num_tokens))
    return batch
