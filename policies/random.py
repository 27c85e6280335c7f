"""Routing by lot: every worker is equally likely, from the run's seeded stream ``route.random``."""

from __future__ import annotations

from simloop.clock import rng
from simloop.serving import Cluster, Request, Worker


async def route(request: Request, cluster: Cluster) -> Worker:
    """Return any worker."""
    return rng("route.random").choice(cluster.workers)
