"""What serving writes down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from simloop.serving.request import Request

__all__ = ["Recorder"]


class Recorder(Protocol):
    """What keeps the records of a run; :class:`simloop.metrics.Records` does."""

    def finish(self, request: Request) -> None:
        """Note that a request has ended, well or not."""

    def segment(self, request_id: int, worker_index: int, first_ns: int, start_step: int, end_step: int) -> None:
        """Note one stay of a request among the decoding ones of a worker."""

    def sample(
        self,
        worker_index: int,
        time_ns: int,
        running: int,
        waiting: int,
        kv_used_blocks: int,
        kv_total_blocks: int,
        generated_total: int,
        prompt_total: int,
        preemptions_total: int,
        busy_ns: int,
        iterations: int,
    ) -> None:
        """Note the state of a worker at one time."""

    def lockstep(
        self,
        engine: int,
        worker_index: int,
        wave: int,
        start_ns: int,
        end_ns: int,
        tokens: int,
        padding: int,
        dispatched_bytes: int,
        combined_bytes: int,
    ) -> None:
        """Note what one of several ranks that iterate together did in one iteration."""
