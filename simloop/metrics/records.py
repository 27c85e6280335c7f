"""What a run writes down while it runs: one row per request, stay or sample, never per token."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["EndedRequest", "Records"]

_REQUEST_FIELDS = (
    *("id", "arrival_ns", "scheduled_ns", "first_token_ns", "finish_ns"),
    *("prompt_tokens", "output_tokens", "generated"),
    *("worker", "preemptions", "status", "reason", "swaps"),
)
_SEGMENT_FIELDS = ("request_id", "first_ns", "worker", "start", "end")
_SAMPLE_FIELDS = (
    *("time_ns", "generated", "prompt", "preemptions", "busy_ns", "iterations"),
    *("worker", "running", "waiting", "kv_used", "kv_total"),
)
_LOCKSTEP_FIELDS = (
    *("start_ns", "end_ns", "dispatched_bytes", "combined_bytes"),
    *("engine", "worker", "wave", "tokens", "padding"),
)

# Packing a row takes a quarter of the time of extending an `array('q')` by a tuple, and less memory.
_pack_request = Struct("<8q5i4x").pack
_pack_segment = Struct("<2q3i4x").pack
_pack_sample = Struct("<6q5i4x").pack
_pack_lockstep = Struct("<4q5i4x").pack


class EndedRequest(Protocol):
    """What :meth:`Records.finish` reads of a request; -1 stands for "never happened"."""

    @property
    def id(self) -> int:
        """Unique in the run, counted up in the order of arrival."""

    @property
    def arrival_ns(self) -> int:
        """When it arrived."""

    @property
    def scheduled_ns(self) -> int:
        """When the first batch that contains it started, or -1."""

    @property
    def first_token_ns(self) -> int:
        """When its first output token came out, or -1."""

    @property
    def finish_ns(self) -> int:
        """When it left the system, whatever its status, or -1 if it has not."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of its prompt."""

    @property
    def output_tokens(self) -> int:
        """Output tokens it asks for."""

    @property
    def generated(self) -> int:
        """Output tokens it got."""

    @property
    def worker_index(self) -> int:
        """The worker that it was on last, or -1."""

    @property
    def preemptions(self) -> int:
        """How often it lost its KV blocks."""

    @property
    def swaps(self) -> int:
        """How often of these they were kept in host memory."""

    @property
    def status(self) -> int:
        """A :class:`~simloop.serving.Status`."""

    @property
    def reason(self) -> str | None:
        """Why it was rejected or failed; equal texts are counted together, so leave numbers out of them."""


