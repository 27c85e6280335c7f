"""TokenSim's schedule "paged-attn", with its quirks, for results to compare with those of its public code.

While nobody is swapped out, waiting prompts are read whole, in iterations of their own, if they leave the watermark of
1 % of the KV blocks free; there is no token budget. Otherwise everybody decodes, each wanting a free block even if it
needs none; where one lacks, who arrived last is swapped out. In an iteration without that, swapped requests come back,
who arrived first before the others, if they leave a block for everybody. ``max_num_seqs`` is its ``max_parallem_sum``.

Source: Wu et al., "TokenSim: Enabling Hardware and Software Exploration for Large Language Model Inference Systems",
2025, and the behaviour of its public code.

Parameters:
    max_occupy_ratio: Admit new requests only while a smaller share of the KV blocks is held.
    heap_order: Four or more that arrive within an iteration leave a heap of equals, out of order, as in its code.
"""

from __future__ import annotations

from heapq import heappop, heappush

import attrs

from simloop.errors import InputError
from simloop.serving import Batch, Phase, Request, Worker
from simloop.serving.policy import check_number

IGNORES = ("max_num_batched_tokens", "long_prefill_token_threshold", "scheduler_reserve_full_isl", "scheduling_policy")


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker; remembers who was last in its queue."""

    def __init__(self, max_occupy_ratio: float = 1.0, heap_order: bool = False) -> None:
        self.ratio = check_number("max_occupy_ratio", max_occupy_ratio, least=0, most=1)
        if not isinstance(heap_order, bool):
            raise InputError(f"found {heap_order!r}, expected true or false", path="heap_order")
        self.heap_order = heap_order
        self.last: Request | None = None

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        batch = worker.batch()
        if worker.waiting:
            if self.heap_order and worker.waiting[-1] is not self.last:
                leave_heap(worker, self.last)
            if not worker.swapped:
                read_prompts(worker, batch, self.ratio)
            self.last = worker.waiting[-1] if worker.waiting else None
        if not batch:
            if worker.swapped or worker.kv.free <= worker.decoding.blocks_needed:
                swap(worker)
            batch.add_decodes()
        return batch


def read_prompts(worker: Worker, batch: Batch, ratio: float) -> None:
    """Admit waiting requests, first come, first served, until one does not fit."""
    kv = worker.kv
    while worker.waiting and len(worker.running) < worker.engine.max_num_seqs and kv.usage < ratio:
        request = worker.waiting[0]
        spare = kv.total // 100 if worker.running else 0  # a prompt larger than that would wait for ever
        if request.computed or kv.blocks_for(request.to_prefill) > kv.free - spare:
            break
        worker.admit(request)
        batch.add_prefill(request, request.to_prefill)


def swap(worker: Worker) -> None:
    """Swap out and in until everybody who decodes has a free block, or would need none."""
    kv, cohort, swapped_out = worker.kv, worker.decoding, False
    while cohort and kv.free <= cohort.blocks_needed:
        at_hand = (r for r in worker.running if r.phase is Phase.DECODING and not r.in_flight)
        last = max(at_hand, key=arrival)
        if kv.free == cohort.blocks_needed and last.computed % kv.block_size == 0:
            break  # it needs the block that it wants
        worker.swap_out(last)
        swapped_out = True
    for request in [] if swapped_out else sorted(worker.swapped, key=arrival):
        wanted = len(cohort) + 1 if cohort else request.computed % kv.block_size == 0
        if kv.free - cohort.blocks_needed - request.blocks < wanted:
            break
        worker.swap_in(request)


def arrival(request: Request) -> tuple[int, int]:
    """Order requests by when they arrived."""
    return request.arrival_ns, request.id


@attrs.define
class Equal:
    """A message whose priority is that of all others."""

    request: Request

    def __lt__(self, other: Equal) -> bool:
        return False


def leave_heap(worker: Worker, last: Request | None) -> None:
    """Put who has come since ``last`` into the order in which a binary heap of equals returns them."""
    fresh = []
    while worker.waiting and worker.waiting[-1] is not last:
        fresh.append(worker.waiting.pop())
    heap: list[Equal] = []
    for request in reversed(fresh):
        heappush(heap, Equal(request))
    worker.waiting.extend(heappop(heap).request for _ in fresh)
