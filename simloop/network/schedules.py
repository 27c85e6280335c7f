"""Collectives as steps of messages: who sends how many bytes to whom, and after what.

A step of a rank begins when its messages of the step before have arrived, those that it sent and those that it is
sent. Sources: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH" (2005);
for several dimensions BlueConnect (2019) and ASTRA-sim 2.0 (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

from simloop.errors import InputError, did_you_mean
from simloop.network.stream import split
from simloop.network.topologies import groups

__all__ = ["Algorithm", "Collective", "Message", "Step", "check_supported", "schedule"]

Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast"]
Algorithm = Literal["ring", "direct", "halving_doubling", "tree"]
Message = tuple[int, int, int]
"""Sender, receiver, bytes."""
Step = list[Message]


def schedule(
    kind: Collective,
    nbytes: int,
    ranks: int | Sequence[int],
    algorithm: Algorithm | Sequence[Algorithm] = "ring",
) -> list[Step]:
    """Return the steps of a collective; rank 0 is the root of a broadcast.

    Args:
        kind: Which collective.
        nbytes: The full buffer: the input of a reduce-scatter, the output of an all-gather, the buffer of each rank
            in an all-to-all.
        ranks: How many; or the sizes of the dimensions of a hierarchy, the innermost first.
        algorithm: One of ``ring``, ``direct``, ``halving_doubling`` (a power of two of ranks; for an all-to-all it is
            Bruck's), ``tree`` (binomial; all-reduce and broadcast); in a hierarchy, one for all dimensions or one for
            each.

    Raises:
        InputError: An unknown collective or algorithm, or one that does not do this for so many ranks.
    """
    sizes = [ranks] if isinstance(ranks, int) else list(ranks)
    algorithms = [algorithm] * len(sizes) if isinstance(algorithm, str) else list(algorithm)
    if not sizes or min(sizes) < 1 or len(algorithms) != len(sizes):
        raise InputError(f"{len(algorithms)} algorithms do not fit dimensions of {sizes}")
    for size, name in zip(sizes, algorithms, strict=True):
        check_supported(kind, name, size)
    if len(sizes) == 1:
        return _flat(kind, nbytes, sizes[0], algorithms[0])
    return _hierarchical(kind, nbytes, sizes, algorithms)


def check_supported(kind: str, algorithm: str, ranks: int) -> None:
    """Check that an algorithm does a collective for so many ranks.

    Raises:
        InputError: It does not.
    """
    if kind not in get_args(Collective):
        options = get_args(Collective)
        raise InputError(f"collective {kind!r} is unknown: {', '.join(options)}{did_you_mean(kind, options)}")
    if algorithm not in get_args(Algorithm):
        options = get_args(Algorithm)
        raise InputError(f"algorithm {algorithm!r} is unknown: {', '.join(options)}{did_you_mean(algorithm, options)}")
    if algorithm == "tree" and kind not in ("all_reduce", "broadcast"):
        raise InputError(f"algorithm 'tree' does not do {kind}: only all_reduce and broadcast")
    if algorithm == "halving_doubling" and ranks & (ranks - 1):
        raise InputError(f"algorithm 'halving_doubling' needs a power of two of ranks, not {ranks}")


def _flat(kind: Collective, nbytes: int, n: int, algorithm: Algorithm) -> list[Step]:
    if kind == "all_to_all":
        return _ALL_TO_ALL[algorithm](split(nbytes, n))
    if kind == "broadcast":
        return _BROADCAST[algorithm](split(nbytes, n))
    if algorithm == "tree":
        steps = _broadcast_tree(split(nbytes, n))
        return _reversed(steps) + steps
    scatter = _REDUCE_SCATTER[algorithm](split(nbytes, n))
    if kind == "reduce_scatter":
        return scatter
    return _reversed(scatter) if kind == "all_gather" else scatter + _reversed(scatter)


def _hierarchical(kind: Collective, nbytes: int, sizes: list[int], algorithms: list[Algorithm]) -> list[Step]:
    """Reduce-scatter inside out, all-gather outside in; all-to-all in each dimension; broadcast outside in."""
    if kind == "all_gather":
        return _reversed(_hierarchical("reduce_scatter", nbytes, sizes, algorithms))
    if kind == "all_reduce":
        half = _hierarchical("reduce_scatter", nbytes, sizes, algorithms)
        return half + _reversed(half)
    steps: list[Step] = []
    for depth, (size, algorithm) in enumerate(zip(sizes, algorithms, strict=True)):
        inner = math.prod(sizes[:depth])
        part = -(-nbytes // inner) if kind == "reduce_scatter" else nbytes
        teams = [team for team in groups(sizes, depth) if kind != "broadcast" or team[0] % inner == 0]
        flat = _flat(kind, part, size, algorithm)
        phase = [[(t[src], t[dst], b) for t in teams for src, dst, b in step] for step in flat]
        steps = phase + steps if kind == "broadcast" else steps + phase
    return steps


def _reversed(steps: list[Step]) -> list[Step]:
    """Run a schedule backwards: a reduce-scatter becomes an all-gather, a broadcast a reduction."""
    return [[(dst, src, nbytes) for src, dst, nbytes in step] for step in reversed(steps)]


def _scatter_ring(chunks: list[int]) -> list[Step]:
    n = len(chunks)
    return [[(r, (r + 1) % n, chunks[(r - s) % n]) for r in range(n)] for s in range(n - 1)]


def _scatter_direct(chunks: list[int]) -> list[Step]:
    n = len(chunks)
    return [[(r, (r + k) % n, chunks[(r + k) % n]) for r in range(n) for k in range(1, n)]] if n > 1 else []


def _scatter_halving(chunks: list[int]) -> list[Step]:
    """Exchange half with the neighbour, a quarter with the one at distance 2, ...: the most bytes go the least far."""
    steps, distance = [], 1
    while distance < len(chunks):
        peers = [(r, r ^ distance) for r in range(len(chunks))]
        steps.append([(r, peer, sum(chunks[peer % (2 * distance) :: 2 * distance])) for r, peer in peers])
        distance *= 2
    return steps


def _all_to_all_pairwise(chunks: list[int]) -> list[Step]:
    n = len(chunks)
    return [[(r, (r + k) % n, chunks[(r + k) % n]) for r in range(n)] for k in range(1, n)]


def _all_to_all_bruck(chunks: list[int]) -> list[Step]:
    """In step i each rank hands on the half of its blocks whose distance has bit i set, whoever's they are by then."""
    n = len(chunks)
    half = sum(chunks) // 2
    return [[(r, (r + (1 << i)) % n, half) for r in range(n)] for i in range(n.bit_length() - 1)]


def _broadcast_chain(chunks: list[int]) -> list[Step]:
    n = len(chunks)
    return [
        [(r, r + 1, chunks[s - r]) for r in range(n - 1) if 0 <= s - r < n] for s in range(2 * n - 2)
    ]  # fmt: skip


def _broadcast_direct(chunks: list[int]) -> list[Step]:
    return [[(0, r, sum(chunks)) for r in range(1, len(chunks))]] if len(chunks) > 1 else []


def _broadcast_tree(chunks: list[int]) -> list[Step]:
    n, steps, have = len(chunks), [], 1
    while have < n:
        steps.append([(r, r + have, sum(chunks)) for r in range(min(have, n - have))])
        have *= 2
    return steps


def _broadcast_scatter(chunks: list[int]) -> list[Step]:
    """Scatter by halving, then all-gather by doubling (van de Geijn)."""
    n, steps, width = len(chunks), [], len(chunks) // 2
    while width:
        starts = range(0, n, 2 * width)
        steps.append([(r, r + width, sum(chunks[r + width : r + 2 * width])) for r in starts])
        width //= 2
    return steps + _reversed(_scatter_halving(chunks))


_Build = Callable[[list[int]], list[Step]]
_REDUCE_SCATTER: dict[str, _Build] = {
    "ring": _scatter_ring,
    "direct": _scatter_direct,
    "halving_doubling": _scatter_halving,
}
_ALL_TO_ALL: dict[str, _Build] = {
    "ring": _all_to_all_pairwise,
    "direct": _scatter_direct,
    "halving_doubling": _all_to_all_bruck,
}
_BROADCAST: dict[str, _Build] = {
    "ring": _broadcast_chain,
    "direct": _broadcast_direct,
    "halving_doubling": _broadcast_scatter,
    "tree": _broadcast_tree,
}
