"""What the ranks of an engine exchange: sums between tensor-parallel ones, tokens where ranks share experts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Protocol

import attrs
import msgspec
from msgspec import Meta

from simloop.errors import InputError
from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.reading import Columns, header_of, read_table, time_number, whole

__all__ = ["AllReduce", "MeasuredAllReduce", "RingLink", "read_all_reduce"]

_GIB_PER_S = 2**30 / 1e9
_Positive = Annotated[float, Meta(gt=0)]


class AllReduce(Protocol):
    """Prices an all-reduce, and its two halves."""

    @property
    def source(self) -> str:
        """Where its times come from, in one line."""
        ...

    def all_reduce_ns(self, num_bytes: int, ranks: int) -> int:
        """Return the time of reducing ``num_bytes`` over ``ranks`` ranks, nanoseconds."""
        ...

    def all_gather_ns(self, num_bytes: int, ranks: int) -> int:
        """Return the time until all of ``ranks`` ranks have the ``num_bytes`` that they hold together, nanoseconds."""
        ...

    def reduce_scatter_ns(self, num_bytes: int, ranks: int) -> int:
        """Return the time until each of ``ranks`` ranks has its part of a sum of ``num_bytes``, nanoseconds."""
        ...


class RingLink(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ring of equal links: ``2 (N - 1)`` hops of ``S / N`` bytes, and their reads and writes in memory.

    The first half of them, with the reads and writes, is a reduce-scatter, the second an all-gather.

    The formula of LLMServingSim's network model (ASTRA-sim, analytical).

    Attributes:
        bandwidth_gib_s: Bandwidth of a link per direction, GiB/s (2^30 bytes, as that simulator counts).
        latency_us: Latency of a hop.
        small_latency_us: Latency of a hop in the protocol for small messages, which sends a flag with every word and so
            reaches half the bandwidth (NCCL's LL); the faster protocol counts. ``None`` leaves it out.
        memory_bandwidth_gb_s: Bandwidth at which the parts are read and written; ``None`` leaves that out.
        fixed_ns: What each collective takes beyond that.
    """

    bandwidth_gib_s: _Positive
    latency_us: Annotated[float, Meta(ge=0)] = 0.0
    small_latency_us: Annotated[float, Meta(ge=0)] | None = None
    memory_bandwidth_gb_s: _Positive | None = None
    fixed_ns: Annotated[float, Meta(ge=0)] = 27.0

    @property
    def source(self) -> str:
        """Where its times come from, in one line."""
        return f"ring of {self.bandwidth_gib_s:g} GiB/s links, {self.latency_us:g} us a hop"

    def all_reduce_ns(self, num_bytes: int, ranks: int) -> int:
        """Return the time of reducing ``num_bytes`` over ``ranks`` ranks, nanoseconds."""
        share = num_bytes / ranks
        return int((ranks - 1) * (2 * self._hop_ns(share) + self._memory_ns(share)) + self.fixed_ns)

    def all_gather_ns(self, num_bytes: int, ranks: int) -> int:
        """Return the time until all of ``ranks`` ranks have the ``num_bytes`` that they hold together, nanoseconds."""
        return int((ranks - 1) * self._hop_ns(num_bytes / ranks) + self.fixed_ns)

    def reduce_scatter_ns(self, num_bytes: int, ranks: int) -> int:
        """Return the time until each of ``ranks`` ranks has its part of a sum of ``num_bytes``, nanoseconds."""
        share = num_bytes / ranks
        return int((ranks - 1) * (self._hop_ns(share) + self._memory_ns(share)) + self.fixed_ns)

    def _hop_ns(self, share: float) -> float:
        """Return the time of a hop, by the faster protocol where there are two."""
        moved = share / (self.bandwidth_gib_s * _GIB_PER_S)
        hop = 1e3 * self.latency_us + moved
        return hop if self.small_latency_us is None else min(hop, 1e3 * self.small_latency_us + 2 * moved)

    def _memory_ns(self, share: float) -> float:
        return 3 * share / self.memory_bandwidth_gb_s if self.memory_bandwidth_gb_s else 0.0


@attrs.frozen
class MeasuredAllReduce:
    """Measured times by payload, for one number of ranks; see :func:`read_all_reduce`.

    Attributes:
        ranks: What it was measured for.
        curve: Nanoseconds by bytes.
        source: Where the measurements come from.
    """

    ranks: int
    curve: Curve
    source: str

    def all_reduce_ns(self, num_bytes: int, ranks: int) -> int:
        """Return the time of reducing ``num_bytes`` over ``ranks`` ranks, nanoseconds.

        Raises:
            InputError: It was measured for another number of ranks.
        """
        if ranks != self.ranks:
            raise InputError(f"all-reduce was measured for {self.ranks} ranks, asked for were {ranks} ({self.source})")
        return max(1, round(self.curve.at(num_bytes)))

    def all_gather_ns(self, num_bytes: int, ranks: int) -> int:
        """Return half of an all-reduce of as many bytes, nanoseconds: it was not measured by itself."""
        return max(1, self.all_reduce_ns(num_bytes, ranks) // 2)

    def reduce_scatter_ns(self, num_bytes: int, ranks: int) -> int:
        """Return half of an all-reduce of as many bytes, nanoseconds: it was not measured by itself."""
        return max(1, self.all_reduce_ns(num_bytes, ranks) // 2)


def read_all_reduce(file: str | Path, *, ranks: int) -> MeasuredAllReduce:
    """Read measured all-reduces of one number of ranks, from a table of either kind.

    Args:
        file: A table of aiconfigurator (``num_gpus``, ``message_size`` in elements, ``latency`` in ms; kernels in a
            CUDA graph count, where there are such), or of Vidur (``num_workers``, ``size`` in bytes,
            ``time_stats.all_reduce.median`` in ms).
        ranks: How many ranks.

    Raises:
        InputError: The table is not right, or has none of so many ranks.
    """
    path = Path(file)
    points = _vidur(path) if "time_stats.all_reduce.median" in header_of(path) else _aiconfigurator(path)
    mine = {size: 1e6 * latency for found, size, latency in points if found == ranks}
    if not mine:
        options = ", ".join(str(found) for found in sorted({found for found, _, _ in points}))
        raise InputError(f"no all-reduce of {ranks} ranks (there are: {options})", file=path)
    return MeasuredAllReduce(ranks, Curve.of(mine.items()), f"{path.name}, {ranks} ranks")


def _vidur(file: Path) -> list[tuple[int, int, float]]:
    columns: Columns = {"num_workers": whole, "size": whole, "time_stats.all_reduce.median": time_number}
    return [(ranks, size, latency) for ranks, size, latency in read_table(file, columns)]


def _aiconfigurator(file: Path) -> list[tuple[int, int, float]]:
    columns: Columns = {"num_gpus": whole, "message_size": whole, "latency": time_number, "backend": str}
    rows = read_table(file, columns)
    graph = [row for row in rows if not row[3].endswith("_eager")] or rows
    return [(ranks, 2 * elements, latency) for ranks, elements, latency, _ in graph]
