"""One transfer, and the route it takes."""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from simloop.clock import Event, sleep_ns
from simloop.errors import InputError

if TYPE_CHECKING:
    from simloop.network.crowd import Crowd
    from simloop.network.link import Link
    from simloop.network.traffic import Group, Traffic

__all__ = ["Flow", "Path"]


class Flow(Event):
    """Bytes on their way along one path: an event that is set when the last of them has left the sender.

    Args:
        path: The route.
        nbytes: How many bytes.
        started_ns: When the sender asked.
    """

    __slots__ = ("cancelled", "level", "nbytes", "path", "started_ns")

    def __init__(self, path: Path, nbytes: int, started_ns: int) -> None:
        super().__init__(path.name)
        self.path = path
        self.nbytes = nbytes
        self.started_ns = started_ns
        self.level: float | None = None  # what its path has served when this flow is done; None until it moves
        self.cancelled = False

    def __repr__(self) -> str:
        return f"transfer of {self.nbytes:,} bytes over {self.name}"


class Path:
    """A route over links, on which transfers share alike: all that is under way on one path has the same rate.

    That is why a path, and not each transfer, is what bandwidth is divided among. ``served`` counts the bytes that
    every transfer was given since the path became busy; a transfer that came at ``served == s`` is done at
    ``s + nbytes``, so that a heap of those levels holds the transfers in the order of their ends, whatever the rates.

    Made by :meth:`Fabric.path` and :class:`Link`, not directly.

    Attributes:
        links: The links it crosses, from the sender to the receiver. None for a path from a node to itself.
        latency_ns: The time from the last byte's leaving to its arrival: the sum of the links' latencies.
        limited: The links that let only so many transfers be under way at once; the others wait in line.
        name: What reports call it.
    """

    __slots__ = (
        *("_traffic", "latency_ns", "limited", "links", "name"),
        *("arriving", "count", "flows", "full", "group", "head", "mark", "rate", "served", "since", "waiting"),
    )

    def __init__(self, links: tuple[Link, ...], traffic: Traffic, *, name: str = "") -> None:
        self.links = links
        self.latency_ns = sum(link.latency_ns for link in links)
        self.limited = tuple(link for link in links if link.limit is not None)
        self.name = name
        self._traffic = traffic
        self.mark = 0  # scratch of fairness.components
        self.forget()

    def __repr__(self) -> str:
        return f"Path {self.name}"

    @property
    def bandwidth_gb_s(self) -> float:
        """The bandwidth of the narrowest link, in GB/s (10^9 bytes); ``inf`` when there is none."""
        return min((link.bandwidth_gb_s for link in self.links), default=math.inf)

    @property
    def in_flight(self) -> int:
        """The number of transfers that are under way or wait in line."""
        return self.count + len(self.arriving) + self.waiting

    async def send(self, nbytes: int) -> None:
        """Send ``nbytes``; return when the last of them has arrived.

        Cancelling it gives its share of the bandwidth to the others at once.

        Raises:
            InputError: ``nbytes`` is not a number of bytes.
        """
        await self.transmit(nbytes)
        if self.latency_ns:
            await sleep_ns(self.latency_ns)

    async def transmit(self, nbytes: int) -> None:
        """Send ``nbytes``; return when the last of them has left the sender, ``latency_ns`` before it arrives.

        Raises:
            InputError: ``nbytes`` is not a number of bytes.
        """
        if not (nbytes >= 0 and nbytes == nbytes // 1):
            raise InputError(f"{nbytes!r} bytes cannot be sent: a whole number, 0 or more, is expected")
        if nbytes == 0 or not self.links:
            return
        flow = self._traffic.start(self, int(nbytes))
        try:
            await flow.wait()
        except BaseException:
            self._traffic.cancel(flow)
            raise

    # What follows is for Traffic.

    def forget(self) -> None:
        """Be as new: nothing is under way."""
        self.waiting = 0  # flows in line, because of a link's limit
        self.arriving: list[Flow] = []  # they came at this instant and have no rate yet
        self.flows: list[tuple[float, int, Flow]] = []  # a heap of (level, serial, flow); the first is not cancelled
        self.head = math.inf  # the level of the first
        self.count = 0  # how many of them are not cancelled
        self.rate = 0.0  # bytes per ns for each flow
        self.served = 0.0  # bytes, at the time `since`
        self.since = 0.0
        self.group: Group | Crowd | None = None
        self.full: Link | None = None  # the link that holds it back, when its rate was last computed by filling

    def advance(self, at: float) -> None:
        """Serve every flow at the present rate up to the time ``at``, in ns."""
        self.served += self.rate * (at - self.since)
        self.since = at

    def admit(self, flow: Flow, serial: int) -> None:
        """Let a flow begin at the time up to which the path was served."""
        flow.level = level = self.served + flow.nbytes
        heappush(self.flows, (level, serial, flow))
        self._count(1)

    def pop_done(self, reach: float) -> list[Flow]:
        """Remove the flows that are done when the path has served ``reach`` bytes."""
        done = []
        while self.head <= reach:
            done.append(heappop(self.flows)[2])
            self._count(-1)
        return done

    def remove(self, flow: Flow) -> float:
        """Remove a flow that is not done, and return how many of its bytes were carried."""
        flow.cancelled = True
        if flow.level is None:
            if flow in self.arriving:
                self.arriving.remove(flow)
            return 0.0
        self._count(-1)
        if len(self.flows) > 2 * self.count + 64:  # more corpses than flows
            self.flows = [entry for entry in self.flows if not entry[2].cancelled]
            heapify(self.flows)
        return flow.nbytes - (flow.level - self.served)

    def carried(self, at: float) -> float:
        """Return the bytes that unfinished flows have sent by the time ``at``."""
        served = self.served + self.rate * (at - self.since)
        return sum(flow.nbytes - (level - served) for level, _, flow in self.flows if not flow.cancelled)

    def _count(self, change: int) -> None:
        """Count flows that came or went, and find the first."""
        self.count += change
        for link in self.links:
            link.load += change
        while self.flows and self.flows[0][2].cancelled:
            heappop(self.flows)
        self.head = self.flows[0][0] if self.flows else math.inf
