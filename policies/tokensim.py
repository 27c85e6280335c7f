"""TokenSim's schedule "paged-attn", with its quirks, for results to compare with those of its public code.

While nobody is swapped out, waiting prompts are read whole, in iterations of their own, if they leave the watermark of
1 % of the KV blocks free; there is no token budget. Otherwise everybody decodes, each wanting a free block even if it
needs none; where one lacks, who arrived last is swapped out. In an iteration without that, swapped requests come back,
who arrived first before the others, if they leave a block for everybody. ``max_num_seqs`` is its ``max_parallem_sum``.

Workers of the group ``prefill`` hand back whoever's prompt is read, and free its blocks; ``tokensim_pools`` routes it
on. The worker that gets it takes blocks for its KV when it schedules next, and fetches it beside computation and other
transfers, in time ``latency + bytes / bandwidth`` of whole blocks; the request decodes from the first iteration after
that. The scenario needs no network.

Source: Wu et al., "TokenSim: Enabling Hardware and Software Exploration for Large Language Model Inference Systems",
2025, and the behaviour of its public code.

Parameters:
    max_occupy_ratio: Admit new requests only while a smaller share of the KV blocks is held; not on prefill workers.
    heap_order: Four or more that arrive within an iteration leave a heap of equals, out of order, as in its code.
    prefill: Name of the group of workers that only read prompts.
    bandwidth_gib_s: Bandwidth of fetching KV, GiB/s: 300 is its NVLink, 12.5 its 100 Gbit/s Ethernet.
    latency_us: What fetching takes beside the bytes, microseconds.
"""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush

import attrs

import simloop
from simloop.serving import Batch, Phase, Request, Worker
from simloop.serving.policy import check_number

IGNORES = ("max_num_batched_tokens", "long_prefill_token_threshold", "scheduler_reserve_full_isl", "scheduling_policy")
WATERMARK = 0.01


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker; remembers who was last in its queue, and when KV will be there."""

    def __init__(
        self,
        max_occupy_ratio: float = 1.0,
        heap_order: bool = False,
        prefill: str = "prefill",
        bandwidth_gib_s: float = 300.0,
        latency_us: float = 10.0,
    ) -> None:
        self.ratio = check_number("max_occupy_ratio", max_occupy_ratio, least=0, most=1)
        self.heap_order, self.prefill = heap_order, prefill
        self.byte_ns = 1e9 / (check_number("bandwidth_gib_s", bandwidth_gib_s, least=1e-9) * 2**30)
        self.latency_ns = check_number("latency_us", latency_us, least=0) * 1e3
        self.last: Request | None = None
        self.there_ns: dict[Request, int] = {}

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        only_prompts = worker.group == self.prefill
        if only_prompts and worker.decoding:
            for request in [request for request in worker.running if request.phase is Phase.DECODING]:
                worker.hand_back(request)
        batch = worker.batch()
        if worker.waiting:
            if self.heap_order and worker.waiting[-1] is not self.last:
                leave_heap(worker, self.last)
            self.fetch(worker)
            if not worker.swapped:
                read_prompts(worker, batch, 1.0 if only_prompts else self.ratio)
            self.last = worker.waiting[-1] if worker.waiting else None
        if not batch:
            if worker.swapped or worker.kv.free <= worker.decoding.blocks_needed:
                swap(worker)
            batch.add_decodes()
            for request in self.fetched() if self.there_ns else ():
                batch.add_prefill(request, request.to_prefill)
        return batch

    def fetch(self, worker: Worker) -> None:
        """Take blocks for the KV of those who come with it, and begin to fetch it."""
        kv = worker.kv
        while worker.waiting and (stored := worker.waiting[0].computed) and kv.free >= kv.blocks_for(stored):
            request = worker.waiting[0]
            worker.admit(request)
            num_bytes = request.blocks * kv.block_size * worker.model.kv_bytes_per_token
            delay_ns = round(self.latency_ns + num_bytes * self.byte_ns)
            self.there_ns[request] = simloop.now_ns() + delay_ns
            asyncio.get_running_loop().call_later(delay_ns / 1e9, worker.wake.set)

    def fetched(self) -> list[Request]:
        """Return those whose KV has arrived, and forget that it was under way."""
        there = [request for request, time_ns in self.there_ns.items() if time_ns <= simloop.now_ns()]
        for request in there:
            del self.there_ns[request]
        return there


def read_prompts(worker: Worker, batch: Batch, ratio: float) -> None:
    """Admit waiting requests, first come, first served, until one does not fit."""
    kv = worker.kv
    while worker.waiting and len(worker.running) < worker.engine.max_num_seqs and kv.usage < ratio:
        request = worker.waiting[0]
        spare = int(WATERMARK * kv.total) if worker.running else 0  # a prompt larger than that would wait for ever
        if request.computed or kv.blocks_for(request.to_prefill) > kv.free - spare:
            break
        worker.admit(request)
        batch.add_prefill(request, request.to_prefill)


def swap(worker: Worker) -> None:
    """Swap out and in until everybody who decodes has a free block, or would need none."""
    kv, cohort, swapped_out = worker.kv, worker.decoding, False
    while cohort and kv.free <= cohort.blocks_needed:
        last = max((request for request in worker.running if request.phase is Phase.DECODING), key=arrival)
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
    while heap:
        worker.waiting.append(heappop(heap).request)
