"""What a timing model is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs

from simloop.model import Operator, Stage

__all__ = ["IterationShape", "OperatorTime", "OperatorTiming", "Shape", "TimingModel"]


class IterationShape(Protocol):
    """The work of one iteration, as far as its duration depends on it.

    Attributes:
        num_tokens: New tokens of this iteration, prompts' and decodes' together.
        num_sequences: Sequences that get logits, and so a token.
        chunks: One pair for each prompt chunk: its new tokens, and its tokens that already are in the KV cache.
        num_decodes: Requests that decode; each has one new token.
        decode_context: Tokens that these attend to, summed over them, each one's new token included.
        decode_context_min: Tokens that the shortest of these attends to (0 without decodes).
        decode_context_max: Tokens that the longest of these attends to (0 without decodes).
        shared_context: Tokens that running requests have in common: those that any of them attends to, summed over
            the requests, but for one of each that attend to the same.
    """

    @property
    def num_tokens(self) -> int: ...  # noqa: D102
    @property
    def num_sequences(self) -> int: ...  # noqa: D102
    @property
    def chunks(self) -> Sequence[tuple[int, int]]: ...  # noqa: D102
    @property
    def num_decodes(self) -> int: ...  # noqa: D102
    @property
    def decode_context(self) -> int: ...  # noqa: D102
    @property
    def decode_context_min(self) -> int: ...  # noqa: D102
    @property
    def decode_context_max(self) -> int: ...  # noqa: D102
    @property
    def shared_context(self) -> int: ...  # noqa: D102


@attrs.frozen
class Shape:
    """An :class:`IterationShape` by itself: for questions to a timing model outside of a simulation."""

    num_tokens: int
    num_sequences: int
    chunks: Sequence[tuple[int, int]]
    num_decodes: int
    decode_context: int
    decode_context_min: int = 0
    decode_context_max: int = 0
    shared_context: int = 0

    @classmethod
    def decode(cls, batch: int, context: int) -> Shape:
        """Return ``batch`` requests that decode, each attending to ``context`` tokens."""
        return cls(batch, batch, (), batch, batch * context, context, context)

    @classmethod
    def prefill(cls, *prompts: int) -> Shape:
        """Return prompts of these lengths, each whole, in one iteration."""
        return cls(sum(prompts), len(prompts), tuple((tokens, 0) for tokens in prompts), 0, 0)

    @classmethod
    def mixed(cls, chunks: Sequence[tuple[int, int]], contexts: Sequence[int] = ()) -> Shape:
        """Return prompt chunks, ``(new, cached)`` each, beside decodes that attend to so many tokens each."""
        tokens, sequences = sum(new for new, _ in chunks) + len(contexts), len(chunks) + len(contexts)
        shortest, longest = min(contexts, default=0), max(contexts, default=0)
        return cls(tokens, sequences, tuple(chunks), len(contexts), sum(contexts), shortest, longest)


@attrs.frozen
class OperatorTime:
    """One line of an explanation.

    Attributes:
        operator: Name of the operator.
        calls: How often it runs in the iteration.
        ns: Time of all calls together, nanoseconds.
        bound: What limits it: ``compute``, ``memory``, ``network``, or ``overhead`` (of the kernel or its launch).
    """

    operator: str
    calls: int
    ns: float
    bound: str


class TimingModel(Protocol):
    """Says how long an iteration takes."""

    def iteration_ns(self, shape: IterationShape) -> int:
        """Return the duration of one iteration, nanoseconds."""
        ...


@runtime_checkable
class OperatorTiming(TimingModel, Protocol):
    """A timing model that can also say how an iteration is made up: breakpoints at operators need one.

    What :meth:`iteration_ns` has beyond the sum of the operators is the host's, and passes before the first of them.

    Attributes:
        stage: The operators, in order of execution.
    """

    @property
    def stage(self) -> Stage: ...  # noqa: D102

    def operator_ns(self, operator: Operator, shape: IterationShape) -> float:
        """Return the time of one call of an operator of :attr:`stage`, nanoseconds; 0 if it costs nothing here."""
        ...
