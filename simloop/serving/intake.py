"""The way of a request into a worker's queue: to the engine, into its input, before its scheduler."""

from __future__ import annotations

import asyncio
from bisect import insort
from typing import TYPE_CHECKING

from simloop.serving.request import Phase, Request, urgency

if TYPE_CHECKING:
    from simloop.serving.worker import Worker

__all__ = ["enqueue", "put_in_queue", "read_inbox"]


def enqueue(worker: Worker, request: Request) -> None:
    """Put a request at the end of the queue, or on its way there."""
    request.worker = worker
    request.phase = Phase.WAITING
    counted = worker.coming.pop(request, 0) is None
    if worker.request_ns:
        worker.arriving.append(request)
        asyncio.get_running_loop().call_later(worker.request_ns / 1e9, _arrive, worker, request)
    else:
        _receive(worker, request)
    worker.load_changed(1 - counted)


def _arrive(worker: Worker, request: Request) -> None:
    if request in worker.arriving:  # nobody has aborted it meanwhile
        worker.arriving.remove(request)
        _receive(worker, request)


def _receive(worker: Worker, request: Request) -> None:
    if worker.async_scheduling and worker.executing:
        worker.inbox.append(request)
    else:
        put_in_queue(worker, request)
    worker.wake.set()


def put_in_queue(worker: Worker, request: Request) -> None:
    """Put a request before the scheduler: at the end, or at its place where priorities count."""
    if worker.engine.scheduling_policy == "priority":
        insort(worker.waiting, request, key=urgency)
    else:
        worker.waiting.append(request)


def read_inbox(worker: Worker) -> None:
    """Put what has come while an iteration was scheduled before the scheduler."""
    while worker.inbox:
        put_in_queue(worker, worker.inbox.popleft())
    worker.wake.set()
