"""A network that passes on whole messages: what congestion-aware ASTRA-sim computes, for any fabric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from heapq import heappop, heappush

from simloop.network.fabric import Fabric
from simloop.network.link import Link
from simloop.network.schedules import Step

__all__ = ["store_and_forward_ns"]


def store_and_forward_ns(fabric: Fabric, nodes: Sequence[str], steps: Sequence[Step]) -> float:
    """Return how long a schedule takes when links are first come, first served, and nodes forward whole messages.

    Runs by itself, outside of virtual time, and leaves no trace on the fabric. A link is busy for
    ``bytes / bandwidth``; a message is at its other end ``latency`` later, and only then goes on to the next. A rank
    sends the messages of a step to its successors in the order of their distance.

    Args:
        fabric: The network, of which routes, bandwidths and latencies are used.
        nodes: The ranks in order.
        steps: See :func:`~simloop.network.schedules.schedule`.

    Returns:
        ns.
    """
    return _Run(fabric, nodes, steps).last_ns()


class _Run:
    """One run: a heap of messages by the time at which they stand before their next link."""

    def __init__(self, fabric: Fabric, nodes: Sequence[str], steps: Sequence[Step]) -> None:
        self.num_steps = len(steps)
        self.free_ns: dict[Link, float] = defaultdict(float)
        self.events: list[tuple[float, int, int, int, int, tuple[Link, ...]]] = []
        self.serial = 0
        self.outgoing: dict[tuple[int, int], list[tuple[int, int, tuple[Link, ...]]]] = defaultdict(list)
        self.expected: dict[tuple[int, int], int] = defaultdict(int)
        self.step_of = [-1] * len(nodes)
        for index, step in enumerate(steps):
            for src, dst, nbytes in sorted(step, key=lambda message: (message[1] - message[0]) % len(nodes)):
                route = fabric.path(nodes[src], nodes[dst]).links
                self.outgoing[index, src].append((dst, nbytes, route))
                self.expected[index, dst] += 1

    def last_ns(self) -> float:
        """Run, and return when the last message arrives."""
        for rank in range(len(self.step_of)):
            self.advance(rank, 0.0)
        now = 0.0
        while self.events:
            now, _, step, dst, nbytes, route = heappop(self.events)
            if route:
                link = route[0]
                left = max(now, self.free_ns[link]) + nbytes / link.bandwidth_gb_s
                self.free_ns[link] = left
                self.push(left + link.latency_ns, step, dst, nbytes, route[1:])
            else:
                self.expected[step, dst] -= 1
                if step == self.step_of[dst] and self.expected[step, dst] == 0:
                    self.advance(dst, now)
        return now

    def advance(self, rank: int, now: float) -> None:
        """Begin the next step of a rank, and those after it as long as nothing has to arrive first."""
        while self.step_of[rank] < self.num_steps:
            self.step_of[rank] += 1
            step = self.step_of[rank]
            for dst, nbytes, route in self.outgoing[step, rank]:
                self.push(now, step, dst, nbytes, route)
            if self.expected[step, rank]:
                return

    def push(self, when: float, step: int, dst: int, nbytes: int, route: tuple[Link, ...]) -> None:
        """Put a message before the next link of its route at the time ``when``."""
        self.serial += 1
        heappush(self.events, (when, self.serial, step, dst, nbytes, route))
