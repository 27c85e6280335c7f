"""What links devices, and how long an exchange between them takes.

``t = alpha + f · m / bus``: a fixed cost and a bandwidth, measured for each number of ranks (alpha-beta, Hockney 1994;
the bus bandwidth of NCCL's tests). ``m`` is the whole message, ``f`` what of it each rank's link carries:
``2 (n - 1) / n`` to reduce it everywhere, ``(n - 1) / n`` to gather, scatter or swap it.

In an engine ranks do other work between exchanges and come to each at different times; the last one is waited for. That
is not in measurements of exchanges alone: it is added to them, ``skew · log2 n``.
"""

from __future__ import annotations

from math import log2
from typing import Annotated

import msgspec
from msgspec import Meta

from simloop.errors import InputError
from simloop.model import CollectiveKind

__all__ = ["Interconnect", "LinkFit", "PointToPoint"]

_Time = Annotated[float, Meta(ge=0)]
_Positive = Annotated[float, Meta(gt=0)]


class LinkFit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A collective among a number of ranks.

    Attributes:
        ranks: How many take part.
        alpha_us: Fixed cost, microseconds.
        bus_gb_s: Bus bandwidth, GB/s.
        median_error: Median absolute relative error on the points it was fitted to.
        p90_error: 90th percentile of the same.
    """

    ranks: Annotated[int, Meta(ge=2)]
    alpha_us: _Time
    bus_gb_s: _Positive
    median_error: _Time | None = None
    p90_error: _Time | None = None


class PointToPoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sending to one other device.

    Attributes:
        alpha_us: Fixed cost, microseconds.
        gb_s: Bandwidth, GB/s.
    """

    alpha_us: _Time
    gb_s: _Positive


class Interconnect(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The links between the devices of one server, as measured.

    Attributes:
        source: What it was fitted to, or where it was carried over from.
        launch_us: What the host spends on starting one all-reduce outside of a CUDA graph, microseconds.
        skew_us: What the ranks of an engine wait for each other at every exchange, for each doubling of their number,
            microseconds (``tests/benchmarks/fit_skew.py``).
        all_reduce: The sum of all ranks' buffers for everybody, by ascending number of ranks.
        all_gather: All ranks' parts for everybody; half an all-reduce if not given.
        reduce_scatter: A part of the sum for each; half an all-reduce if not given.
        all_to_all: A part from everybody to everybody; half an all-reduce if not given.
        point_to_point: From one device to another.
    """

    source: str
    launch_us: _Time = 0.0
    skew_us: _Time = 0.0
    all_reduce: Annotated[list[LinkFit], Meta(min_length=1)]
    all_gather: list[LinkFit] = []
    reduce_scatter: list[LinkFit] = []
    all_to_all: list[LinkFit] = []
    point_to_point: PointToPoint

    def collective_ns(self, kind: CollectiveKind, ranks: int, size: float) -> tuple[float, float]:
        """Return the fixed part and the transfer of a message of ``size`` bytes, nanoseconds.

        Between two numbers of ranks that were measured, the larger one's figures hold.

        Raises:
            InputError: So many ranks were not measured.
        """
        fits: list[LinkFit] = getattr(self, kind) or self.all_reduce
        fit = next((fit for fit in fits if fit.ranks >= ranks), None)
        if fit is None:
            raise InputError(f"the interconnect was measured for at most {fits[-1].ranks} ranks, not for {ranks}")
        share = (ranks - 1) / ranks * size / fit.bus_gb_s
        skew = self.skew_ns(ranks)
        if kind == "all_reduce":
            return skew + 1e3 * fit.alpha_us, 2 * share
        return skew + 1e3 * fit.alpha_us / (1 if getattr(self, kind) else 2), share

    def skew_ns(self, ranks: int) -> float:
        """Return what the ranks of an engine wait for each other at an exchange, nanoseconds."""
        return 1e3 * self.skew_us * log2(ranks)

    def send_ns(self, size: float) -> float:
        """Return the time of sending ``size`` bytes to one other device, nanoseconds."""
        return 1e3 * self.point_to_point.alpha_us + size / self.point_to_point.gb_s
