"""KV memory in blocks, as PagedAttention keeps it (Kwon et al., SOSP 2023)."""

from __future__ import annotations

import attrs

from simloop.errors import PolicyError

__all__ = ["KVBlocks"]


@attrs.define
class KVBlocks:
    """The KV blocks of one worker: a number of equal blocks, of which some are free.

    Attributes:
        total: Blocks in all.
        block_size: Tokens in one block.
        free: Blocks nobody holds.
    """

    total: int
    block_size: int
    free: int = attrs.field(init=False)

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

    def give_back(self, blocks: int) -> None:
        """Return blocks to the free ones."""
        self.free += blocks
