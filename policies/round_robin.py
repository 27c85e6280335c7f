"""Routing in turn: the first request to the first worker, the next to the next."""

from __future__ import annotations

from simloop.serving import Cluster, Request, Worker


class route:  # noqa: N801 - named after what it is, like the functions
    """Remembers whose turn it is."""

    def __init__(self) -> None:
        self.turn = -1

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return the worker whose turn it is."""
        self.turn = (self.turn + 1) % len(cluster.workers)
        return cluster.workers[self.turn]
