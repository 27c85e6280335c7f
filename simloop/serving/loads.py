"""Who has the least to do: an index that costs a logarithm, not a walk over all workers."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Generic, Protocol, TypeVar

__all__ = ["LoadIndex"]


class _Loaded(Protocol):
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
