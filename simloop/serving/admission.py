"""What several scheduling policies do with the queue and with those who run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simloop.serving.batch import Batch
from simloop.serving.request import Request, urgency
from simloop.serving.worker import Worker

__all__ = ["admit_whole", "keep_sorted", "last_running"]


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


def last_running(worker: Worker) -> Request:
    """Return the request that loses its blocks next: of those at hand the last admitted, or the least urgent one."""
    if worker.engine.scheduling_policy == "fcfs":
        return next(request for request in reversed(worker.running) if not request.in_flight)
    return max((request for request in worker.running if not request.in_flight), key=urgency)


def keep_sorted(worker: Worker, rank: Callable[[Request], Any], last: Request | None) -> Request | None:
    """Sort the queue by ``rank`` if somebody has come since ``last`` was at its end; return who is at its end now.

    Who arrives is put at the end, and who is preempted at the front, so the end tells whether there is something to do.
    """
    waiting = worker.waiting
    if not waiting or waiting[-1] is last:
        return last
    in_order = sorted(waiting, key=rank)
    waiting.clear()
    waiting.extend(in_order)
    return waiting[-1]
