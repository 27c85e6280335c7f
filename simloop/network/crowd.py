"""Many paths at once, in arrays: what one change costs when hundreds of routes share links with each other.

Progressive filling walks every path. Here each path remembers the link that holds it back, and the *levels* of full
links (the rate of what each holds back) solve one linear equation a link::

    level[l] * flows held back by l  +  sum over other flows on l of their level  =  bandwidth[l]

A change only concerns what is at least as fast as the transfer that came or went: below, filling goes as before. So the
equations of the faster links are solved with the paths where they were held back last; whoever finds a lower level on
its way is held back there instead, and they are solved again. When nobody moves and no link is overfull, every path
crosses a full link on which nobody is faster: the allocation that is max-min fair, which is unique.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from simloop.network.flow import Path
    from simloop.network.link import Link

__all__ = ["Crowd", "level_at"]

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.intp]

_NEARLY = 1 + 1e-12
_ROUNDS = 30
_BLOCK = 48


class Crowd:
    """Paths that share links, and their rates, kept from one change to the next.

    Between changes the arrays hold the truth, and the paths' own ``rate``, ``served`` and ``since`` are old;
    :meth:`pull` brings one up to date, :meth:`write_back` all of them.

    Attributes:
        due: When the first transfer ends, in ns.
        serial: Which entry of the engine's heap is valid.
        busy: Paths with transfers.
        links: The links they cross.
    """

    def __init__(self, links: list[Link], paths: list[Path], at: float) -> None:
        self.due = math.inf
        self.serial = 0
        self.busy = 0
        self.links = list(links)
        self._since = at
        self._slots: dict[Path, int] = {}
        self._numbers = {link: number for number, link in enumerate(links)}
        self._bandwidth = np.array([*(link.bandwidth_gb_s for link in links), math.inf])
        self._levels = np.zeros(len(links) + 1)  # the last ones; where they are wrong, it takes longer
        self._paths: list[Path] = []
        self._grow(max(len(path.links) for path in paths), len(paths))
        self._from = math.inf  # what is slower keeps its rate
        self._grown: set[int] = set()  # links with more transfers than before
        for link in links:
            link.crowd = self
        for path in paths:
            slot = self._slot(path)
            self._full[slot] = self._numbers[path.full] if path.full else 0
            self.push(path, at)
            self._rate[slot] = path.rate  # 0 where a link is down
        self._from, self._grown = math.inf, set()
        self._find_due()

    def holds(self, path: Path) -> bool:
        """Return whether a path is here, or may come in: it crosses no link that others use and this does not have."""
        return path.group is self or all(link.crowd is self or not link.paths for link in path.links)

    def advance(self, at: float) -> None:
        """Serve everybody up to the time ``at``."""
        if at == self._since:  # a path that has just come has no rate yet
            return
        self._served += self._rate * (at - self._since)
        self._since = at

    def pull(self, path: Path, at: float) -> None:
        """Bring the path itself up to the time ``at``."""
        self.advance(at)
        slot = self._slots[path]
        path.served, path.rate, path.since = float(self._served[slot]), float(self._rate[slot]), at

    def push(self, path: Path, at: float) -> None:
        """Take over what has changed on a path at ``at``: its transfers, or the bandwidth of a link that it crosses."""
        self.advance(at)
        slot = self._slot(path)
        before, count = self._count[slot], path.count
        if before == 0:
            self._rate[slot] = path.rate if path.rate > 0 else math.inf
            self.busy += 1
            if path.group is not None:
                path.group.serial = 0
            path.group = self
            for link in path.links:
                link.crowd = self
                self._bandwidth[self._numbers[link]] = link.bandwidth_gb_s
        elif count <= before:
            self._from = min(self._from, self._rate[slot] if count < before else 0.0)
        if count > before:
            self._grown.update(self._numbers[link] for link in path.links)
        self._count[slot], self._head[slot], self._served[slot] = count, path.head, path.served

    def drop(self, path: Path) -> None:
        """Let a path go that has no transfers any more."""
        slot = self._slots[path]
        self._from = min(self._from, self._rate[slot])
        self._rate[slot] = self._count[slot] = 0.0
        self._head[slot] = math.inf
        self.busy -= 1

    def due_paths(self, at: float, slack: float) -> list[tuple[Path, float]]:
        """Return whose first transfer ends at ``at``, and what each path has served by then (at least one)."""
        self.advance(at)
        reach = self._served + self._rate * slack
        done = np.flatnonzero(self._head <= reach)
        if len(done) == 0:  # floats are too coarse to see it
            first = int(self._left_ns().argmin())
            return [(self._paths[first], float(self._head[first]))]
        return [(self._paths[slot], float(reach[slot])) for slot in done]

    def level(self) -> bool:
        """Compute the rates anew from the slowest change upwards; return False if that did not come to an end."""
        if self._from == 0.0:
            self._bandwidth[:-1] = [link.bandwidth_gb_s for link in self.links]
        for number in self._grown:
            on_it = np.flatnonzero((self._links == number).any(axis=1) & (self._count > 0))
            least = level_at(self._rate[on_it], self._count[on_it], self._bandwidth[number])
            self._from = min(self._from, least)
        settled = self._solve()
        self._from = math.inf
        self._grown.clear()
        if settled:
            self._find_due()
        return settled

    def write_back(self) -> None:
        """Bring all paths up to date."""
        for path, slot in self._slots.items():
            if path.group is self:
                path.served, path.rate = float(self._served[slot]), float(self._rate[slot])
                path.since = self._since

    def _solve(self) -> bool:
        busy = self._count > 0
        active = np.flatnonzero(busy & (self._rate >= self._from / _NEARLY))
        if len(active) == 0:
            return True
        links, full, count = self._links[active], self._full[active], self._count[active]
        size = len(self._bandwidth)
        slow = np.flatnonzero(busy & (self._rate < self._from / _NEARLY))
        room = self._bandwidth - _sums(self._links[slow], self._count[slow] * self._rate[slow], size)
        levels = self._levels
        for _ in range(_ROUNDS):
            found = _levels(links, full, count, room, levels)
            if found is None:
                return False
            levels = found
            rates = levels[full]
            _limit_overfull(levels, links, count, rates, room)
            along = levels[links]
            lowest = along.argmin(axis=1)
            least = along[np.arange(len(active)), lowest]
            moves = np.flatnonzero(rates > least * _NEARLY)
            if len(moves) == 0:
                self._rate[active], self._full[active] = rates, full
                self._levels = np.where(levels < math.inf, levels, self._levels)  # slower ones keep theirs
                return True
            full[moves] = links[moves, lowest[moves]]
        return False

    def _left_ns(self) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            left = (self._head - self._served) / self._rate
        return np.where(self._rate > 0, left, math.inf)

    def _find_due(self) -> None:
        self.due = self._since + float(self._left_ns().min())

    def _slot(self, path: Path) -> int:
        """Return the place of a path; a new one comes at the end."""
        slot = self._slots.get(path)
        if slot is None:
            slot = self._slots[path] = len(self._paths)
            self._paths.append(path)
            if slot == len(self._rate) or len(path.links) > self._links.shape[1]:
                self._grow(max(len(path.links), self._links.shape[1]), 2 * len(self._paths))
            numbers = [self._number(link) for link in path.links]
            self._links[slot, : len(numbers)] = numbers
            self._full[slot] = min(numbers, key=lambda n: self._bandwidth[n] / (self.links[n].load or 1))
        return slot

    def _number(self, link: Link) -> int:
        number = self._numbers.get(link)
        if number is None:
            number = self._numbers[link] = len(self.links)
            self.links.append(link)
            link.crowd = self
            self._links[self._links == number] = number + 1  # the one behind the last stands for no link
            self._bandwidth = np.insert(self._bandwidth, number, link.bandwidth_gb_s)
            self._levels = np.insert(self._levels, number, 0.0)
        return number

    def _grow(self, width: int, slots: int) -> None:
        """Make room for so many paths over so many links each."""
        old = getattr(self, "_links", np.empty((0, 0), np.intp))
        self._links: Numbers = np.full((slots, width), len(self.links), np.intp)
        self._links[: old.shape[0], : old.shape[1]] = old
        more = slots - old.shape[0]
        for name, empty in (("_rate", 0.0), ("_served", 0.0), ("_count", 0.0), ("_head", math.inf)):
            values: Floats = getattr(self, name, np.empty(0))
            setattr(self, name, np.concatenate([values, np.full(more, empty)]))
        self._full: Numbers = np.concatenate([getattr(self, "_full", np.empty(0, np.intp)), np.zeros(more, np.intp)])

    _levels: Floats
    _rate: Floats
    _served: Floats
    _count: Floats
    _head: Floats


def level_at(rates: Floats, counts: Floats, room: float) -> float:
    """Return at which rate a link is full: ``x`` with ``sum(counts * min(rates, x)) == room``; ``inf`` if never."""
    order = np.argsort(rates)
    rates, counts = rates[order], counts[order]
    below = np.concatenate([[0.0], np.cumsum((counts * rates)[:-1])])
    rising = np.cumsum(counts[::-1])[::-1]
    levels = (room - below) / rising  # if those before have their rates, and all from here on are alike
    full = np.flatnonzero(levels <= rates)
    return float(levels[full[0]]) if len(full) else math.inf


def _limit_overfull(levels: Floats, links: Numbers, count: Floats, rates: Floats, room: Floats) -> None:
    """Give a level to each link that holds nobody back and should: more is on it than it has room for."""
    used = _sums(links, count * rates, len(room))
    for number in np.flatnonzero((used > room * (1 + 1e-9) + 1e-12) & np.isinf(levels)):
        on_it = np.flatnonzero((links == number).any(axis=1))
        levels[number] = level_at(rates[on_it], count[on_it], float(room[number]))


def _sums(links: Numbers, values: Floats, size: int) -> Floats:
    """Return the sum of the values of the paths on each link."""
    sums: Floats = np.bincount(links.ravel(), np.repeat(values, links.shape[1]), size)  # type: ignore[assignment]
    sums[-1] = 0.0
    return sums


def _levels(links: Numbers, full: Numbers, count: Floats, room: Floats, before: Floats) -> Floats | None:
    """Return the level of each link that holds somebody back, ``inf`` for the others; None if there is no solution.

    In the order of their levels the equations are triangular, or nearly so where levels are equal or not yet right.

    Args:
        links: Numbers of the links that each path crosses, ``[path, place on its way]``.
        full: Number of the link that holds it back.
        count: Its transfers.
        room: What those who are slower leave of each link.
        before: Levels in whose order the equations are nearly triangular.
    """
    holding = np.flatnonzero(np.bincount(full, minlength=len(room)))
    holding = holding[before[holding].argsort(kind="stable")]
    size, width = len(holding), links.shape[1]
    place = np.full(len(room), size)  # in the equations; behind the last for links that hold nobody back
    place[holding] = np.arange(size)
    cells = place[links] * size + place[full][:, None]
    matrix = np.bincount(cells.ravel(), np.repeat(count, width), (size + 1) * size).reshape(size + 1, size)[:size]
    solved = _solve_blocks(matrix.astype(np.float64, copy=False), room[holding])
    if solved is None or not (solved >= -1e-9 * room[holding]).all():
        return None
    levels = np.full(len(room), math.inf)
    levels[holding] = np.maximum(solved, 0.0)
    return levels


def _solve_blocks(matrix: Floats, wanted: Floats) -> Floats | None:
    """Return ``x`` with ``matrix @ x == wanted``, for a matrix with little above its diagonal; None if it is not found.

    Block by block, in blocks so small that no library starts threads for them; once where nothing stands above the
    blocks, else again until nothing changes.
    """
    solved = np.zeros(len(wanted))
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(wanted), _BLOCK)]
    once = not any(matrix[block, block.stop :].any() for block in blocks)
    for _ in range(_ROUNDS):
        previous = solved.copy()
        for block in blocks:
            inner = matrix[block, block]
            rest = wanted[block] - matrix[block] @ solved + inner @ solved[block]
            try:
                solved[block] = np.linalg.solve(inner, rest)
            except np.linalg.LinAlgError:
                return None
        if once or (np.abs(solved - previous) <= 1e-13 * np.abs(solved)).all():
            return solved
    return None
