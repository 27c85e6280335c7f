"""What a worker does in one iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from simloop.errors import PolicyError
from simloop.serving.request import Phase, Request

if TYPE_CHECKING:
    from simloop.serving.worker import Worker

__all__ = ["Batch"]


@attrs.define(eq=False)
class Batch:
    """The work of one iteration; a scheduling policy fills one and returns it.

    The numbers below are what the timing model sees. Padding changes them and not what the requests get.

    Attributes:
        worker: Whose iteration it is.
        prefills: ``(request, tokens)`` for each prompt chunk.
        chunks: ``(new tokens, tokens already stored)`` for each prompt chunk.
        num_tokens: New tokens of all requests.
        num_sequences: Sequences that get logits.
        num_decodes: Requests that decode.
        decode_context: Tokens they attend to, together, with the new ones.
    """

    worker: Worker
    prefills: list[tuple[Request, int]] = attrs.Factory(list)
    chunks: list[tuple[int, int]] = attrs.Factory(list)
    num_tokens: int = 0
    num_sequences: int = 0
    num_decodes: int = 0
    decode_context: int = 0
    decodes: bool = False
    _padded_to: int | None = None

    @property
    def decode_context_min(self) -> int:
        """Tokens that the decoding request with the shortest context attends to, with its new one."""
        return self.worker.decoding.extremes[0] + 1 if self._padded_to is None else self._padded_to

    @property
    def decode_context_max(self) -> int:
        """Tokens that the decoding request with the longest context attends to, with its new one."""
        return self.worker.decoding.extremes[1] + 1 if self._padded_to is None else self._padded_to

    def add_decodes(self) -> None:
        """Give everybody in ``worker.decoding`` one token, and the KV blocks this takes.

        Raises:
            PolicyError: Too few blocks are free; preempt somebody first.
        """
        cohort = self.worker.decoding
        size = cohort.size
        if size == 0 or self.decodes:
            return
        needed = cohort._crossing[-cohort.step % cohort.block_size]
        if needed:
            self.worker.kv.take(needed)
        self.decodes = True
        if cohort._hashed:
            for request in cohort.filling:
                self.worker.kv.fill(request, request.computed + 1, self.worker.iterations)
        self.num_decodes = size
        self.decode_context = cohort._context_base + size * cohort.step + size
        self.num_tokens += size
        self.num_sequences += size

    def add_prefill(self, request: Request, tokens: int) -> None:
        """Read the next ``tokens`` tokens of an admitted request's prompt, and take the KV blocks for them.

        Raises:
            PolicyError: The request is not being prefilled here, has fewer tokens left, or blocks lack.
        """
        if request.phase is not Phase.PREFILLING or request.worker is not self.worker:
            raise PolicyError(f"{request!r} was scheduled for prefill on {self.worker.name}, which has not admitted it")
        if not 0 < tokens <= request.to_prefill:
            raise PolicyError(
                f"{tokens} tokens of {request!r} were scheduled; it has {request.to_prefill} left to prefill"
            )
        cached = request._computed
        missing = self.worker.kv.blocks_for(cached + tokens) - request._blocks
        if missing > 0:
            self.worker.kv.take(missing)
            request._blocks += missing
        self.worker.kv.fill(request, cached + tokens, self.worker.iterations)
        self.prefills.append((request, tokens))
        self.chunks.append((tokens, cached))
        self.num_tokens += tokens
        self.num_sequences += 1

    def pad_prefills(self, length: int) -> None:
        """Make every prompt of this iteration cost as much as one of ``length`` tokens."""
        self.num_tokens += sum(length - new for new, _ in self.chunks)
        self.chunks = [(length, 0)] * len(self.chunks)

    def pad_decodes(self, sequences: int, context: int) -> None:
        """Make the decoding cost as much as ``sequences`` sequences of ``context`` tokens each."""
        self.num_tokens += sequences - self.num_decodes
        self.num_sequences += sequences - self.num_decodes
        self.num_decodes = sequences
        self.decode_context = sequences * context
        self._padded_to = context

    def __bool__(self) -> bool:
        return self.num_tokens > 0
