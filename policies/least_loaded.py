"""Routing to the worker that holds the fewest requests, waiting and running; of equals the first."""

from __future__ import annotations

from simloop.serving import Cluster, Request, Worker


async def route(request: Request, cluster: Cluster) -> Worker:
    """Return the worker with the fewest requests."""
    return cluster.least_loaded()
