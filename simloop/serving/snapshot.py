"""What a worker says of itself when it is asked for its metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import attrs

from simloop.clock import now_ns
from simloop.errors import PolicyError

if TYPE_CHECKING:
    from simloop.serving.request import Request
    from simloop.serving.worker import Worker

__all__ = ["Seen", "SeenDecoding", "SeenRequest", "Snapshot"]


@attrs.frozen
class SeenRequest:
    """A request as it was when its worker was asked.

    Attributes:
        id: Its number.
        prompt_tokens: Tokens of its prompt.
        output_tokens: Tokens it asks for.
        to_prefill: Tokens that were still to be read.
        generated: Tokens it had got.
    """

    id: int
    prompt_tokens: int
    output_tokens: int
    to_prefill: int
    generated: int

    @classmethod
    def of(cls, request: Request) -> SeenRequest:
        """Return what a request is now."""
        return cls(request.id, request.prompt_tokens, request.output_tokens, request.to_prefill, request.generated)


@attrs.frozen
class Seen:
    """Requests of which at least the number is known.

    Attributes:
        size: How many.
        requests: They themselves, if they are known.
    """

    size: int
    requests: Sequence[SeenRequest] | None = None

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[SeenRequest]:
        if self.requests is None:
            raise PolicyError(
                "single requests are not among the metrics of a worker, only their number is; "
                "with policies.signals.requests they are"
            )
        return iter(self.requests)


@attrs.frozen
class SeenDecoding:
    """The decoding requests of a worker, in numbers; the mean context stands for the shortest and the longest."""

    size: int
    context: int

    def __len__(self) -> int:
        return self.size

    @property
    def shortest(self) -> int:
        """Stored tokens of one of them."""
        return self.context // self.size if self.size else 0

    @property
    def longest(self) -> int:
        """As :attr:`shortest`."""
        return self.shortest


class Snapshot(NamedTuple):
    """What a worker says of itself.

    Attributes:
        time_ns: When it was asked.
        known: How many of the requests that the router ever sent it had received.
        waiting: Requests in its queue, or swapped out.
        running: Requests admitted and not done.
        prefilling: Those of them whose prompt was not all read.
        decoding: Those of them that decoded.
        decode_context: Tokens that these had stored, together.
        kv_used: KV blocks that were held.
        prefix_queries: Tokens that were ever looked up in its prefix cache.
        prefix_hits: Tokens that were found.
        iterations: Iterations done.
        generated: Output tokens made.
        prefilled: Prompt tokens read.
        preemptions: Preemptions so far.
        busy_ns: Time spent in iterations.
        requests: Those that waited, that ran and that were being read, if it tells of them.
    """

    time_ns: int
    known: int = 0
    waiting: int = 0
    running: int = 0
    prefilling: int = 0
    decoding: int = 0
    decode_context: int = 0
    kv_used: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    iterations: int = 0
    generated: int = 0
    prefilled: int = 0
    preemptions: int = 0
    busy_ns: int = 0
    requests: tuple[Sequence[SeenRequest], Sequence[SeenRequest], Sequence[SeenRequest]] | None = None

    @classmethod
    def of(cls, worker: Worker, sent: int, *, requests: bool) -> Snapshot:
        """Return what a worker says now.

        Args:
            worker: The worker.
            sent: Requests that the router has sent it so far.
            requests: Whether it tells of the requests themselves.
        """
        cohorts, cache = worker.cohorts, worker.kv.cache
        return cls(
            now_ns(),
            sent - len(worker.arriving),
            len(worker.waiting) + len(worker.inbox) + len(worker.swapped),
            len(worker.running),
            len(worker.prefilling),
            sum(map(len, cohorts)),
            sum(cohort.context for cohort in cohorts),
            worker.kv.used,
            0 if cache is None else cache.queries,
            0 if cache is None else cache.hits,
            worker.iterations,
            worker.generated,
            worker.prefilled,
            worker.preemptions,
            worker.busy_ns,
            _requests(worker) if requests else None,
        )


def _requests(worker: Worker) -> tuple[Sequence[SeenRequest], Sequence[SeenRequest], Sequence[SeenRequest]]:
    waiting, running, prefilling = (*worker.waiting, *worker.inbox, *worker.swapped), worker.running, worker.prefilling
    return (
        tuple(map(SeenRequest.of, waiting)),
        tuple(map(SeenRequest.of, running)),
        tuple(map(SeenRequest.of, prefilling)),
    )
