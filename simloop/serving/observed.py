"""A cluster as somebody sees it who knows only what was last heard of each worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from simloop.clock import now_ns
from simloop.serving.batch import Batch
from simloop.serving.loads import LoadIndex, index_of_group
from simloop.serving.snapshot import Seen, SeenDecoding, SeenRequest, Snapshot

if TYPE_CHECKING:
    from simloop.serving.cluster import Cluster
    from simloop.serving.request import Request
    from simloop.serving.worker import Worker

__all__ = ["ObservedCluster", "ObservedKV", "ObservedWorker"]


class ObservedKV:
    """The KV memory of a worker, as it is seen; the attributes are those of :class:`~simloop.serving.KVBlocks`."""

    def __init__(self, worker: ObservedWorker) -> None:
        self._worker = worker
        self.total, self.block_size = worker._worker.kv.total, worker._worker.kv.block_size

    @property
    def used(self) -> int:
        """Blocks that were held."""
        return self._worker.seen.kv_used

    @property
    def free(self) -> int:
        """Blocks that nobody held."""
        return self.total - self.used

    @property
    def usage(self) -> float:
        """Share of the blocks that was held, 0 to 1."""
        return self.used / self.total

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks ``tokens`` tokens fill."""
        return -(-tokens // self.block_size)

    def found(self, request: Request) -> tuple[int, int]:
        """Return how many blocks of a request the prefix cache had, and how many of these nobody holds.

        A block that was filled since does not count yet; one that was forgotten since does not count any more.
        """
        cache = self._worker._worker.kv.cache
        if cache is None or not request.hash_ids or request.computed:
            return 0, 0
        iterations = self._worker.seen.iterations
        blocks = list(takewhile(lambda block: block.age[0] < iterations, cache.find(request)))
        return len(blocks), sum(block.users == 0 for block in blocks)


class ObservedWorker:
    """A worker, as it is seen; the attributes are those of :class:`~simloop.serving.Worker` that a router may know.

    Requests that are on their way to the engine (``Overheads.request_us``) are in none of its metrics.

    Attributes:
        loads: Whom to tell when it holds more or fewer requests than before.
        name: Its name.
        index: Its place in ``cluster.workers``.
        group: Name of its group in the scenario.
        device: What it runs on.
        model: What it serves.
        engine: The engine's arguments.
        timing: What prices an iteration.
        max_model_len: The longest request that it takes, tokens.
        kv: Its KV memory.
    """

    def __init__(self, worker: Worker, cluster: ObservedCluster, *, own_requests: bool) -> None:
        self._worker, self._cluster = worker, cluster
        self._own_requests = own_requests
        self._sent = 0
        self._own: deque[SeenRequest] = deque()
        self.name, self.index, self.group = worker.name, worker.index, worker.group
        self.device, self.model, self.engine, self.timing = worker.device, worker.model, worker.engine, worker.timing
        self.max_model_len = worker.max_model_len
        self.kv = ObservedKV(self)
        self.loads: tuple[LoadIndex[ObservedWorker], ...] = ()
        self._seen = Snapshot(now_ns(), requests=((), (), ()))

    @property
    def seen(self) -> Snapshot:
        """What was last heard of it."""
        self._cluster.hear()
        return self._seen

    @property
    def load(self) -> int:
        """Requests it holds, waiting and running."""
        seen = self.seen
        return seen.waiting + seen.running + len(self._own)

    @property
    def waiting(self) -> Seen:
        """Requests in its queue or swapped out, and those that the router has sent since if it counts its own."""
        seen = self.seen
        return Seen(seen.waiting + len(self._own), seen.requests and (*seen.requests[0], *self._own))

    @property
    def running(self) -> Seen:
        """Requests admitted and not done."""
        seen = self.seen
        return Seen(seen.running, seen.requests and seen.requests[1])

    @property
    def prefilling(self) -> Seen:
        """Those of them whose prompt was not all read."""
        seen = self.seen
        return Seen(seen.prefilling, seen.requests and seen.requests[2])

    @property
    def decoding(self) -> SeenDecoding:
        """Those of them that decoded."""
        seen = self.seen
        return SeenDecoding(seen.decoding, seen.decode_context)

    @property
    def inbox(self) -> Sequence[SeenRequest]:
        """Nothing: an engine counts them as waiting."""
        return ()

    @property
    def arriving(self) -> Sequence[SeenRequest]:
        """Nothing: the engine has not heard of them."""
        return ()

    def refusal(self, request: Request) -> str | None:
        """Return why the request can never be served here, or None if it can."""
        return self._worker.refusal(request)

    def batch(self) -> Batch:
        """Return an empty batch, to be priced."""
        return Batch(self, self.decoding)  # type: ignore[arg-type]  # to be priced, not run

    def snapshot(self, *, requests: bool) -> Snapshot:
        """Return what the worker says now."""
        return Snapshot.of(self._worker, self._sent, requests=requests)

    def show(self, snapshot: Snapshot) -> None:
        """See the worker like this from now on."""
        self._seen = snapshot
        while self._own and self._sent - len(self._own) < snapshot.known:
            self._own.popleft()
        self._load_changed()

    def take(self, request: Request) -> Worker:
        """Note that a request is sent to it; return the worker itself."""
        self._sent += 1
        if self._own_requests:
            self._own.append(SeenRequest.of(request))
            self._load_changed()
        return self._worker

    def _load_changed(self) -> None:
        for index in self.loads:
            index.changed(self)

    def __repr__(self) -> str:
        age_s = (now_ns() - self.seen.time_ns) / 1e9
        return f"<Worker {self.name}, as {age_s:.3f} s ago: {len(self.waiting)} waiting, {len(self.running)} running>"


class ObservedCluster:
    """A cluster, as it is seen; the attributes are those of :class:`~simloop.serving.Cluster` that a router may know.

    Attributes:
        workers: All workers, in the order of the scenario.
    """

    def __init__(self, cluster: Cluster, *, own_requests: bool) -> None:
        self._cluster = cluster
        self._loads: dict[str | None, LoadIndex[ObservedWorker]] = {}
        self._answers: deque[tuple[int, Sequence[Snapshot | None]]] = deque()
        self.workers = [ObservedWorker(worker, self, own_requests=own_requests) for worker in cluster.workers]

    @property
    def arrived(self) -> int:
        """Requests that have arrived so far."""
        return self._cluster.arrived

    @property
    def finished(self) -> int:
        """Requests that have ended so far, however they ended."""
        return self._cluster.finished

    @property
    def outstanding(self) -> int:
        """Requests that have arrived and not ended: they go through the router."""
        return self._cluster.outstanding

    def least_loaded(self, group: str | None = None) -> ObservedWorker:
        """Return the worker that seems to hold the fewest requests, the first of equals; costs O(log workers).

        Args:
            group: Look only at the workers of this group of the scenario.

        Raises:
            PolicyError: There is no such group.
        """
        index = index_of_group(self._loads, self.workers, group)
        self.hear()
        return index.least()

    async def send_kv(self, request: Request, target: ObservedWorker, **options: Any) -> None:
        """Send a request's keys and values to the worker that it will go on on; see :meth:`Cluster.send_kv`."""
        await self._cluster.send_kv(request, target._worker, **options)

    def expect(self, time_ns: int, answers: Sequence[Snapshot | None]) -> None:
        """Hear at a time what the workers have said, where that is not lost; times do not fall."""
        self._answers.append((time_ns, answers))

    def hear(self) -> None:
        """See what has been heard by now."""
        answers = self._answers
        if not answers or answers[0][0] > now_ns():
            return
        heard: dict[ObservedWorker, Snapshot] = {}
        while answers and answers[0][0] <= now_ns():
            told = zip(self.workers, answers.popleft()[1], strict=True)
            heard.update((worker, snapshot) for worker, snapshot in told if snapshot is not None)
        for worker, snapshot in heard.items():  # only now: whoever is told of the change may look, and hear
            worker.show(snapshot)
