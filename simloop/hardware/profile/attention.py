"""Attention of mixed batches: one measured time for prompt tokens, their history, decodes and their context."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

import attrs

from simloop.hardware.profile.curve import Curve, blend, bracket

__all__ = ["AttentionGrid", "Plane"]

_Cell = tuple[float, ...]
_CELLS = 1 << 14  # kept at most; some 700 bytes each


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
        high = min(bisect_left(histories, history), len(histories) - 1)
        above = rows[high].at(context)
        if history == histories[high]:
            return above
        return blend(rows[high - 1].at(context), above, history, histories[high - 1], histories[high])


class AttentionGrid:
    """Four-dimensional multilinear interpolation of a table that need not be a full product.

    The planes around ``(prefill_chunk, n_decode)`` are interpolated by themselves; where the table lacks one, the
    nearest plane that it has stands in (by the sum of the differences of the two coordinates; of equally near ones the
    first). Every axis behaves as in :class:`~simloop.hardware.profile.curve.Curve` at its ends.

    Between neighbouring points of all four axes the time is one multilinear polynomial. Its coefficients are worked out
    when a step first falls there, and kept.

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
        self.histories = sorted({history for plane in self.planes.values() for history in plane.histories})
        self.contexts = sorted({x for plane in self.planes.values() for row in plane.rows for x in row.points})
        self._stand_ins: dict[tuple[int, int], Plane] = {}
        self._cells: dict[tuple[int, int, int, int], _Cell] = {}
        self._prompt_cells: dict[tuple[int, int], _Cell] = {}

    @property
    def last_history(self) -> int:
        """The longest measured history of a prompt."""
        return self.histories[-1]

    @property
    def last_context(self) -> int:
        """The longest measured context of a decode."""
        return self.contexts[-1]

    def plane(self, chunk: int, decodes: int) -> Plane:
        """Return the plane at two grid values, or the one that stands in for it."""
        key = (chunk, decodes)
        found = self.planes.get(key) or self._stand_ins.get(key)
        if found is None:
            nearest = min(self.planes, key=lambda other: abs(other[0] - chunk) + abs(other[1] - decodes))
            found = self._stand_ins[key] = self.planes[nearest]
        return found

    def at(self, chunk: int, history: int, decodes: int, context: int) -> float:
        """Return the time of one layer's attention.

        Args:
            chunk: Prompt tokens of the step.
            history: Tokens that these have in the KV cache already.
            decodes: Requests that decode.
            context: Context of one of them.
        """
        key = (
            bisect_left(self.chunks, chunk),
            bisect_left(self.histories, history),
            bisect_left(self.decodes, decodes),
            bisect_left(self.contexts, context),
        )
        cell = self._cells.get(key) or self._add_cell(key)
        c, h, d, x, one, by_x, by_d, by_dx, by_h, by_hx, by_hd, by_hdx, *by_chunk = cell
        x, d = context - x, decodes - d
        time = one + by_x * x + (by_d + by_dx * x) * d
        if history != h:
            time += (by_h + by_hx * x + (by_hd + by_hdx * x) * d) * (history - h)
        if chunk == c:
            return time
        one, by_x, by_d, by_dx, by_h, by_hx, by_hd, by_hdx = by_chunk
        rise = one + by_x * x + (by_d + by_dx * x) * d
        if history != h:
            rise += (by_h + by_hx * x + (by_hd + by_hdx * x) * d) * (history - h)
        return time + rise * (chunk - c)

    def prompt(self, chunk: int, history: int) -> float:
        """Return the time of one layer's attention of a prompt chunk alone: :meth:`at` without decodes."""
        key = (bisect_left(self.chunks, chunk), bisect_left(self.histories, history))
        c, h, one, by_h, by_c, by_ch = self._prompt_cells.get(key) or self._add_prompt_cell(key)
        h, c = history - h, chunk - c
        return one + by_h * h + (by_c + by_ch * h) * c

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

    def _add_cell(self, key: tuple[int, int, int, int]) -> _Cell:
        if len(self._cells) >= _CELLS:
            self._cells.clear()
        axes = (self.chunks, self.histories, self.decodes, self.contexts)
        spans = [_span(points, place) for points, place in zip(axes, key, strict=True)]
        cell = self._cells[key] = (*(origin for origin, _ in spans), *_polynomial(self._measured, spans))
        return cell

    def _add_prompt_cell(self, key: tuple[int, int]) -> _Cell:
        spans = [_span(points, place) for points, place in zip((self.chunks, self.histories), key, strict=True)]
        polynomial = _polynomial(lambda chunk, history: self._measured(chunk, history, self.decodes[0], 0), spans)
        cell = self._prompt_cells[key] = (*(origin for origin, _ in spans), *polynomial)
        return cell

    def _measured(self, chunk: int, history: int, decodes: int, context: int) -> float:
        return self.plane(chunk, decodes).at(history, context)


def _span(points: list[int], place: int) -> tuple[int, int]:
    """Return where a polynomial counts from, and another point that it goes through; the same where it is constant.

    It counts from the upper end, so that the measured points come out as they were measured.

    Args:
        points: Of one axis.
        place: How many of them are below what was asked for.
    """
    if place == 0 or len(points) == 1:
        return points[0], points[0]
    place = min(place, len(points) - 1)
    return points[place], points[place - 1]


def _polynomial(at: Callable[..., float], spans: Sequence[tuple[int, int]], point: tuple[int, ...] = ()) -> list[float]:
    """Return the coefficients of the multilinear polynomial through the corners of a cell.

    They come in the order of binary numbers: ``1, x, y, xy`` for the axes ``(y, x)``.
    """
    if len(point) == len(spans):
        return [at(*point)]
    origin, other = spans[len(point)]
    here = _polynomial(at, spans, (*point, origin))
    if origin == other:
        return here + [0.0] * len(here)
    there = _polynomial(at, spans, (*point, other))
    width = other - origin
    return here + [(b - a) / width for a, b in zip(here, there, strict=True)]
