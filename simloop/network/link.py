"""A link: bytes go in at one end, and come out at the other at most so fast."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Literal

import attrs

from simloop.clock import now_ns
from simloop.errors import InputError, did_you_mean
from simloop.network.flow import Flow, Path
from simloop.network.traffic import Traffic

if TYPE_CHECKING:
    from simloop.network.crowd import Crowd

__all__ = ["Link", "LinkUse", "Sharing", "check_bandwidth", "latency_in_ns"]

Sharing = Literal["fair", "fifo"] | int
"""``"fair"``, ``"fifo"``, or how many transfers may be outstanding."""


@attrs.frozen
class LinkUse:
    """What a link has done so far.

    Attributes:
        bytes: Bytes carried, those of unfinished and of cancelled transfers included.
        transfers: Transfers that were finished.
        cancelled: Transfers that were cancelled before their last byte had left.
        busy_ns: Time during which there was anything to carry.
        queued_ns: The sum, over finished transfers, of the time they took beyond what they would have taken alone on
            their route: waiting in line, and sharing. Every link of a route counts it.
    """

    bytes: int
    transfers: int
    cancelled: int
    busy_ns: int
    queued_ns: int


class Link:
    """One direction of a wire.

    Transfers on it are a fluid: ``n`` at once have an equal share each, and what one does not use goes to the others.
    The last byte arrives ``latency_ns`` after it has left, and meanwhile the link carries other bytes.

    Args:
        bandwidth_gb_s: GB/s (10^9 bytes).
        latency_ns: Latency in ns. Give this or ``latency_us``.
        latency_us: Latency in microseconds.
        sharing: ``"fair"``: everything at once. ``"fifo"``: one transfer after another. A number ``k``: a buffer for
            ``k`` outstanding transfers, which share alike; the others wait in line. For a buffer that is emptied by
            whoever uses the data, see :class:`Channel`.
        name: What reports call it.

    Raises:
        InputError: A bandwidth that is not positive, a negative latency, or an unknown kind of sharing.
    """

    __slots__ = (
        *("_bandwidth_gb_s", "_path", "_traffic", "latency_ns", "limit", "name", "sharing"),
        *("busy_since", "crowd", "free", "line", "load", "mark", "paths", "rising", "room"),
        *("_busy_ns", "_bytes", "_cancelled", "_queued_ns", "_transfers"),
    )

    def __init__(
        self,
        bandwidth_gb_s: float,
        latency_ns: int | None = None,
        *,
        latency_us: float | None = None,
        sharing: Sharing = "fair",
        name: str = "link",
        _traffic: Traffic | None = None,
    ) -> None:
        self.name = name
        self.latency_ns = latency_in_ns(latency_ns, latency_us)
        self.sharing = sharing
        self.limit = _limit(sharing)
        self._bandwidth_gb_s = check_bandwidth(bandwidth_gb_s)
        self._traffic = _traffic or Traffic()
        self._path = Path((self,), self._traffic, name=name)
        self.paths: dict[Path, None] = {}  # the busy ones
        self.busy_since: float | None = None
        self.crowd: Crowd | None = None  # who computes their rates, when they are many
        self.load = 0  # transfers under way on them
        self.line: deque[Flow] = deque()  # those that wait, because of a limit of this link or of another on their way
        self.free = self.limit or 0  # how many more may be under way, where there is a limit
        self.room, self.rising, self.mark = 0.0, 0, 0  # scratch of fairness.py
        self._bytes, self._transfers, self._cancelled = 0, 0, 0
        self._busy_ns, self._queued_ns = 0.0, 0.0

    def __repr__(self) -> str:
        return f"Link {self.name!r}: {self._bandwidth_gb_s:g} GB/s, {self.latency_ns} ns"

    @property
    def bandwidth_gb_s(self) -> float:
        """Bandwidth in GB/s. Set it while transfers are under way to degrade the link; 0 is down: they wait."""
        return self._bandwidth_gb_s

    @bandwidth_gb_s.setter
    def bandwidth_gb_s(self, value: float) -> None:
        if value:
            check_bandwidth(value)
        self._traffic.settle()
        self._bandwidth_gb_s = float(value)
        for path in self.paths:
            self._traffic.touch(path)

    @property
    def rate_gb_s(self) -> float:
        """What it carries at this instant, in GB/s."""
        self._show()
        return sum(path.rate * path.count for path in self.paths)

    @property
    def in_flight(self) -> int:
        """The number of transfers that are under way on it, or wait in line for it."""
        self._traffic.settle()
        return self.load + len(self.line)

    async def send(self, nbytes: int) -> None:
        """Send ``nbytes``; return when the last of them has arrived. See :meth:`Path.send`."""
        await self._path.send(nbytes)

    async def transmit(self, nbytes: int) -> None:
        """Send ``nbytes``; return when the last of them has left. See :meth:`Path.transmit`."""
        await self._path.transmit(nbytes)

    def transfer_ns(self, nbytes: int) -> int:
        """Return how long ``nbytes`` take when nothing else is on the link: ``latency + nbytes / bandwidth``."""
        return self.latency_ns + math.ceil(nbytes / self._bandwidth_gb_s - 1e-3)

    def use(self) -> LinkUse:
        """Return what the link has done so far."""
        self._show()
        busy_ns, nbytes = self._busy_ns, self._bytes
        if self.busy_since is not None and self._traffic.is_running():
            now = now_ns()
            busy_ns += now - self.busy_since
            nbytes += round(sum(path.carried(now) for path in self.paths))
        return LinkUse(nbytes, self._transfers, self._cancelled, round(busy_ns), round(self._queued_ns))

    def _show(self) -> None:
        """Make what the paths say true at this instant."""
        self._traffic.settle()
        if self.crowd is not None:
            self.crowd.write_back()

    # What follows is for Traffic.

    def forget(self) -> None:
        """Be as new, but for what was counted."""
        self.paths.clear()
        self.line.clear()
        self.load, self.free, self.busy_since, self.crowd = 0, self.limit or 0, None, None

    def add_path(self, path: Path, at: float) -> None:
        """Note that ``path`` is busy from the time ``at``."""
        if not self.paths:
            self.busy_since = at
        self.paths[path] = None

    def drop_path(self, path: Path, at: float) -> None:
        """Note that ``path`` is not busy any more from the time ``at``."""
        del self.paths[path]
        if not self.paths and self.busy_since is not None:
            self._busy_ns += at - self.busy_since
            self.busy_since = None

    def note_done(self, flow: Flow, at: float) -> None:
        """Record a transfer whose last byte left at the time ``at``."""
        self._bytes += flow.nbytes
        self._transfers += 1
        self._queued_ns += max(0.0, at - flow.started_ns - flow.nbytes / flow.path.bandwidth_gb_s)

    def note_cancelled(self, carried: float) -> None:
        """Record a transfer that was cancelled when ``carried`` bytes had left."""
        self._bytes += round(carried)
        self._cancelled += 1


def check_bandwidth(gb_s: float, path: str | None = None) -> float:
    """Return a bandwidth as a float.

    Raises:
        InputError: It is not positive and finite.
    """
    if not 0 < gb_s < math.inf:
        raise InputError(f"the bandwidth {gb_s!r} GB/s cannot be used: a positive number is expected", path=path)
    return float(gb_s)


def latency_in_ns(latency_ns: int | None, latency_us: float | None = None) -> int:
    """Return the one of the two latencies that is given, in ns; 0 when none is.

    Raises:
        InputError: Both are given, or it is negative.
    """
    if latency_ns is not None and latency_us is not None:
        raise InputError("give latency_ns or latency_us, not both")
    value = latency_ns if latency_ns is not None else (latency_us or 0) * 1000
    if not 0 <= value < math.inf:
        raise InputError(f"the latency {value!r} ns cannot be used: 0 or more is expected")
    return round(value)


def _limit(sharing: Sharing) -> int | None:
    limits: dict[Sharing, int | None] = {"fair": None, "fifo": 1}
    if isinstance(sharing, str):
        if sharing not in limits:
            hint = did_you_mean(sharing, ["fair", "fifo"])
            raise InputError(f"sharing {sharing!r} is unknown: 'fair', 'fifo' or a number is expected{hint}")
        return limits[sharing]
    if isinstance(sharing, bool) or not isinstance(sharing, int) or sharing < 1:
        raise InputError(f"sharing {sharing!r} cannot be used: 'fair', 'fifo' or a number, 1 or more, is expected")
    return sharing
