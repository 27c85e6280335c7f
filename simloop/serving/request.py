"""One request on its way through the cluster."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Any

import attrs

from simloop.errors import InputError

if TYPE_CHECKING:
    from simloop.serving.batch import Batch
    from simloop.serving.cohort import Cohort
    from simloop.serving.kv_transfer import Departure
    from simloop.serving.worker import Worker

__all__ = ["Phase", "Request", "Status", "urgency"]


class Phase(Enum):
    """Where a request is in its life."""

    ROUTING = "routing"
    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    PAUSED = "paused"
    SWAPPED = "swapped"
    DONE = "done"


class Status(IntEnum):
    """How a request ended; the codes stand in the records."""

    FINISHED = 0
    REJECTED = 1
    FAILED = 2
    UNFINISHED = 3


@attrs.define(eq=False, repr=False)
class Request:
    """A prompt to read and a number of tokens to generate.

    What changes with every token (:attr:`generated`, :attr:`computed`, :attr:`blocks`) is derived from the
    cohort while the request decodes, so an iteration does not touch it.

    Attributes:
        id: Number in order of arrival, from 0.
        arrival_ns: When it reached the cluster.
        prompt_tokens: Length of the prompt.
        output_tokens: Tokens to generate; the engine stops exactly there.
        session: Name of the conversation it belongs to, if any.
        priority: Lower is more urgent, as in vLLM.
        hash_ids: Block hashes of the prompt, and of the output where known, if the trace gives them.
        hash_block_size: Tokens that one of them stands for.
        phase: Where it is now.
        worker: The worker it was last given to; where its KV blocks are.
        kv_at: The worker that its keys and values are sent to, once they are on their way.
        scheduled_ns: When a worker first admitted it; -1 before.
        first_token_ns: When its first token was there; -1 before.
        finish_ns: When it ended; -1 before.
        preemptions: How often it lost its KV blocks.
        swaps: How often of these they were kept in host memory.
        reason: Why it was rejected or failed.
    """

    id: int
    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    session: Any = None
    priority: int = 0
    hash_ids: Any = None
    hash_block_size: int = 16
    phase: Phase = Phase.ROUTING
    status: int = Status.UNFINISHED
    worker: Worker | None = None
    kv_at: Worker | None = None
    scheduled_ns: int = -1
    first_token_ns: int = -1
    finish_ns: int = -1
    preemptions: int = 0
    swaps: int = 0
    reason: str | None = None
    listeners: list[Any] | None = None
    _cohort: Cohort | None = None
    _generated: int = 0
    _computed: int = 0
    _blocks: int = 0
    _reserved: bool = False
    _preempted: bool = False
    _joined: int = 0
    _segment_ns: int = -1
    _batch: Batch | None = None
    _rank: int = 0
    _departure: Departure | None = None
    _keys: tuple[Hashable, ...] | None = None
    _keys_of: int = 0

    @property
    def generated(self) -> int:
        """Output tokens so far."""
        cohort = self._cohort
        return self._generated if cohort is None else self._generated + cohort.step - self._joined

    @property
    def computed(self) -> int:
        """Tokens whose keys and values are stored; in pipeline stages a prompt's from when their micro-batch starts."""
        cohort = self._cohort
        return self._computed if cohort is None else self._computed + cohort.step - self._joined

    def block_keys(self, block_size: int) -> tuple[Hashable, ...]:
        """Return one key for each full block of the prompt, and of the output as far as its hashes are known.

        Raises:
            InputError: Blocks of the engine do not divide the blocks that the hashes stand for.
        """
        if self._keys is None or self._keys_of != block_size:
            self._keys_of = block_size
            self._keys = _block_keys(self.hash_ids or (), self.hash_block_size, block_size, self.total_tokens)
        return self._keys

    @property
    def in_flight(self) -> bool:
        """Whether a batch has it: between two iterations only with pipeline stages, which work on several at once."""
        cohort = self._cohort
        return self._batch is not None if cohort is None else cohort.scheduled is not None

    @property
    def to_prefill(self) -> int:
        """Tokens still to be read before the next one comes out: the prompt, and after a preemption the output too."""
        return 0 if self._cohort is not None else self.prompt_tokens + self._generated - self._computed

    @property
    def total_tokens(self) -> int:
        """Prompt and output together: the length at its end."""
        return self.prompt_tokens + self.output_tokens

    @property
    def blocks(self) -> int:
        """KV blocks it holds, of the worker's or, while it is swapped out, of the host's memory."""
        cohort = self._cohort
        if cohort is None or self._reserved:
            return self._blocks
        return -(-self.computed // cohort.block_size)

    def forget_computed(self) -> None:
        """Lose what is stored: it will be computed again."""
        self._computed = 0

    @property
    def worker_index(self) -> int:
        """Index of its worker in the cluster, -1 if it never had one."""
        return -1 if self.worker is None else self.worker.index

    def __repr__(self) -> str:
        out = f"{self.generated} of {self.output_tokens} out"
        return f"<Request {self.id}: {self.prompt_tokens} in, {out}, {self.phase.value}>"


def urgency(request: Request) -> tuple[int, int, int]:
    """Order requests from the most to the least urgent: by priority, then first come, first served."""
    return request.priority, request.arrival_ns, request.id


def _block_keys(hashes: Sequence[Hashable], per_hash: int, block_size: int, tokens: int) -> tuple[Hashable, ...]:
    if per_hash == block_size:
        return tuple(hashes[: tokens // block_size])
    if per_hash % block_size:
        raise InputError(
            f"block hashes stand for {per_hash} tokens each, which blocks of {block_size} tokens do not divide"
        )
    parts = range(per_hash // block_size)
    return tuple((key, part) for key in hashes for part in parts)[: tokens // block_size]
