"""Who has the least to do: an index that costs a logarithm, not a walk over all workers."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any, Generic, Protocol, TypeVar

from simloop.errors import PolicyError

__all__ = ["LoadIndex", "index_of_group"]


class _Loaded(Protocol):
    group: str
    loads: tuple[LoadIndex[Any], ...]

    @property
    def index(self) -> int: ...

    @property
    def load(self) -> int: ...


W = TypeVar("W", bound=_Loaded)


class LoadIndex(Generic[W]):
    """Workers by the number of requests they hold, the first of equals first.

    A heap of ``(load, index)``: a worker whose load changes gets a new entry; old ones are dropped when they surface.
    """

    def __init__(self, workers: Sequence[W]) -> None:
        self._workers = {worker.index: worker for worker in workers}
        self._heap: list[tuple[int, int]] = []
        self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(worker.load, worker.index) for worker in self._workers.values()]
        heapify(self._heap)

    def changed(self, worker: W) -> None:
        """Note that a worker holds more or fewer requests than before."""
        heappush(self._heap, (worker.load, worker.index))
        if len(self._heap) > 8 * len(self._workers) + 64:
            self._rebuild()

    def least(self) -> W:
        """Return the worker that holds the fewest requests; of equals, the first."""
        heap, workers = self._heap, self._workers
        while True:
            load, index = heap[0]
            if workers[index].load == load:
                return workers[index]
            heappop(heap)


def index_of_group(indices: dict[str | None, LoadIndex[W]], workers: Sequence[W], group: str | None) -> LoadIndex[W]:
    """Return the index of a group of workers, or of all of them; made when it is first asked for.

    Args:
        indices: The indices that there are.
        workers: All workers; the group's tell a new index of every change of their loads.
        group: Name of the group; None is all.

    Raises:
        PolicyError: There is no such group.
    """
    if group not in indices:
        members = [worker for worker in workers if group in (None, worker.group)]
        if not members:
            groups = list(dict.fromkeys(worker.group for worker in workers))
            raise PolicyError(f"no group of workers is called {group!r} (there are: {', '.join(groups)})")
        indices[group] = LoadIndex(members)
        for worker in members:
            worker.loads = (*worker.loads, indices[group])
    return indices[group]
