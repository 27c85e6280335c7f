"""Request-level batching without padding: a batch runs to its end, and only then the next is admitted.

Up to ``max_num_seqs`` requests are admitted together, as many as wait and fit, and all their prompts are read in one
iteration. Who is done early leaves an empty seat, which costs nothing and serves nobody. KV memory for prompt and
output is reserved, so nobody is ever preempted. A decode-only iteration costs the same whatever the batch size.

Source: NVIDIA FasterTransformer (packed batches, "remove padding"), as Yu et al., "Orca", OSDI 2022, runs it.
"""

from __future__ import annotations

from simloop.serving import Batch, Worker
from simloop.serving.admission import admit_whole

IGNORES = ("max_num_batched_tokens", "long_prefill_token_threshold", "scheduler_reserve_full_isl", "swap_space")


async def schedule(worker: Worker) -> Batch:
    """Return the next iteration of a worker."""
    batch = worker.batch()
    if worker.running:
        batch.add_decodes()
    else:
        admit_whole(worker, batch)
    return batch
