"""Max-min fair sharing in exact fractions, slow and obvious: what the network's engine is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import attrs


@attrs.define
class Transfer:
    """One transfer: the links it crosses by number, its bytes, and when it comes and is given up, in ns."""

    route: tuple[int, ...]
    nbytes: int
    start: int
    give_up: int | None = None
    left: Fraction = Fraction(0)
    end: Fraction | None = None  # when its last byte leaves; None when it was given up before


def max_min(bandwidths: Sequence[int], routes: Sequence[tuple[int, ...]]) -> list[Fraction]:
    """Return the rate of each route: raise all together, fix those on the link that fills first, go on."""
    rates: dict[int, Fraction] = {}
    while len(rates) < len(routes):
        shares = {}
        for link, bandwidth in enumerate(bandwidths):
            crossing = [i for i, route in enumerate(routes) if link in route]
            rising = [i for i in crossing if i not in rates]
            if rising:
                fixed = sum((rates[i] for i in crossing if i in rates), Fraction(0))
                shares[link] = (bandwidth - fixed) / len(rising)
        full = min(shares, key=lambda link: shares[link])
        for i, route in enumerate(routes):
            if full in route and i not in rates:
                rates[i] = shares[full]
    return [rates[i] for i in range(len(routes))]


def simulate(bandwidths: Sequence[int], transfers: Sequence[Transfer], limit: int | None = None) -> None:
    """Fill in the ``end`` of each transfer, one change of rates after another.

    With a limit, so many may be under way on a link; the others wait in line, and nobody overtakes.
    """
    now = Fraction(0)
    coming = sorted(transfers, key=lambda transfer: transfer.start)
    moving: list[Transfer] = []
    line: list[Transfer] = []
    for transfer in coming:
        transfer.left = Fraction(transfer.nbytes)
    while coming or moving or line:
        rates = max_min(bandwidths, [transfer.route for transfer in moving])
        ends = [now + transfer.left / rate for transfer, rate in zip(moving, rates, strict=True)]
        ends += [Fraction(transfer.give_up) for transfer in moving + line if transfer.give_up is not None]
        ends += [Fraction(transfer.start) for transfer in coming[:1]]
        then = min(ends)
        for transfer, rate in zip(moving, rates, strict=True):
            transfer.left -= rate * (then - now)
            if transfer.left == 0:
                transfer.end = then
        now = then
        moving = [t for t in moving if t.left > 0 and (t.give_up is None or t.give_up > now)]
        while coming and coming[0].start <= now:
            line.append(coming.pop(0))
        line = [t for t in line if t.give_up is None or t.give_up > now]
        let_in(moving, line, limit)


def let_in(moving: list[Transfer], line: list[Transfer], limit: int | None) -> None:
    """Move those who may begin from the line to the moving ones: nobody before them waits for one of their links."""
    blocked: set[int] = set()
    for transfer in list(line):
        full = {i for i in transfer.route if limit is not None and sum(i in t.route for t in moving) >= limit}
        if full or blocked & set(transfer.route):
            blocked |= set(transfer.route)
        else:
            line.remove(transfer)
            moving.append(transfer)
