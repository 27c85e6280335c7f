"""Routing to the worker whose prefix cache holds most of the prompt, unless that would make the load too uneven.

If enough of the prompt is cached somewhere, the worker with the longest cached prefix is taken, of equals the one that
holds fewer requests. Otherwise, or where the loads of the workers differ too much, the least loaded one. It asks the
workers' own caches, so a prompt counts once it has been read, not when it is sent. Costs a search in every cache.

Source: the cache-aware router of SGLang (its two balance thresholds; it keeps an approximate tree of its own);
Srivatsa et al., "Preble: Efficient Distributed Prompt Scheduling for LLM Serving", ICLR 2025.

Parameters:
    least_share: Share of the prompt that must be cached for the cache to count, 0 to 1.
    balance_abs: Uneven is a difference between the largest and the smallest load of more than so many requests ...
    balance_rel: ... where the largest is also more than so many times the smallest.
"""

from __future__ import annotations

from simloop.serving import Cluster, Request, Worker
from simloop.serving.policy import check_number


class route:  # noqa: N801 - named after what it is, like the functions
    """The thresholds."""

    def __init__(self, least_share: float = 0.5, balance_abs: float = 32, balance_rel: float = 1.0001) -> None:
        self.least_share = check_number("least_share", least_share, least=0, most=1)
        self.balance_abs = check_number("balance_abs", balance_abs, least=0)
        self.balance_rel = check_number("balance_rel", balance_rel, least=1)

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return the worker with the longest cached prefix."""
        loads = [worker.load for worker in cluster.workers]
        least, most = min(loads), max(loads)
        if most - least > self.balance_abs and most > self.balance_rel * least:
            return cluster.least_loaded()
        cached = [worker.kv.found(request)[0] * worker.kv.block_size for worker in cluster.workers]
        if max(cached) == 0 or max(cached) < self.least_share * request.prompt_tokens:
            return cluster.least_loaded()
        best = max(range(len(loads)), key=lambda index: (cached[index], -loads[index]))
        return cluster.workers[best]
