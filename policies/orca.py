"""Iteration-level scheduling with whole prompts, as Orca does it.

After every iteration finished requests leave and waiting ones may join, first come, first served. A prompt is read
whole, in one iteration together with everybody who decodes. KV memory for prompt and output is reserved at admission,
so nobody is ever preempted.

Source: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022, algorithm 1.
"""

from __future__ import annotations

from simloop.serving import Batch, Worker


async def schedule(worker: Worker) -> Batch:
    """Return the next iteration of a worker."""
    batch = worker.batch()
    batch.add_decodes()
    while worker.waiting and len(worker.running) < worker.engine.max_num_seqs:
        request = worker.waiting[0]
        longest = request.total_tokens - 1  # the last token is never read
        if worker.kv.blocks_for(longest) > worker.kv.free:
            break
        worker.admit(request, reserve_tokens=longest)
        batch.add_prefill(request, request.to_prefill)
    return batch
