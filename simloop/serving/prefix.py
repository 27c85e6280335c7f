"""Prefix caching: KV blocks that outlive their request, found again by the hash of everything before them.

As in vLLM's V1 engine: a full block keeps its hash when it is freed and lies in one queue with all free blocks, least
recently freed first; whoever takes a free block takes the oldest, and what it held is forgotten. A request that comes
with the same hashes takes its blocks out of the queue again, or shares them with those who hold them.

A block is known from the iteration that fills it. Requests whose output has no hashes need no attention for this while
they decode; others are visited when a block of theirs is full, once in ``block_size`` iterations.
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from simloop.serving.kv import KVBlocks
    from simloop.serving.request import Request

__all__ = ["CachedBlock", "PrefixCache"]


@attrs.define(eq=False)
class CachedBlock:
    """A full KV block with a hash.

    Attributes:
        key: Hash of the block and everything before it.
        age: Iteration in which it was filled, and when the request that did was admitted: of equal blocks the oldest is
            found first.
        users: How many requests hold it.
    """

    key: Hashable
    age: tuple[int, int]
    users: int = 1


@attrs.define(eq=False)
class PrefixCache:
    """The hashed blocks of one worker, and the order in which free blocks are taken.

    Attributes:
        kv: The blocks in all.
        queries: Tokens that were looked up.
        hits: Tokens that were found.
        free: Free blocks in the order in which they will be taken: hashed ones by themselves, others as counted runs.
        tables: The full blocks of each request that has hashes, in order.
        shared: How often a request holds a block that another one holds too, not counting one of them.
    """

    kv: KVBlocks
    queries: int = 0
    hits: int = 0
    shared: int = 0
    free: OrderedDict[CachedBlock | int, int] = attrs.field(init=False)
    tables: dict[Request, list[CachedBlock]] = attrs.Factory(dict)
    _known: dict[Hashable, list[CachedBlock]] = attrs.Factory(dict)
    _runs: int = 0
    _forgotten: int = 0
    _last_found: _Found | None = None

    def __attrs_post_init__(self) -> None:
        self.free = OrderedDict({0: self.kv.free})

    def find(self, request: Request) -> list[CachedBlock]:
        """Return the blocks that a request need not compute: its longest known prefix, but for its last token."""
        last = self._last_found
        if last is not None and last.request is request and last.holds(self._known, self._forgotten):
            return last.blocks
        size, known = self.kv.block_size, self._known
        most = (request.prompt_tokens + request.generated - 1) // size
        found: list[CachedBlock] = []
        missing = None
        for key in request.block_keys(size)[:most]:
            blocks = known.get(key)
            if blocks is None:
                missing = key
                break
            found.append(blocks[0])
        self._last_found = _Found(request, found, missing, self._forgotten)
        return found

    def admit(self, request: Request) -> int:
        """Give a request the blocks that are known already; return how many."""
        found = list(self.find(request))
        self._last_found = None
        for block in found:
            if block.users == 0:
                del self.free[block]
                self.kv.free -= 1
            else:
                self.shared += 1
            block.users += 1
        self.tables[request] = found
        self.queries += request.prompt_tokens + request.generated
        self.hits += len(found) * self.kv.block_size
        return len(found)

    def fill(self, request: Request, tokens: int, iteration: int) -> None:
        """Make the blocks known that are full when a request has stored so many tokens, in an iteration."""
        size, table = self.kv.block_size, self.tables[request]
        for key in request.block_keys(size)[len(table) : tokens // size]:
            block = CachedBlock(key, (iteration, request._rank))
            insort(self._known.setdefault(key, []), block, key=_age)
            table.append(block)

    def release(self, request: Request, blocks: int) -> None:
        """Take back all ``blocks`` blocks of a request: its last one will be taken first."""
        table = self.tables.pop(request)
        self.kv.give_back(blocks - len(table))
        for block in reversed(table):
            block.users -= 1
            if block.users == 0:
                self.free[block] = 1
                self.kv.free += 1
            else:
                self.shared -= 1

    def take(self, blocks: int) -> None:
        """Take the oldest free blocks; what they held is forgotten."""
        free = self.free
        while blocks:
            oldest = next(iter(free))
            if isinstance(oldest, CachedBlock):
                del free[oldest]
                self._forget(oldest)
                blocks -= 1
            elif free[oldest] > blocks:
                free[oldest] -= blocks
                return
            else:
                blocks -= free.pop(oldest)

    def give_back(self, blocks: int) -> None:
        """Put blocks without a hash at the end of the queue."""
        newest = next(reversed(self.free), None)
        if isinstance(newest, int):
            self.free[newest] += blocks
        else:
            self._runs += 1
            self.free[self._runs] = blocks

    def _forget(self, block: CachedBlock) -> None:
        self._forgotten += 1
        alike = self._known[block.key]
        alike.remove(block)
        if not alike:
            del self._known[block.key]


def _age(block: CachedBlock) -> tuple[int, int]:
    return block.age


@attrs.frozen
class _Found:
    """What was found for the request at the head of the queue, which is looked at in every iteration that it waits."""

    request: Request
    blocks: list[CachedBlock]
    missing: Hashable | None
    forgotten: int

    def holds(self, known: dict[Hashable, list[CachedBlock]], forgotten: int) -> bool:
        """Return whether it is what a new search would find: nothing was forgotten, and what was missing still is."""
        return self.forgotten == forgotten and (self.missing is None or self.missing not in known)
