"""TokenSim's global scheduler with prefill and decode workers, for results to compare with those of its public code.

New requests go to the workers of the group ``prefill`` in turn. What one of them has read in an iteration it hands
back; that is split into one chunk for each other worker, and each chunk goes to the worker that holds the fewest KV
blocks (its "CePool") or in turn (its "DePool"). The KV travels whole, beside computation and without contention, in
time ``latency + bytes / bandwidth``; the scenario needs no network. Goes with the schedule ``tokensim``.

Its code gives the blocks of a prefill worker back before the transfer, and takes those of the decode worker at its
start; here both happen at its end, which differs where memory is short.

Source: Wu et al., "TokenSim: Enabling Hardware and Software Exploration for Large Language Model Inference Systems",
2025, and the behaviour of its public code.

Parameters:
    prefill: Name of the group of workers that read prompts.
    decode_pool: Who gets a chunk: ``least_kv`` or ``round_robin``.
    bandwidth_gib_s: Bandwidth of a transfer, GiB/s: 300 is its NVLink, 12.5 its 100 Gbit/s Ethernet.
    latency_us: What a transfer takes beside its bytes, microseconds.
"""

from __future__ import annotations

import attrs

import simloop
from simloop.errors import InputError
from simloop.serving import Cluster, Request, Worker
from simloop.serving.policy import check_number

POOLS = ("least_kv", "round_robin")


@attrs.define
class Chunk:
    """Requests that go to one worker together.

    Attributes:
        target: The worker.
        blocks: The KV blocks that they hold.
        left: How many of them are not there.
    """

    target: Worker
    blocks: int
    left: int


class route:  # noqa: N801 - named after what it is, like the functions
    """Remembers whose turn it is, and what is under way to whom."""

    def __init__(
        self,
        prefill: str = "prefill",
        decode_pool: str = "least_kv",
        bandwidth_gib_s: float = 300.0,
        latency_us: float = 10.0,
    ) -> None:
        if decode_pool not in POOLS:
            raise InputError(f"found {decode_pool!r}, expected one of {', '.join(POOLS)}", path="decode_pool")
        self.prefill, self.decode_pool = prefill, decode_pool
        self.bytes_s = check_number("bandwidth_gib_s", bandwidth_gib_s, least=1e-9) * 2**30
        self.latency_s = check_number("latency_us", latency_us, least=0) / 1e6
        self.turns = {True: 0, False: 0}
        self.chunks: dict[Request, Chunk] = {}
        self.coming: dict[Worker, int] = {}

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return a worker for a new request, or, when its KV is there, for one whose prompt is read."""
        source = request.worker
        if source is None:
            return self.next_of([worker for worker in cluster.workers if worker.group == self.prefill])
        if request not in self.chunks:
            self.split(source, [worker for worker in cluster.workers if worker.group != self.prefill])
        chunk = self.chunks[request]
        num_bytes = chunk.blocks * source.kv.block_size * source.model.kv_bytes_per_token
        await simloop.sleep(self.latency_s + num_bytes / self.bytes_s)
        del self.chunks[request]
        chunk.left -= 1
        if not chunk.left:
            self.coming[chunk.target] -= chunk.blocks
        request.kv_at = chunk.target
        return chunk.target

    def next_of(self, workers: list[Worker]) -> Worker:
        """Return the worker whose turn it is among the prefill or the decode workers."""
        if not workers:
            raise InputError(f"the workers must be of two groups, one of them called {self.prefill!r}")
        pool = workers[0].group == self.prefill
        self.turns[pool] += 1
        return workers[(self.turns[pool] - 1) % len(workers)]

    def split(self, source: Worker, workers: list[Worker]) -> None:
        """Share out what a worker has handed back and is not under way."""
        requests = [request for request in source.leaving if request not in self.chunks]
        size = -(-len(requests) // len(workers)) if workers else 1
        for first in range(0, len(requests), size):
            part = requests[first : first + size]
            target = self.next_of(workers) if self.decode_pool == "round_robin" else min(workers, key=self.held)
            blocks = sum(source.kv.blocks_for(request.computed) for request in part)
            self.coming[target] = self.coming.get(target, 0) + blocks
            self.chunks.update(dict.fromkeys(part, Chunk(target, blocks, len(part))))

    def held(self, worker: Worker) -> int:
        """Return the KV blocks that a worker holds, and those that are under way to it."""
        return worker.kv.used + self.coming.get(worker, 0)
