"""What a worker does in one iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import attrs

from simloop.errors import PolicyError
from simloop.serving.request import Phase, Request

if TYPE_CHECKING:
    from simloop.serving.cohort import Cohort
    from simloop.serving.worker import Worker

__all__ = ["Batch"]


@attrs.define(eq=False)
class Batch:
    """The work of one iteration; a scheduling policy fills one and returns it.

    The numbers below are what the timing model sees. Padding changes them and not what the requests get.

    Attributes:
        worker: Whose iteration it is.
        cohort: The requests that decode in it, if any do.
        prefills: ``(request, tokens)`` for each prompt chunk.
        chunks: ``(new tokens, tokens already stored)`` for each prompt chunk of more than one token.
        num_tokens: New tokens of all requests.
        num_sequences: Sequences that get logits.
        num_decodes: Requests with one new token.
        decode_context: Tokens they attend to, together, with the new ones.
        decodes: Whether the decoding requests take part.
        spent: Whether it has been run, or runs.
    """

    worker: Worker
    cohort: Cohort
    prefills: list[tuple[Request, int]] = attrs.Factory(list)
    chunks: list[tuple[int, int]] = attrs.Factory(list)
    num_tokens: int = 0
    num_sequences: int = 0
    num_decodes: int = 0
    decode_context: int = 0
    decodes: bool = False
    spent: bool = False
    _padded_to: int | None = None
    _single_contexts: list[int] | None = None

    @property
    def decode_context_min(self) -> int:
        """Tokens that the decoding request with the shortest context attends to, with its new one."""
        if self._padded_to is None and self._single_contexts is None:
            return self.cohort.shortest + 1 if self.decodes else 0
        return min(self._few_contexts())

    @property
    def decode_context_max(self) -> int:
        """Tokens that the decoding request with the longest context attends to, with its new one."""
        if self._padded_to is None and self._single_contexts is None:
            return self.cohort.longest + 1 if self.decodes else 0
        return max(self._few_contexts())

    def _few_contexts(self) -> list[int]:
        """Return contexts among which the shortest and the longest are."""
        if self._padded_to is not None:
            return [self._padded_to]
        cohort = self.cohort
        both = [cohort.shortest + 1, cohort.longest + 1] if self.decodes else []
        return [*both, *(self._single_contexts or ())]

    @property
    def shared_context(self) -> int:
        """Tokens among these that another running request attends to as well, not counting one of them.

        With pipeline stages a micro-batch gets its share of what all have in common.
        """
        cache, cohorts = self.worker.kv.cache, self.worker.cohorts
        if cache is None or self._padded_to is not None:
            return 0
        shared = cache.shared * self.worker.kv.block_size
        return shared if len(cohorts) == 1 else shared * len(self.cohort) // max(1, sum(map(len, cohorts)))

    def add_decodes(self) -> None:
        """Give everybody in ``worker.decoding`` one token, and the KV blocks this takes.

        Raises:
            PolicyError: Too few blocks are free; preempt somebody first.
        """
        cohort = self.cohort
        size = cohort.size
        if size == 0 or self.decodes:
            return
        needed = cohort._crossing[-cohort.step % cohort.block_size]
        if needed:
            self.worker.kv.take(needed)
        if cohort.scheduled is not None:
            raise PolicyError(f"the decodes of {self.worker.name} were added to a batch that was not returned")
        self.decodes = True
        cohort.scheduled = self
        if cohort._hashed:
            for request in cohort.filling:
                self.worker.kv.fill(request, request.computed + 1, self.worker.turn)
        self.num_decodes += size
        self.decode_context += cohort._context_base + size * cohort.step + size
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
        if request._batch is not None and not request._batch.spent:
            raise PolicyError(f"{request!r} was scheduled for prefill twice")
        request._batch = self
        cached = request._computed
        missing = self.worker.kv.blocks_for(cached + tokens) - request._blocks
        if missing > 0:
            self.worker.kv.take(missing)
            request._blocks += missing
        if self.worker.kv.cache is not None:
            self.worker.kv.fill(request, cached + tokens, self.worker.turn)
        self.prefills.append((request, tokens))
        if tokens > 1:
            self.chunks.append((tokens, cached))
        else:  # to the kernels, one new token is a decode, whatever it is to the scheduler
            self.num_decodes += 1
            self.decode_context += cached + 1
            self._single_contexts = [*(self._single_contexts or ()), cached + 1]
        self.num_tokens += tokens
        self.num_sequences += 1

    @property
    def completing(self) -> list[Request]:
        """Requests whose prompt will be read after this iteration, and that will have tokens left to generate."""
        return [
            request
            for request, tokens in self.prefills
            if tokens == request.to_prefill and request.generated + 1 < request.output_tokens
        ]

    def pad_prefills(self, length: int) -> None:
        """Make every prompt of this iteration cost as much as one of ``length`` tokens."""
        self.num_tokens = length * len(self.prefills)
        self.chunks, self._single_contexts = [(length, 0)] * len(self.prefills), None
        self.num_decodes = self.decode_context = 0

    def pad_decodes(self, sequences: int, context: int) -> None:
        """Make the decoding cost as much as ``sequences`` sequences of ``context`` tokens each."""
        self.num_tokens += sequences - self.num_decodes
        self.num_sequences += sequences - self.num_decodes
        self.num_decodes = sequences
        self.decode_context = sequences * context
        self._padded_to = context

    def store(self) -> None:
        """Count its prompts' tokens as stored already: the next micro-batch, which follows it, may go on from there."""
        for request, tokens in self.prefills:
            request._computed += tokens

    def refuse(self, worker: Worker) -> NoReturn:
        """Say why a worker cannot run this batch: it is another worker's, or it has run already.

        Raises:
            PolicyError: Always.
        """
        whose = f"a batch of {self.worker.name}" if self.worker is not worker else "a batch that has run already"
        raise PolicyError(f"{whose} was returned for {worker.name}")

    def __bool__(self) -> bool:
        return self.num_tokens > 0
