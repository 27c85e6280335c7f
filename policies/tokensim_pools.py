"""TokenSim with a pool of workers that read prompts and one that decodes, to compare with its public code.

New requests go to the workers of the group ``prefill`` in turn. What one of them has read in an iteration it hands
back, and frees its blocks; that is split into one chunk for each other worker, and each chunk goes to the worker that
holds the fewest KV blocks at that moment (its "CePool") or in turn (its "DePool"). The worker takes blocks for the KV
when it schedules next, and fetches it beside computation and other transfers, in time ``latency + bytes / bandwidth``
of whole blocks; the request decodes from the first iteration after that. The scenario needs no network. Otherwise the
schedule is that of ``tokensim``.

Source: Wu et al., "TokenSim: Enabling Hardware and Software Exploration for Large Language Model Inference Systems",
2025, and the behaviour of its public code.

Parameters:
    prefill: Name of the group of workers that read prompts (of both policies).
    decode_pool: Who gets a chunk: ``least_kv`` or ``round_robin``.
    heap_order: As in ``tokensim``.
    bandwidth_gib_s: Bandwidth of fetching KV, GiB/s: 300 is its NVLink, 12.5 its 100 Gbit/s Ethernet.
    latency_us: What fetching takes beside the bytes, microseconds.
"""

from __future__ import annotations

import asyncio

import simloop
from simloop.errors import InputError, PolicyError
from simloop.serving import Batch, Cluster, Phase, Request, Worker, load_policy
from simloop.serving.policy import check_number

IGNORES = ("max_num_batched_tokens", "long_prefill_token_threshold", "scheduler_reserve_full_isl", "scheduling_policy")
POOLS = ("least_kv", "round_robin")
TOKENSIM = load_policy("tokensim", "schedule")


class route:  # noqa: N801 - named after what it is, like the functions
    """Remembers whose turn it is, and the chunk that each prefill worker is handing back."""

    def __init__(self, prefill: str = "prefill", decode_pool: str = "least_kv") -> None:
        if decode_pool not in POOLS:
            raise InputError(f"found {decode_pool!r}, expected one of {', '.join(POOLS)}", path="decode_pool")
        self.prefill, self.decode_pool = prefill, decode_pool
        self.turns = {"prefill": 0, "decode": 0}
        self.groups: dict[Worker, tuple[int, Worker]] = {}

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return a worker for a new request, or for one whose prompt is read."""
        if request.worker is None:
            return self.next_of("prefill", [worker for worker in cluster.workers if worker.group == self.prefill])
        target = self.chunk(request.worker, [worker for worker in cluster.workers if worker.group != self.prefill])
        request.kv_at = target  # it fetches the keys and values itself
        return target

    def next_of(self, pool: str, workers: list[Worker]) -> Worker:
        """Return the worker whose turn it is."""
        if not workers:
            raise PolicyError(f"there are no {pool} workers: name one group {self.prefill!r}, and another otherwise")
        self.turns[pool] += 1
        return workers[(self.turns[pool] - 1) % len(workers)]

    def chunk(self, source: Worker, workers: list[Worker]) -> Worker:
        """Return where the next of those goes that ``source`` hands back together; they follow one another."""
        left = 1 + len(source.decoding)
        together, target = self.groups.get(source, (left, source))
        if (together - left) % -(-together // max(1, len(workers))) == 0:
            least = self.decode_pool == "least_kv" and workers
            target = min(workers, key=lambda worker: worker.kv.used) if least else self.next_of("decode", workers)
        self.groups[source] = together, target
        if left == 1:
            del self.groups[source]
        return target


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker; remembers when the KV that it fetches will be there."""

    def __init__(
        self,
        prefill: str = "prefill",
        heap_order: bool = False,
        bandwidth_gib_s: float = 300.0,
        latency_us: float = 10.0,
    ) -> None:
        self.prefill, self.inner = prefill, TOKENSIM.target(heap_order=heap_order)
        self.byte_ns = 1e9 / (check_number("bandwidth_gib_s", bandwidth_gib_s, least=1e-9) * 2**30)
        self.latency_ns = check_number("latency_us", latency_us, least=0) * 1e3
        self.there_ns: dict[Request, int] = {}

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        if worker.group == self.prefill:
            for request in [request for request in worker.running if request.phase is Phase.DECODING]:
                worker.hand_back(request)
        elif worker.waiting:
            self.fetch(worker)
        batch: Batch = await self.inner(worker)
        if self.there_ns and not batch.prefills:
            self.join(worker, batch)
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

    def join(self, worker: Worker, batch: Batch) -> None:
        """Let those decode whose KV has arrived; who finds no block for its next token is read again here."""
        for request in [request for request, time_ns in self.there_ns.items() if time_ns <= simloop.now_ns()]:
            del self.there_ns[request]
            if request.phase is Phase.PREFILLING and (worker.kv.free or request.computed % worker.kv.block_size):
                batch.add_prefill(request, request.to_prefill)
            elif request.phase is Phase.PREFILLING:
                worker.preempt(request)
