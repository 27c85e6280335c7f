"""Decodes in the kernel for prompts, tile by tile, in a closed form."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Tiles"]


class Tiles(NamedTuple):
    """What decodes of one attention operator cost if each of its query heads takes a tile of its own.

    A tile has ``tile_rows`` queries, all but one of them empty, and runs at the rate of prompts; fewer tiles than the
    device has units leave units idle. Tiles run one head after another over all requests, so many at once as there
    are units. Heads that share keys and values read them once if they run together, or if those of one head fit the
    last-level cache; the share that is read again grows to all of it at twice the cache.

    Attributes:
        pair_ns: Arithmetic of all heads' tiles on one token of context.
        ramp: Tokens of context that each request costs on top; see ``ramp_tokens`` of
            :class:`~simloop.hardware.calibration.AttentionFit`.
        read_ns: Reading one token of all key-value heads once.
        request_ns: Reading the query and writing the output of a request.
        heads: Query heads.
        group: Query heads to a key-value head.
        units: Tiles that the device runs at once.
        head_bytes: Keys and values of one token and one head.
        cache_bytes: The last-level cache; 0 if it has none.
        window: Tokens that a token can look back on, or ``None`` for all.
    """

    pair_ns: float
    ramp: float
    read_ns: float
    request_ns: float
    heads: int
    group: int
    units: int
    head_bytes: int
    cache_bytes: float
    window: int | None

    def parts(self, requests: int, context: int) -> tuple[float, float]:
        """Return arithmetic and memory traffic of ``requests`` decodes with ``context`` tokens in all, nanoseconds."""
        pair_ns, ramp, read_ns, request_ns, heads, group, units, head_bytes, cache, window = self
        if window is not None and context > requests * window:
            context = requests * window
        compute = pair_ns * (context + requests * ramp)
        tiles = requests * heads
        if tiles < units:
            compute *= units / tiles
        memory = context * read_ns + requests * request_ns
        size = context * head_bytes
        if size > cache and requests * group > units:  # heads of a group run apart, and nothing keeps what they read
            again = (group * requests / units if requests < units else group) - 1
            memory *= 1 + again * ((size - cache) / cache if size < 2 * cache else 1)
        return compute, memory

    def ns(self, requests: int, context: int) -> float:
        """Return the larger of the two."""
        compute, memory = self.parts(requests, context)
        return compute if compute > memory else memory
