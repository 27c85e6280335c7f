"""All requests that decode on one worker, kept as one thing.

Decoding requests advance together, one token each, so an iteration changes three numbers: the step, and through it
everybody's context and output. What a request looks like now follows from the step at which it joined.
Joining, leaving and finishing cost O(1); an iteration in which nobody does costs the same whatever the size.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from simloop.serving.request import Request

__all__ = ["Cohort"]


@attrs.define(eq=False)
class Cohort:
    """The decoding requests of a worker.

    Attributes:
        block_size: Tokens in a KV block.
        step: Decode iterations so far.
        size: How many requests decode.
    """

    block_size: int
    step: int = 0
    size: int = 0
    _context_base: int = 0
    _crossing: list[int] = attrs.field(init=False)
    _finishing: dict[int, dict[Request, None]] = attrs.Factory(dict)

    def __attrs_post_init__(self) -> None:
        # _crossing[r] counts the members with (context - step) % block_size == r: a block is full at r == -step.
        self._crossing = [0] * self.block_size

    def __len__(self) -> int:
        return self.size

    @property
    def context(self) -> int:
        """Tokens stored for all members together."""
        return self._context_base + self.size * self.step

    @property
    def blocks_needed(self) -> int:
        """New KV blocks that the next iteration takes: one for each member whose last block is full."""
        return self._crossing[-self.step % self.block_size]

    def join(self, request: Request) -> None:
        """Take in a request that has just got a token and wants ``output_tokens - generated`` more."""
        offset = request._computed - self.step
        self.size += 1
        self._context_base += offset
        if not request._reserved:
            self._crossing[offset % self.block_size] += 1
        request._joined = self.step
        last_step = self.step + request.output_tokens - request._generated
        bucket = self._finishing.get(last_step)
        if bucket is None:
            self._finishing[last_step] = {request: None}
        else:
            bucket[request] = None
        request._cohort = self

    def leave(self, request: Request) -> None:
        """Let a request go before its end (preempted, paused, moved), with what it has reached."""
        last_step = request._joined + request.output_tokens - request._generated
        bucket = self._finishing[last_step]
        del bucket[request]
        if not bucket:
            del self._finishing[last_step]
        self._release(request)

    def advance(self) -> Iterable[Request]:
        """Give every member one token; return those that have all of theirs, in the order in which they joined."""
        self.step += 1
        finished = self._finishing.pop(self.step, None)
        if finished is None:
            return ()
        for request in finished:
            self._release(request)
        return finished

    def _release(self, request: Request) -> None:
        blocks, done = request.blocks, self.step - request._joined
        offset = request._computed - request._joined
        self.size -= 1
        self._context_base -= offset
        if not request._reserved:
            self._crossing[offset % self.block_size] -= 1
        request._cohort = None
        request._computed += done
        request._generated += done
        request._blocks = blocks
