"""Invariants of a worker, checked after every iteration when a run asks for it (``--check``)."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from simloop.errors import SimulationError
from simloop.serving.batch import Batch
from simloop.serving.request import Phase, Request

if TYPE_CHECKING:
    from simloop.serving.worker import Worker

__all__ = ["check_worker"]


def check_worker(worker: Worker, batch: Batch) -> None:
    """Walk everybody on a worker and compare with what the fast bookkeeping says.

    Raises:
        SimulationError: A KV block is lost or shared, a token is missing, a request stands in two places.
    """
    decoding = [request for request in worker.running if request.phase is Phase.DECODING]
    found = {
        "KV blocks held": (_held(worker), worker.kv.used),
        "blocks in common": (_shared(worker), worker.kv.cache.shared if worker.kv.cache is not None else 0),
        "free KV blocks": (_free(worker), worker.kv.free),
        "free KV blocks below zero": (min(worker.kv.free, 0), 0),
        "decoding requests": (len(decoding), sum(map(len, worker.cohorts))),
        "stored tokens of decoding requests": (
            sum(request.computed for request in decoding),
            sum(cohort.context for cohort in worker.cohorts),
        ),
        "shortest and longest context": (_extremes(decoding), _kept_extremes(worker)),
        "blocks needed next": (_needed(worker), sum(cohort.blocks_needed for cohort in worker.cohorts)),
        "requests being prefilled": (
            sum(request.phase is Phase.PREFILLING for request in worker.running),
            len(worker.prefilling),
        ),
        "requests held": (sum(map(len, _places(worker))), worker.load),
        "requests in two places": (len(set(worker.running) & set(worker.waiting)), 0),
        "tokens stored but not paid with blocks": (sum(_unpaid(worker, batch)), 0),
        "KV blocks in host memory": (
            sum(request._blocks for request in worker.swapped),
            0 if worker.swap is None else worker.swap.used,
        ),
        "requests swapped out": (
            sum(request.phase is Phase.SWAPPED and request not in worker.running for request in worker.swapped),
            len(worker.swapped),
        ),
    }
    for what, (walked, booked) in found.items():
        if walked != booked:
            raise SimulationError(f"invariant broken on {worker.name}: {what}: {walked} counted, {booked} booked")


def _places(worker: Worker) -> tuple[Collection[Request], ...]:
    return worker.waiting, worker.inbox, worker.arriving, worker.running, worker.swapped, worker.coming


def _extremes(decoding: list[Request]) -> tuple[int, int]:
    stored = [request.computed for request in decoding]
    return min(stored, default=0), max(stored, default=0)


def _kept_extremes(worker: Worker) -> tuple[int, int]:
    some = [cohort for cohort in worker.cohorts if cohort]
    shortest, longest = (cohort.shortest for cohort in some), (cohort.longest for cohort in some)
    return min(shortest, default=0), max(longest, default=0)


def _held(worker: Worker) -> int:
    """Count the blocks of everybody, and those that micro-batches under way have taken for their new tokens."""
    held = sum(request.blocks for request in [*worker.running, *worker.leaving]) - _shared(worker)
    return held + sum(cohort.blocks_needed for cohort in worker.cohorts if cohort.scheduled)


def _shared(worker: Worker) -> int:
    """Return how often blocks of the prefix cache are counted more than once."""
    cache = worker.kv.cache
    return (
        0
        if cache is None
        else sum(block.users - 1 for block in {block for table in cache.tables.values() for block in table})
    )


def _free(worker: Worker) -> int:
    cache = worker.kv.cache
    return worker.kv.free if cache is None else sum(cache.free.values())


def _needed(worker: Worker) -> int:
    size = worker.kv.block_size
    return sum(
        request.phase is Phase.DECODING and not request._reserved and request.computed % size == 0
        for request in worker.running
    )


def _unpaid(worker: Worker, batch: Batch) -> list[int]:
    size = worker.kv.block_size
    late = [request for request, _ in batch.prefills if request.phase is not Phase.DONE]
    return [max(0, request.computed - request.blocks * size) for request in late]