class Records:
    """The tables that serving fills, in whatever order things happen.

    A request costs one :meth:`finish` and, per stay in a worker's decode cohort, one :meth:`segment`: 120 bytes for a
    request that was never preempted, however many tokens it generated.
    """

    __slots__ = ("_lockstep", "_reason_codes", "_requests", "_samples", "_segments")

    def __init__(self) -> None:
        self._requests = bytearray()
        self._segments = bytearray()
        self._samples = bytearray()
        self._lockstep = bytearray()
        self._reason_codes: dict[str | None, int] = {None: 0}

    def finish(self, request: EndedRequest) -> None:
        """Record a request that left the system, or is still there when the run ends."""
        reason = request.reason
        codes = self._reason_codes
        if reason not in codes:
            codes[reason] = len(codes)
        self._requests += _pack_request(
            request.id,
            request.arrival_ns,
            request.scheduled_ns,
            request.first_token_ns,
            request.finish_ns,
            request.prompt_tokens,
            request.output_tokens,
            request.generated,
            request.worker_index,
            request.preemptions,
            request.status,
            codes[reason],
            request.swaps,
        )

    def segment(self, request_id: int, worker_index: int, first_ns: int, start_step: int, end_step: int) -> None:
        """Record one stay of a request in the decode cohort of a worker.

        Args:
            request_id: The request; its stays are recorded in the order of time.
            worker_index: The worker whose decode steps are meant.
            first_ns: When the prefill that led here gave a token, or -1 if the request had only been paused.
            start_step: The first decode step that gave it a token, counted from 0 in that worker's step ends.
            end_step: One after the last such step; equal to ``start_step`` if there was none.
        """
        self._segments += _pack_segment(request_id, first_ns, worker_index, start_step, end_step)

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
        """Record the state of a worker at one instant; a worker's samples come in the order of time.

        Args:
            worker_index: The worker.
            time_ns: The instant.
            running: Requests in its running set.
            waiting: Requests in its queue.
            kv_used_blocks: KV blocks in use.
            kv_total_blocks: KV blocks that it has.
            generated_total: Output tokens since the start of the run.
            prompt_total: Prompt tokens prefilled since the start of the run.
            preemptions_total: Preemptions since the start of the run.
            busy_ns: Time spent in iterations since the start of the run.
            iterations: Iterations since the start of the run.
        """
        self._samples += _pack_sample(
            time_ns,
            generated_total,
            prompt_total,
            preemptions_total,
            busy_ns,
            iterations,
            worker_index,
            running,
            waiting,
            kv_used_blocks,
            kv_total_blocks,
        )

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
        """Record one iteration of one of several ranks that iterate together.

        Args:
            engine: The engine: the worker that is its first rank.
            worker_index: The rank.
            wave: Which stretch of iterations without a pause it belongs to, counted from 1.
            start_ns: When it started, on all ranks.
            end_ns: When it ended, on all ranks.
            tokens: New tokens that the rank had; without any it ran a dummy batch.
            padding: Tokens that it computed only because another rank had more.
            dispatched_bytes: What it got from the other ranks before the experts, over all layers.
            combined_bytes: The same after them.
        """
        self._lockstep += _pack_lockstep(
            start_ns, end_ns, dispatched_bytes, combined_bytes, engine, worker_index, wave, tokens, padding
        )

    def __len__(self) -> int:
        return len(self._requests) // 88

    @property
    def nbytes(self) -> int:
        """Bytes that the tables hold."""
        return len(self._requests) + len(self._segments) + len(self._samples) + len(self._lockstep)

    @property
    def reasons(self) -> list[str | None]:
        """The text of each reason code; code 0 is no reason."""
        return list(self._reason_codes)

    def requests(self) -> npt.NDArray[np.void]:
        """Return a copy of the table of requests, sorted by id; the fields are ids, nanoseconds, counts and codes."""
        table = _table(self._requests, _REQUEST_FIELDS, wide=8)
        return table[table["id"].argsort(kind="stable")]

    def segments(self) -> npt.NDArray[np.void]:
        """Return a copy of the table of stays, sorted by request and, within a request, by time."""
        table = _table(self._segments, _SEGMENT_FIELDS, wide=2)
        return table[table["request_id"].argsort(kind="stable")]

    def samples(self) -> npt.NDArray[np.void]:
        """Return a copy of the table of samples, in the order of recording."""
        return _table(self._samples, _SAMPLE_FIELDS, wide=6).copy()

    def iterations(self) -> npt.NDArray[np.void]:
        """Return a copy of the table of iterations of ranks in lockstep, in the order of recording."""
        return _table(self._lockstep, _LOCKSTEP_FIELDS, wide=4).copy()


def _table(rows: bytearray, fields: tuple[str, ...], *, wide: int) -> npt.NDArray[Any]:
    """View packed rows as a structured array; the first ``wide`` fields have 64 bits, the others 32."""
    import numpy as np

    sizes = [8] * wide + [4] * (len(fields) - wide)
    offsets = [sum(sizes[:position]) for position in range(len(fields))]
    row = np.dtype(
        {
            "names": list(fields),
            "formats": [f"<i{size}" for size in sizes],
            "offsets": offsets,
            "itemsize": -(-sum(sizes) // 8) * 8,
        }
    )
    return np.frombuffer(rows, row)
