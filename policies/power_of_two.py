"""Routing by the power of two choices: draw two workers, take the one that holds fewer requests.

Nearly as even as looking at all of them, at the price of looking at two.
Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.
"""

from __future__ import annotations

from simloop.clock import rng
from simloop.serving import Cluster, Request, Worker


async def route(request: Request, cluster: Cluster) -> Worker:
    """Return the less loaded of two workers drawn by lot."""
    draw = rng("route.power_of_two")
    first, second = draw.choice(cluster.workers), draw.choice(cluster.workers)
    return first if first.load <= second.load else second
