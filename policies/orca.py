"""Iteration-level scheduling with whole prompts, as Orca does it.

After every iteration finished requests leave and waiting ones may join, first come, first served (the most urgent first
with ``scheduling_policy: priority``). A prompt is read whole, in one iteration together with everybody who decodes. KV
memory for prompt and output is reserved at admission, so nobody is ever preempted.

Source: Yu et al., "Orca: A Distributed Serving System for Transformer-Based Generative Models", OSDI 2022, algorithm 1.
"""

from __future__ import annotations

from simloop.serving import Batch, Worker
from simloop.serving.admission import admit_whole

IGNORES = ("max_num_batched_tokens", "long_prefill_token_threshold", "scheduler_reserve_full_isl", "swap_space")


async def schedule(worker: Worker) -> Batch:
    """Return the next iteration of a worker."""
    batch = worker.batch()
    batch.add_decodes()
    admit_whole(worker, batch)
    return batch
