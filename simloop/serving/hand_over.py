"""Requests that change workers: what the one that lets go does, and the one that goes on.

The books of both workers; :mod:`simloop.serving.kv_transfer` moves the bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simloop.clock import sleep_until_ns
from simloop.errors import PolicyError
from simloop.serving.books import join
from simloop.serving.kv_transfer import Departure, forget_kv, layers_done_ns
from simloop.serving.request import Phase, Request

if TYPE_CHECKING:
    from simloop.serving.batch import Batch
    from simloop.serving.worker import Worker

__all__ = [
    "begin_departures",
    "go_on",
    "hand_back",
    "let_go",
    "take_back",
    "wait_for_layers",
]


def hand_back(worker: Worker, request: Request) -> None:
    """Give a running request back to the cluster; see :meth:`Worker.hand_back`."""
    if any(request is aborted for aborted, _ in worker._aborted):
        return
    if request._batch is not None:
        worker._check_between("handed back")
        _hand_back_after(worker, request, request._batch)
    else:
        worker._stop(request, "handed back")
        request.phase = Phase.ROUTING
        worker.leaving[request] = None
        worker.load_changed(-1)
    forget_kv(worker, request)
    if worker.on_hand_back is not None:
        worker.on_hand_back(request)


def _hand_back_after(worker: Worker, request: Request, batch: Batch) -> None:
    if request not in batch.completing or request._departure is not None:
        raise PolicyError(
            f"{request!r} was handed back on {worker.name}, and the batch does not read all of its prompt, or ends it"
        )
    departure = Departure(request.computed + request.to_prefill, request.computed)
    request._departure = departure
    worker.departing.append(departure)
    worker.beside = True


def begin_departures(worker: Worker, start_ns: int, end_ns: int) -> None:
    """Tell those who send KV while it is made when the iteration is done that starts now."""
    for departure in worker.departing:
        departure.span_ns = start_ns, end_ns
        departure.begun.set()
    worker.departing.clear()


def let_go(worker: Worker, request: Request) -> None:
    """Free the KV blocks of a request that was handed back; what it had computed is lost unless it was sent."""
    del worker.leaving[request]
    worker._free_blocks(request)
    request._reserved = False
    worker.wake.set()


def take_back(worker: Worker, request: Request) -> None:
    """Go on with a request that was handed back here and routed here again; its KV blocks never left."""
    del worker.leaving[request]
    worker.running[request] = None
    if request.to_prefill > 1 or not request.generated:  # who decodes has one token that is not read
        request.phase = Phase.PREFILLING
        worker.prefilling[request] = None
    else:
        request.phase = Phase.PAUSED
        worker._returned.append(request)
    worker.news.add("resumed", request)
    worker.wake.set()
    worker.load_changed(1)


def go_on(worker: Worker) -> None:
    """Let those decode again that were taken back meanwhile."""
    for request in worker._returned:
        if request.phase is Phase.PAUSED:  # nobody has aborted it meanwhile
            join(worker, request, worker.decoding)
    worker._returned.clear()


async def wait_for_layers(worker: Worker, batch: Batch, start_ns: int, end_ns: int) -> None:
    """Prolong an iteration that needs keys and values which were still on their way when it started."""
    streams = [worker.incoming.pop(request) for request, _ in batch.prefills if request in worker.incoming]
    if not streams:
        return
    for stream in streams:
        await stream.arrived()
    await sleep_until_ns(layers_done_ns((stream.arrival_ns for stream in streams), start_ns, end_ns))
