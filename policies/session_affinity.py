"""Routing that keeps a conversation where it began, because its keys and values may still be cached there.

A new session, and a request without one, goes to the worker that holds the fewest requests; every later request of a
session to the worker of its first. Costs a look-up; sessions are never forgotten.

Source: the session router of the vLLM production stack (``vllm_router/routers/routing_logic.py``), which draws the
worker of a new session from a hash ring.
"""

from __future__ import annotations

from typing import Any

from simloop.serving import Cluster, Request, Worker


class route:  # noqa: N801 - named after what it is, like the functions
    """Remembers where each session is at home."""

    def __init__(self) -> None:
        self.home: dict[Any, Worker] = {}

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return the worker of the request's session."""
        worker = self.home.get(request.session)
        if worker is None:
            worker = cluster.least_loaded()
            if request.session is not None:
                self.home[request.session] = worker
        return worker
