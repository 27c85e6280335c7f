"""The engine: who has which rate until when.

Between two changes (a transfer comes, ends or is cancelled) all rates are constant, so only changes are events. Inside,
time is a real number: a transfer that ends at 10.4 ns frees its share at 10.4 ns, and its sender hears of it at 11. So
nothing is lost to rounding, however many transfers follow each other.
"""

from __future__ import annotations

import asyncio
import math
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from simloop.clock import now_ns
from simloop.network.fairness import components, fill
from simloop.network.flow import Flow
from simloop.network.lines import let_in, line_up, step_out

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simloop.network.crowd import Crowd
    from simloop.network.flow import Path
    from simloop.network.link import Link

__all__ = ["Group", "Traffic"]

MANY = 256
"""So many paths that share links make a :class:`Crowd`; a quarter of them, and it is none any more."""


class Group:
    """Paths whose rates were computed together.

    Attributes:
        paths: They share links, directly or over others.
        due: When the first transfer on them ends, in ns; ``inf`` while the links are down.
        serial: Which entry of the engine's heap is valid; 0 is none: the rates were computed anew since.
    """

    __slots__ = ("due", "paths", "serial")

    def __init__(self, paths: list[Path], at: float) -> None:
        self.paths = paths
        self.serial = 0
        soonest = math.inf
        for path in paths:  # every path was served up to `at`
            if path.group is not None:
                path.group.serial = 0
            path.group = self
            if path.rate > 0:
                left = (path.head - path.served) / path.rate
                if left < soonest:
                    soonest = left
        self.due = at + soonest


