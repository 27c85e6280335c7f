"""Collectives: what they cost when nothing else is on the network, and as transfers on a fabric."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

from simloop.clock import Event
from simloop.errors import InputError
from simloop.network.fabric import Fabric
from simloop.network.flow import Path
from simloop.network.schedules import Algorithm, Collective, Step, check_supported, schedule
from simloop.network.topologies import Dimension, Topology

__all__ = ["alpha_beta_ns", "collective", "collective_ns"]


async def collective(
    fabric: Fabric,
    kind: Collective,
    nbytes: int,
    *,
    nodes: Sequence[str] | None = None,
    ranks: Sequence[int] | None = None,
    algorithm: Algorithm | Sequence[Algorithm] = "ring",
) -> None:
    """Run a collective on a fabric, among whatever else is under way there; return when every rank is done.

    Args:
        fabric: The network.
        kind: ``all_reduce``, ``all_gather``, ``reduce_scatter``, ``all_to_all`` or ``broadcast``.
        nbytes: The full buffer; see :func:`~simloop.network.schedules.schedule`.
        nodes: The ranks, in order, the root of a broadcast first; all endpoints when it is not given.
        ranks: The sizes of the dimensions of a hierarchical collective, the innermost first.
        algorithm: ``ring``, ``direct``, ``halving_doubling`` or ``tree``, for all dimensions or for each.

    Raises:
        InputError: The algorithm does not do this, or ``ranks`` are not as many as ``nodes``.
    """
    names = list(fabric.endpoints if nodes is None else nodes)
    sizes = [len(names)] if ranks is None else list(ranks)
    if math.prod(sizes) != len(names):
        raise InputError(f"dimensions of {sizes} do not fit {len(names)} nodes")
    algorithms = [algorithm] * len(sizes) if isinstance(algorithm, str) else algorithm
    await _play(fabric, names, schedule(kind, nbytes, sizes, algorithms))


def alpha_beta_ns(
    kind: Collective,
    nbytes: int,
    ranks: int,
    *,
    bandwidth_gb_s: float,
    alpha_ns: float,
    algorithm: Algorithm = "ring",
    topology: Topology = "Switch",
) -> int:
    """Return what a collective takes by itself: ``steps x alpha + volume x nbytes / bandwidth``, in ns, rounded up.

    ``volume`` is what the busiest link carries, in units of ``nbytes``. For ``n`` ranks:

    ================  ================================  ====================  ==========================
    algorithm         reduce-scatter, all-gather        all-to-all            broadcast
    ================  ================================  ====================  ==========================
    ring              n-1, (n-1)/n                      n-1, (n-1)/n          2n-2, (2n-2)/n
    direct            1, (n-1)/n (own links: 1/n)       as reduce-scatter     1, n-1 (own links: 1)
    halving_doubling  log2 n, (n-1)/n                   log2 n, (log2 n)/2    2 log2 n, 2(n-1)/n
    tree                                                                      log2 n, log2 n (rounded up)
    ================  ================================  ====================  ==========================

    An all-reduce is a reduce-scatter and an all-gather, or with a tree a reduction and a broadcast: twice as much.

    Args:
        kind: Which collective.
        nbytes: The full buffer.
        ranks: How many.
        bandwidth_gb_s: GB/s (10^9 bytes) of a link, in each direction. A rank has one, or on ``FullyConnected`` one
            to each other rank.
        alpha_ns: What a message takes besides its bytes.
        algorithm: Which algorithm.
        topology: ``Switch`` (any rank to any other at once), ``FullyConnected``, or ``Ring``.

    Raises:
        InputError: The algorithm does not do this, or a ring has no closed form for it (run it on a fabric).
    """
    check_supported(kind, algorithm, ranks)
    if ranks == 1:
        return 0
    steps, volume = _coefficients(kind, algorithm, ranks, topology)
    return math.ceil(steps * alpha_ns + volume * nbytes / bandwidth_gb_s - 1e-3)


def collective_ns(
    kind: Collective,
    nbytes: int,
    dimensions: Sequence[Dimension],
    algorithm: Algorithm | Sequence[Algorithm] = "ring",
) -> int:
    """Return what a hierarchical collective takes by itself on a multi-dimensional network, in ns.

    A reduce-scatter runs in the innermost dimension with all bytes, in the next with what is left to each rank, and so
    on outwards; an all-gather runs the other way; an all-to-all and a broadcast move all bytes in each dimension.

    Args:
        kind: Which collective.
        nbytes: The full buffer.
        dimensions: From the innermost to the outermost.
        algorithm: One for all dimensions, or one for each.

    Raises:
        InputError: An algorithm does not do this.
    """
    algorithms = [algorithm] * len(dimensions) if isinstance(algorithm, str) else algorithm
    total, left = 0, nbytes
    for dimension, name in zip(dimensions, algorithms, strict=True):
        total += alpha_beta_ns(
            kind,
            left,
            dimension.size,
            bandwidth_gb_s=dimension.bandwidth_gb_s,
            alpha_ns=dimension.latency_ns * (2 if dimension.topology == "Switch" else 1),
            algorithm=name,
            topology=dimension.topology,
        )
        if kind not in ("all_to_all", "broadcast"):
            left = -(-left // dimension.size)
    return total


def _coefficients(kind: Collective, algorithm: Algorithm, n: int, topology: Topology) -> tuple[float, float]:
    """Return the number of steps, and the bytes on the busiest link in units of the buffer."""
    if topology == "Ring" and algorithm == "direct" and kind != "broadcast":
        hops = n // 2  # both ways round; with an even n the farthest all go the same way
        steps, volume = float(hops), hops * (hops + 1) / 2 / n
    elif topology == "Ring" and (algorithm != "ring" or kind == "all_to_all") and n > 2:
        raise InputError(f"{kind} by {algorithm!r} has no closed form on a ring of {n}: run it on a fabric")
    elif kind == "broadcast" or algorithm == "tree":
        steps, volume = _broadcast_coefficients(algorithm, n, topology)
    elif algorithm == "halving_doubling":
        steps = math.log2(n)
        volume = steps / 2 if kind == "all_to_all" else (n - 1) / n
    elif algorithm == "direct":
        steps, volume = 1.0, 1 / n if topology == "FullyConnected" else (n - 1) / n
    else:
        steps, volume = n - 1.0, (n - 1) / n
    return (2 * steps, 2 * volume) if kind == "all_reduce" else (steps, volume)


def _broadcast_coefficients(algorithm: Algorithm, n: int, topology: Topology) -> tuple[float, float]:
    if algorithm == "tree":
        depth = float((n - 1).bit_length())
        return depth, depth
    if algorithm == "direct":
        return 1.0, 1.0 if topology == "FullyConnected" else n - 1.0
    if algorithm == "halving_doubling":
        return 2 * math.log2(n), 2 * (n - 1) / n
    return 2.0 * n - 2, (2 * n - 2) / n


class _Inbox(Event):
    """Set when the messages that a rank is sent in one step have all arrived."""

    __slots__ = ("expected",)

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.expected = 0

    def arrived(self) -> None:
        self.expected -= 1
        if self.expected == 0:
            self.set()


async def _play(fabric: Fabric, names: list[str], steps: list[Step]) -> None:
    """Let each rank walk through the steps that it takes part in."""
    inboxes: dict[tuple[int, int], _Inbox] = {}
    parts: list[dict[int, list[tuple[Path, int, _Inbox]]]] = [{} for _ in names]

    async def send(path: Path, nbytes: int, inbox: _Inbox) -> None:
        await path.send(nbytes)
        inbox.arrived()

    async def take_part(rank: int) -> None:
        for index, messages in parts[rank].items():
            await _all_of(send(*message) for message in messages)
            if (index, rank) in inboxes:
                await inboxes[index, rank].wait()

    for index, step in enumerate(steps):
        for src, dst, nbytes in step:
            inbox = inboxes.setdefault((index, dst), _Inbox(f"{names[dst]}, step {index}"))
            inbox.expected += 1
            parts[src].setdefault(index, []).append((fabric.path(names[src], names[dst]), nbytes, inbox))
            parts[dst].setdefault(index, [])
    await _all_of(take_part(rank) for rank in range(len(names)))


async def _all_of(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines together; when one fails, or the caller is cancelled, the others are cancelled."""
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)
