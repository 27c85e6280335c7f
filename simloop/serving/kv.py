"""KV memory in blocks, as PagedAttention keeps it (Kwon et al., SOSP 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from simloop.errors import PolicyError
from simloop.serving.prefix import PrefixCache

if TYPE_CHECKING:
    from simloop.serving.request import Request

__all__ = ["KVBlocks"]


@attrs.define
class KVBlocks:
    """The KV blocks of one worker: a number of equal blocks, of which some are free.

    Attributes:
        total: Blocks in all.
        block_size: Tokens in one block.
        free: Blocks nobody holds.
        cache: The prefix cache, once there is a request with block hashes; what is not used costs nothing.
        prefix_caching: Whether blocks may outlive their request.
    """

    total: int
    block_size: int
    prefix_caching: bool = True
    free: int = attrs.field(init=False)
    cache: PrefixCache | None = None

    def __attrs_post_init__(self) -> None:
        self.free = self.total

    @property
    def used(self) -> int:
        """Blocks that are held."""
        return self.total - self.free

    @property
    def usage(self) -> float:
        """Share of the blocks that is held, 0 to 1."""
        return self.used / self.total

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks ``tokens`` tokens fill."""
        return -(-tokens // self.block_size)

    def take(self, blocks: int) -> None:
        """Take free blocks.

        Raises:
            PolicyError: Fewer are free; a policy must look at :attr:`free` before it schedules.
        """
        if blocks > self.free:
            raise PolicyError(f"{blocks} KV blocks were scheduled where {self.free} of {self.total} are free")
        self.free -= blocks
        if self.cache is not None:
            self.cache.take(blocks)

    def give_back(self, blocks: int) -> None:
        """Return blocks to the free ones."""
        self.free += blocks
        if self.cache is not None and blocks:
            self.cache.give_back(blocks)

    def found(self, request: Request) -> tuple[int, int]:
        """Return how many blocks of a waiting request are in the prefix cache, and how many of these nobody holds."""
        if self.cache is None or not request.hash_ids or request.computed:
            return 0, 0
        blocks = self.cache.find(request)
        return len(blocks), sum(block.users == 0 for block in blocks)

    def admit(self, request: Request) -> int:
        """Give an admitted request the blocks of its prefix that are known; return how many these are."""
        if not request.hash_ids or not self.prefix_caching or request.computed:
            return 0
        if self.cache is None:
            self.cache = PrefixCache(self)
        return self.cache.admit(request)

    def fill(self, request: Request, tokens: int, iteration: int) -> None:
        """Make the blocks known that are full when a request has stored so many tokens, in an iteration."""
        if self.cache is not None and request in self.cache.tables:
            self.cache.fill(request, tokens, iteration)

    def release(self, request: Request, blocks: int) -> None:
        """Take back all ``blocks`` blocks of a request."""
        if self.cache is not None and request in self.cache.tables:
            self.cache.release(request, blocks)
        else:
            self.give_back(blocks)