class Traffic:
    """Everything under way on links that may share transfers: those of one fabric, or a link that stands alone.

    There is one timer, set to the next end of a transfer. All that changes at one instant is taken together, by a
    timer at that instant, which runs when nothing else is ready.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._serial = 0
        self._changed: dict[Path, None] = {}
        self._busy: dict[Path, None] = {}
        self._lined: dict[Path, None] = {}  # where anything has had to wait
        self._groups: list[tuple[float, int, Group | Crowd]] = []

    def start(self, path: Path, nbytes: int) -> Flow:
        """Begin a transfer, or put it in line when the path has as many as it may."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._forget(loop)
        now = now_ns()
        self._finish_until(now)
        flow = Flow(path, nbytes, now)
        if path.limited:
            self._lined[path] = None
            self._touch_all(line_up(flow))
        else:
            path.arriving.append(flow)
            self.touch(path)
        return flow

    def cancel(self, flow: Flow) -> None:
        """Take a transfer out, unless it is done; what it had is free at this instant."""
        if not self.is_running():
            return  # its run is over, and so is the transfer
        now = now_ns()
        self._finish_until(now)
        if flow.is_set():
            return
        path = flow.path
        was_in_line = flow.level is None and flow not in path.arriving
        self._advance(path, now)
        carried = path.remove(flow)
        for link in path.links:
            link.note_cancelled(carried)
        if path.limited:
            self._touch_all(step_out(flow, was_in_line=was_in_line))
        if not path.arriving:
            self._note_busy(path, now)  # not later: this may be the end of the run
        self.touch(path)

    def touch(self, path: Path) -> None:
        """Compute the rates around ``path`` anew before the clock moves."""
        self._changed[path] = None
        self._arm(now_ns())

    def _touch_all(self, paths: Iterable[Path]) -> None:
        for path in paths:
            self.touch(path)

    def settle(self) -> None:
        """Bring everything up to the present, so that what is asked next is true at this instant."""
        if not self.is_running():
            return
        now = now_ns()
        self._finish_until(now)
        if self._changed:
            changed, self._changed = self._changed, {}
            self._rearrange(changed, now)
        while self._groups and self._groups[0][2].serial != self._groups[0][1]:
            heappop(self._groups)
        if self._groups and self._groups[0][0] < math.inf:
            due = self._groups[0][0]
            self._arm(max(math.ceil(due - _slack_ns(due)), now))

    def is_running(self) -> bool:
        """Return whether the loop of the transfers under way is the one that runs."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin a new run: what the last one left under way will never end."""
        for path in (*self._busy, *self._changed, *self._lined):
            path.forget()
            for link in path.links:
                link.forget()
        for table in (self._changed, self._busy, self._lined, self._groups):
            table.clear()
        self._loop, self._timer = loop, None

    def _arm(self, when_ns: int) -> None:
        if self._timer is not None:
            if self._timer_ns == when_ns:
                return
            self._timer.cancel()
        assert self._loop is not None
        self._timer_ns = when_ns
        self._timer = self._loop.call_later((when_ns - now_ns()) / 1e9, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.settle()

    def _finish_until(self, now: int) -> None:
        """End what is due, in order, each at its own time; what that changes may let more end before ``now``."""
        slack = _slack_ns(now)
        while self._groups and self._groups[0][0] <= now + slack:
            _, serial, group = heappop(self._groups)
            if group.serial == serial:
                self._finish(group, min(group.due, now), slack)

    def _finish(self, group: Group | Crowd, at: float, slack: float) -> None:
        changed = []
        if not isinstance(group, Group):
            for path, reach in group.due_paths(at, slack):
                group.pull(path, at)
                changed += self._end(path, path.pop_done(reach), at)
            self._rearrange(dict.fromkeys(changed), at)
            return
        for path in group.paths:
            path.served = served = path.served + path.rate * (at - path.since)  # path.advance, without the call
            path.since = at
            reach = served + path.rate * slack
            if path.head <= reach:
                changed += self._end(path, path.pop_done(reach), at)
        self._rearrange(dict.fromkeys(changed or self._end_first(group, at)), at)

    def _end_first(self, group: Group, at: float) -> list[Path]:
        """End what the group was due for where floats are too coarse to see that it is done."""
        served = (path for path in group.paths if path.rate > 0)
        first = min(served, key=lambda path: (path.head - path.served) / path.rate)
        return self._end(first, first.pop_done(first.head), at)

    def _end(self, path: Path, done: list[Flow], at: float) -> list[Path]:
        """Wake the senders of what is done, let in those who waited for it; return the paths where flows changed."""
        for flow in done:
            for link in path.links:
                link.note_done(flow, at)
            flow.set()
        if not path.limited:
            return [path]
        for link in path.limited:
            link.free += len(done)
        return [path, *let_in(path.limited)]

    def _admit(self, path: Path, flow: Flow) -> None:
        self._serial += 1
        path.admit(flow, self._serial)

    def _rearrange(self, changed: Iterable[Path], at: float) -> None:
        """Admit what came, and compute the rates of everything that shares a link with a changed path."""
        links: dict[Link, None] = {}
        crowds: dict[Crowd, None] = {}
        for path in changed:
            self._advance(path, at)
            arriving, path.arriving = path.arriving, []
            for flow in arriving:
                self._admit(path, flow)
            home = path.links[0].crowd
            inside = home is not None and home.holds(path)
            self._note_busy(path, at)
            if home is not None and inside:
                crowds[home] = None
                if path.count:
                    home.push(path, at)
            else:
                links.update(dict.fromkeys(path.links))
        bridged = {link.crowd: None for link in links if link.crowd is not None}  # by paths that come from elsewhere
        for crowd in {**bridged, **crowds}:
            if crowd in bridged or not self._level(crowd):
                self._dissolve(crowd, links, at)
        self._group(links, at)

    def _group(self, links: Iterable[Link], at: float) -> None:
        """Compute the rates of everything that shares a link with these, by filling."""
        self._serial += 1
        for found_links, paths in components(links, self._serial):
            for path in paths:
                if path.since != at:
                    path.advance(at)
            fill(found_links, paths)
            self._push(Group(paths, at) if len(paths) < MANY else self._crowd(found_links, paths, at))

    def _crowd(self, links: list[Link], paths: list[Path], at: float) -> Crowd:
        from simloop.network.crowd import Crowd  # numpy is slow to import, and seldom needed

        return Crowd(links, paths, at)

    def _level(self, crowd: Crowd) -> bool:
        """Let a crowd compute its rates; return False if it is one no more."""
        if crowd.busy < MANY // 4 or not crowd.level():
            return False
        self._push(crowd)
        return True

    def _dissolve(self, crowd: Crowd, links: dict[Link, None], at: float) -> None:
        """Let the paths of a crowd be on their own again, and their links be looked at."""
        crowd.advance(at)
        crowd.write_back()
        crowd.serial = 0
        for link in crowd.links:
            if link.crowd is crowd:
                link.crowd = None
                links[link] = None

    def _push(self, group: Group | Crowd) -> None:
        self._serial += 1
        group.serial = self._serial
        heappush(self._groups, (group.due, self._serial, group))

    def _advance(self, path: Path, at: float) -> None:
        """Serve a path up to the time ``at``."""
        if path.group is None or isinstance(path.group, Group):
            path.advance(at)
        else:
            path.group.pull(path, at)

    def _note_busy(self, path: Path, at: float) -> None:
        """Tell the links whether ``path`` is busy."""
        if path.count and path not in self._busy:
            self._busy[path] = None
            for link in path.links:
                link.add_path(path, at)
        elif not path.count and path in self._busy:
            del self._busy[path]
            for link in path.links:
                link.drop_path(path, at)
            if isinstance(path.group, Group):
                path.group.serial = 0
            elif path.group is not None:
                path.group.drop(path)
            path.forget()


def _slack_ns(at: float) -> float:
    """Return what counts as no time: a thousandth of a ns, or the precision of a float that holds ``at``."""
    return 1e-3 + at * 1e-15
