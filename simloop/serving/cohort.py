"""Requests that decode together, kept as one thing: all of a worker's, or of one of its micro-batches.

Decoding requests advance together, one token each, so an iteration changes three numbers: the step, and through it
everybody's context and output. What a request looks like now follows from the step at which it joined.
Joining, leaving and finishing cost O(1); an iteration in which nobody does costs the same whatever the size.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import attrs

from simloop.serving.request import Request

if TYPE_CHECKING:
    from simloop.serving.batch import Batch

__all__ = ["Cohort"]


@attrs.define(eq=False)
class Cohort:
    """Requests that get one token each in the same iterations.

    Attributes:
        block_size: Tokens in a KV block.
        row: Number that the records know its steps by.
        step_ends: End of each of its decode iterations, ns.
        step: Decode iterations so far.
        size: How many requests decode.
        scheduled: The batch that gives everybody a token, from when it takes the blocks for it until it is done.
    """

    block_size: int
    row: int = 0
    step_ends: array[int] = attrs.Factory(lambda: array("q"))
    step: int = 0
    size: int = 0
    scheduled: Batch | None = None
    _context_base: int = 0
    _crossing: list[int] = attrs.field(init=False)
    _finishing: dict[int, dict[Request, None]] = attrs.Factory(dict)
    _hashed: dict[int, dict[Request, None]] = attrs.Factory(dict)
    _extremes: tuple[_Lowest, _Lowest] | None = None
    _low: int | None = None  # offsets of the extremes, while those who have them stay
    _high: int | None = None

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

    @property
    def filling(self) -> Iterable[Request]:
        """Members with block hashes whose last block is full after the next iteration."""
        return self._hashed.get((-self.step - 1) % self.block_size, ())

    @property
    def shortest(self) -> int:
        """Stored tokens of the member that has the fewest; kept up once asked for."""
        if self._low is None:
            self._low = self._rankings()[0].offset()
        return self._low + self.step

    @property
    def longest(self) -> int:
        """Stored tokens of the member that has the most; kept up once asked for."""
        if self._high is None:
            self._high = -self._rankings()[1].offset()
        return self._high + self.step

    def _rankings(self) -> tuple[_Lowest, _Lowest]:
        if self._extremes is None:
            self._extremes = _Lowest(self, 1), _Lowest(self, -1)
            for request in (request for bucket in self._finishing.values() for request in bucket):
                self._rank(request)
        return self._extremes

    def _rank(self, request: Request) -> None:
        for ranking in self._extremes or ():
            ranking.add(request)

    def join(self, request: Request) -> None:
        """Take in a request that has just got a token and wants ``output_tokens - generated`` more."""
        offset = request._computed - self.step
        self.size += 1
        self._context_base += offset
        if not request._reserved:
            self._crossing[offset % self.block_size] += 1
        if request._keys is not None and len(request._keys) > request._computed // self.block_size:
            self._hashed.setdefault(offset % self.block_size, {})[request] = None
        request._joined = self.step
        last_step = self.step + request.output_tokens - request._generated
        bucket = self._finishing.get(last_step)
        if bucket is None:
            self._finishing[last_step] = {request: None}
        else:
            bucket[request] = None
        request._cohort = self
        if self._extremes is not None:
            self._rank(request)
            if self._low is not None and offset < self._low:
                self._low = offset
            if self._high is not None and offset > self._high:
                self._high = offset

    def leave(self, request: Request) -> None:
        """Let a request go before its end (preempted, paused, moved), with what it has reached."""
        last_step = request._joined + request.output_tokens - request._generated
        bucket = self._finishing[last_step]
        del bucket[request]
        if not bucket:
            del self._finishing[last_step]
        self._release(request)

    def advance(self, end_ns: int) -> Collection[Request]:
        """Give every member one token; return those that have all of theirs, in the order in which they joined."""
        self.step_ends.append(end_ns)
        self.step += 1
        self.scheduled = None
        finished = self._finishing.pop(self.step, None)
        if finished is None:
            return ()
        for request in finished:
            self._release(request)
        return finished

    def _release(self, request: Request) -> None:
        blocks, done = request.blocks, self.step - request._joined
        offset = request._computed - request._joined
        if offset == self._low:
            self._low = None
        if offset == self._high:
            self._high = None
        self.size -= 1
        self._context_base -= offset
        if not request._reserved:
            self._crossing[offset % self.block_size] -= 1
        if request._keys is not None and self._hashed:
            self._hashed.get(offset % self.block_size, {}).pop(request, None)
        request._cohort = None
        request._computed += done
        request._generated += done
        request._blocks = blocks


@attrs.define(eq=False)
class _Lowest:
    """The member with the lowest offset (context at joining less the step then), or the highest with a sign of -1.

    A heap whose dead entries are dropped when they surface.
    """

    cohort: Cohort
    sign: int
    _heap: list[tuple[int, int, Request]] = attrs.Factory(list)
    _serial: int = 0

    def add(self, request: Request) -> None:
        self._serial += 1
        if len(self._heap) > 2 * self.cohort.size + 64:
            self._heap = [entry for entry in self._heap if self._alive(entry)]
            heapify(self._heap)
        heappush(self._heap, (self.sign * (request._computed - request._joined), self._serial, request))

    def offset(self) -> int:
        heap = self._heap
        while not self._alive(heap[0]):
            heappop(heap)
        return heap[0][0]

    def _alive(self, entry: tuple[int, int, Request]) -> bool:
        offset, _, request = entry
        return request._cohort is self.cohort and self.sign * (request._computed - request._joined) == offset
