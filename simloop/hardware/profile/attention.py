"""Attention of mixed batches: one measured time for prompt tokens, their history, decodes and their context."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

import attrs

from simloop.hardware.profile.curve import Curve, blend, bracket

__all__ = ["AttentionGrid", "Plane"]


@attrs.frozen
class Plane:
    """Times by ``kv_prefill`` and ``kv_decode`` for one ``(prefill_chunk, n_decode)``; each row has its own points."""

    histories: list[int]
    rows: list[Curve]

    def at(self, history: float, context: float) -> float:
        """Return the time, linear in the context along the two rows around the history, then linear between these."""
        histories, rows = self.histories, self.rows
        if history <= histories[0] or len(histories) == 1:
            return rows[0].at(context)
        high = min(bisect_right(histories, history), len(histories) - 1)
        low = histories[high - 1]
        below = rows[high - 1].at(context)
        if history == low:
            return below
        return below + (rows[high].at(context) - below) * (history - low) / (histories[high] - low)


class AttentionGrid:
    """Four-dimensional multilinear interpolation of a table that need not be a full product.

    The planes around ``(prefill_chunk, n_decode)`` are interpolated by themselves; where the table lacks one, the
    nearest plane that it has stands in (by the sum of the differences of the two coordinates; of equally near ones the
    first). Every axis behaves as in :class:`~simloop.hardware.profile.curve.Curve` at its ends.

    Args:
        points: ``(prefill_chunk, kv_prefill, n_decode, kv_decode, time)`` in any order.
    """

    def __init__(self, points: Iterable[tuple[int, int, int, int, float]]) -> None:
        table: dict[tuple[int, int], dict[int, list[tuple[int, float]]]] = {}
        for chunk, history, decodes, context, time in points:
            table.setdefault((chunk, decodes), {}).setdefault(history, []).append((context, time))
        self.planes = {
            key: Plane(sorted(rows), [Curve.of(rows[history]) for history in sorted(rows)])
            for key, rows in sorted(table.items())
        }
        self.chunks = sorted({chunk for chunk, _ in self.planes})
        self.decodes = sorted({decodes for _, decodes in self.planes})
        self.last_history = max(plane.histories[-1] for plane in self.planes.values())
        self.last_context = max(row.last for plane in self.planes.values() for row in plane.rows)
        self._stand_ins: dict[tuple[int, int], Plane] = {}
        self._pairs: dict[tuple[int, int], tuple[Plane, float, Plane]] = {}

    def plane(self, chunk: int, decodes: int) -> Plane:
        """Return the plane at two grid values, or the one that stands in for it."""
        key = (chunk, decodes)
        found = self.planes.get(key) or self._stand_ins.get(key)
        if found is None:
            nearest = min(self.planes, key=lambda other: abs(other[0] - chunk) + abs(other[1] - decodes))
            found = self._stand_ins[key] = self.planes[nearest]
        return found

    def at(self, chunk: int, history: float, decodes: int, context: float) -> float:
        """Return the time of one layer's attention.

        Args:
            chunk: Prompt tokens of the step.
            history: Tokens that these have in the KV cache already.
            decodes: Requests that decode.
            context: Context of one of them.
        """
        chunks = self.chunks
        if chunk <= chunks[0] or len(chunks) == 1:
            return self._along_decodes(chunks[0], history, decodes, context)
        high = min(bisect_right(chunks, chunk), len(chunks) - 1)
        low = chunks[high - 1]
        below = self._along_decodes(low, history, decodes, context)
        if chunk == low:
            return below
        above = self._along_decodes(chunks[high], history, decodes, context)
        return below + (above - below) * (chunk - low) / (chunks[high] - low)

    def _along_decodes(self, chunk: int, history: float, decodes: int, context: float) -> float:
        pair = self._pairs.get((chunk, decodes))
        if pair is None:
            pair = self._pairs[chunk, decodes] = self._pair(chunk, decodes)
        few, weight, many = pair
        below = few.at(history, context)
        return below + weight * (many.at(history, context) - below) if weight else below

    def _pair(self, chunk: int, decodes: int) -> tuple[Plane, float, Plane]:
        """Return the planes around a number of decodes, and how far it is from the first to the second."""
        low, high = bracket(self.decodes, decodes)
        few, many = self.decodes[low], self.decodes[high]
        weight = (decodes - few) / (many - few) if many > few else 0.0
        return self.plane(chunk, few), weight, self.plane(chunk, many)

    def decode_curve(self, decodes: int) -> Curve:
        """Return the time by context of so many decoding requests and no prompt: what :meth:`at` gives, as one curve.

        Every line of it is the same as between the points of the planes that it is made of.
        """
        low, high = bracket(self.decodes, decodes)
        rows = [self.plane(0, self.decodes[place]).rows[0] for place in (low, high)]
        points = sorted({point for row in rows for point in row.points})
        values = [
            blend(rows[0].at(point), rows[1].at(point), decodes, self.decodes[low], self.decodes[high])
            for point in points
        ]
        return Curve(points, values)
