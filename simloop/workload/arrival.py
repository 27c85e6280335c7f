"""One request of a workload, before any cluster has seen it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import repeat
from typing import NamedTuple

__all__ = ["Arrival", "arrivals_from_columns"]


class Arrival(NamedTuple):
    """When a request arrives, and how long it is.

    Attributes:
        arrival_ns: Time since the workload began, ns.
        prompt_tokens: Length of the prompt, at least 1.
        output_tokens: Tokens to generate, at least 1.
        session: Name of the conversation it belongs to, if the trace tells.
        priority: Lower is more urgent, as in vLLM.
        hash_ids: One number for each block of the prompt, equal where the whole prefix up to it is equal, if the
            trace tells; the output's blocks may follow where they are known.
        hash_block_size: Tokens in one of these blocks (Mooncake: 512, the last one partly filled).
    """

    arrival_ns: int
    prompt_tokens: int
    output_tokens: int
    session: str | None = None
    priority: int = 0
    hash_ids: tuple[int, ...] | None = None
    hash_block_size: int = 16


def arrivals_from_columns(
    times_ns: Iterable[int], prompt_tokens: Iterable[int], output_tokens: Iterable[int]
) -> Iterator[Arrival]:
    """Return the arrivals of three columns, as many as the shortest has; not one line of Python runs per request."""
    rows = zip(times_ns, prompt_tokens, output_tokens, repeat(None), repeat(0), repeat(None), repeat(16), strict=False)
    return map(partial(tuple.__new__, Arrival), rows)
