"""Max-min fair rates by progressive filling.

All rates rise together from 0 until a link is full; the flows on it keep what they have, the others rise on. The
result is the one allocation in which no rate can be raised without lowering one that is not larger (Bertsekas and
Gallager, *Data Networks*, 2nd edition, section 6.5.2).
"""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from simloop.network.flow import Path
    from simloop.network.link import Link

__all__ = ["components", "fill"]

_NEARLY = 1 + 1e-12


def components(links: Iterable[Link], mark: int) -> Iterator[tuple[list[Link], list[Path]]]:
    """Yield the connected components that hold ``links``: busy paths, and the links that they cross.

    Two paths are connected when they share a link. A link without busy paths belongs to none.

    Args:
        links: Where to begin.
        mark: A number that was not used before; what was visited bears it.
    """
    for seed in links:
        if seed.mark == mark or not seed.paths:
            continue
        seed.mark = mark
        found_links, found_paths = [seed], []
        for link in found_links:  # grows while it is walked
            for path in link.paths:
                if path.mark != mark:
                    path.mark = mark
                    found_paths.append(path)
                    for other in path.links:
                        if other.mark != mark:
                            other.mark = mark
                            found_links.append(other)
        yield found_links, found_paths


def fill(links: list[Link], paths: list[Path]) -> None:
    """Set the rate of each path: the max-min fair share of one transfer on it, in bytes per ns.

    O(paths x length + links log links). What a link has left for each transfer on it never falls while others are
    fixed at lower rates, so an entry of the heap that is out of date is only ever too low, and is put right when it
    comes up.

    Args:
        links: All links that ``paths`` cross.
        paths: All busy paths on ``links``.
    """
    for path in paths:
        path.rate = -1.0
    for link in links:
        link.room, link.rising = link.bandwidth_gb_s, link.load
    heap = [(link.room / link.rising, index, link) for index, link in enumerate(links)]
    heapify(heap)
    while heap:
        share, index, link = heap[0]
        if link.rising == 0:
            heappop(heap)
        elif (left := link.room / link.rising) > share * _NEARLY:
            heapreplace(heap, (left, index, link))
        else:
            heappop(heap)
            _fix(link, max(share, 0.0))


def _fix(full: Link, rate: float) -> None:
    """Give ``rate`` to every path on a full link that has none yet, and take it from the links that they cross."""
    for path in full.paths:
        if path.rate < 0:
            path.rate, path.full = rate, full
            count = path.count
            taken = rate * count
            for link in path.links:
                link.room -= taken
                link.rising -= count
