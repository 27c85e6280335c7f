"""Attention of mixed batches: one measured time for prompt tokens, their history, decodes and their context."""

from __future__ import annotations

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
        low, high = bracket(self.histories, history)
        below = self.rows[low].at(context)
        if low == high:
            return below
        return blend(below, self.rows[high].at(context), history, self.histories[low], self.histories[high])


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
        low, high = bracket(self.chunks, chunk)
        below = self._along_decodes(self.chunks[low], history, decodes, context)
        if low == high:
            return below
        above = self._along_decodes(self.chunks[high], history, decodes, context)
        return blend(below, above, chunk, self.chunks[low], self.chunks[high])

    def _along_decodes(self, chunk: int, history: float, decodes: int, context: float) -> float:
        low, high = bracket(self.decodes, decodes)
        below = self.plane(chunk, self.decodes[low]).at(history, context)
        if low == high or self.decodes[low] == decodes:
            return below
        above = self.plane(chunk, self.decodes[high]).at(history, context)
        return blend(below, above, decodes, self.decodes[low], self.decodes[high])

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
