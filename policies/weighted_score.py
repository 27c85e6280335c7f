"""Routing to the worker with the best sum of weighted scores, as the endpoint picker of llm-d does it.

Each scorer gives a worker 0 to 1: ``queue`` 1 to the shortest and 0 to the longest queue, ``kv`` the share of KV blocks
that is free, ``prefix`` the share of the prompt that its prefix cache holds, ``session`` 1 where the session's last
request went. Of equal sums the worker that holds the fewest requests is taken. Costs a walk over all workers, and
with ``prefix`` a search in every cache.

Source: llm-d inference scheduler and Gateway API inference extension: queue-scorer, kv-cache-utilization-scorer,
prefix-cache-scorer, session-affinity-scorer, max-score-picker.

Parameters:
    queue: Weight of the shortest queue.
    kv: Weight of free KV memory.
    prefix: Weight of the cached prefix.
    session: Weight of the session's last worker.
"""

from __future__ import annotations

from typing import Any

from simloop.serving import Cluster, Request, Worker
from simloop.serving.policy import check_number


class route:  # noqa: N801 - named after what it is, like the functions
    """The weights, and where each session was last."""

    def __init__(self, queue: float = 2, kv: float = 2, prefix: float = 3, session: float = 0) -> None:
        self.queue = check_number("queue", queue, least=0)
        self.kv = check_number("kv", kv, least=0)
        self.prefix = check_number("prefix", prefix, least=0)
        self.session = check_number("session", session, least=0)
        self.last: dict[Any, Worker] = {}

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return the worker with the highest score."""
        queues = [len(worker.waiting) for worker in cluster.workers]
        shortest, longest = min(queues), max(queues)
        home = self.last.get(request.session)

        def score(worker: Worker) -> tuple[float, int]:
            spread = longest - shortest
            total = self.queue * ((longest - len(worker.waiting)) / spread if spread else 1.0)
            total += self.kv * (1 - worker.kv.usage) + self.session * (worker is home)
            if self.prefix:
                total += self.prefix * worker.kv.found(request)[0] * worker.kv.block_size / request.prompt_tokens
            return total, -worker.load

        best = max(cluster.workers, key=score)
        if self.session and request.session is not None:
            self.last[request.session] = best
        return best
