"""The tail of decoding with unequal contexts: the longest request is still read when the device has nothing else to do.

FlashAttention 2 gives each request and KV head one thread block, two of which a multiprocessor holds. Few of them are
split along the context, and share the work evenly. From 0.8 of what the device holds on they are not, and the block of
the longest context goes on alone when the others are done. Requests that wait for a place stretch the others' part.

Source: FlashAttention 2, ``csrc/flash_attn/flash_api.cpp``, ``num_splits_heuristic`` (its rule).
"""

from __future__ import annotations

import attrs

from simloop.hardware.profile.attention import AttentionGrid

__all__ = ["Tail"]

_BLOCKS_PER_UNIT = 2
_SPLIT_BELOW = 0.8
_FROM, _TO = 1024, 2048


@attrs.frozen
class Tail:
    """What the longest of many decoding requests adds.

    Attributes:
        places: Requests whose blocks a device holds at once.
        ns_per_token: Time of one block for each token of its context.
    """

    places: float
    ns_per_token: float

    @classmethod
    def of(cls, grid: AttentionGrid, kv_heads: int, units: int) -> Tail:
        """Read the speed of one block off a table of attention.

        A decode beside a short prompt is never split, and alone on the device: the slope of its time is that speed.

        Args:
            grid: The table.
            kv_heads: KV heads of one rank.
            units: Multiprocessors of the device.
        """
        chunk = next((chunk for chunk in grid.chunks if chunk), 0)
        rise = grid.at(chunk, 0, 1, _TO) - grid.at(chunk, 0, 1, _FROM)
        return cls(_BLOCKS_PER_UNIT * units / kv_heads, max(0.0, rise / (_TO - _FROM)))

    def waves(self, decodes: int) -> float:
        """Return by how much the mean context is stretched, at least 1; 0 if the work is split evenly."""
        full = decodes / self.places
        return max(1.0, full) if full >= _SPLIT_BELOW else 0.0
