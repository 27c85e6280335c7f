"""Admission as engines without chunks and without preemption do it."""

from __future__ import annotations

from simloop.serving.batch import Batch
from simloop.serving.worker import Worker

__all__ = ["admit_whole"]


def admit_whole(worker: Worker, batch: Batch) -> None:
    """Admit waiting requests in the queue's order until one does not fit, each with its whole prompt.

    KV memory for prompt and output is reserved, so that nobody will ever have to be preempted.
    """
    while worker.waiting and len(worker.running) < worker.engine.max_num_seqs:
        request = worker.waiting[0]
        longest = request.total_tokens - 1  # the last token is never read
        if worker.kv.blocks_for(longest) > worker.kv.free:
            break
        worker.admit(request, reserve_tokens=longest)
        batch.add_prefill(request, request.to_prefill)
