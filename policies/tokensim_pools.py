"""TokenSim's global scheduler with prefill and decode workers, for results to compare with those of its public code.

New requests go to the workers of the group ``prefill`` in turn. What one of them has read in an iteration it hands
back; that is split into one chunk for each other worker, and each chunk goes to the worker that holds the fewest KV
blocks when it is handed back (its "CePool") or in turn (its "DePool"). Goes with the schedule ``tokensim``, which
fetches the KV.

Source: Wu et al., "TokenSim: Enabling Hardware and Software Exploration for Large Language Model Inference Systems",
2025, and the behaviour of its public code.

Parameters:
    prefill: Name of the group of workers that read prompts.
    decode_pool: Who gets a chunk: ``least_kv`` or ``round_robin``.
"""

from __future__ import annotations

from simloop.errors import InputError, PolicyError
from simloop.serving import Cluster, Request, Worker

POOLS = ("least_kv", "round_robin")


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
