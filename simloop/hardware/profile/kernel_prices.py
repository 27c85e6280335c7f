"""What one operator costs by kernel tables, and from where; by a roofline where the tables have nothing."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from simloop.hardware.prices import Prices
from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.domain import DomainWatch
from simloop.hardware.profile.kernels import AttentionTable, GemmTable, Heads, KernelTables
from simloop.model import Attention, Collective, Elementwise, Experts, Gemm, LatentAttention, dtype_bytes

__all__ = ["KernelPrices", "Price"]

_COLUMNS = {"float16": "bfloat16", "int4": "int4_wo", "mxfp4": "w4a16_mxfp4"}
"""What the tables call a precision, where they have another name; half precisions are equally fast."""


@attrs.frozen
class Price:
    """The time of one call, and where it is from.

    Attributes:
        ns: Nanoseconds.
        source: The measurements, or the roofline of a card.
        domain: What was measured, and what was asked.
        inside: Whether the question lies within.
    """

    ns: float
    source: str
    domain: str = ""
    inside: bool = True


@attrs.frozen
class KernelPrices:
    """Prices of operators from tables.

    Attributes:
        tables: The tables.
        fallback: What prices operators that were not measured: norms and other elementwise operators always.
        domain: Whom to tell about questions beyond the measurements.
    """

    tables: KernelTables
    fallback: Prices
    domain: DomainWatch

    def row(self, operator: Gemm | Elementwise | Experts | Collective, rows: int) -> Price:
        """Price anything but attention, for ``rows`` rows."""
        if operator.name in self.tables.layers:
            return self._along(self.tables.layers[operator.name], f"{operator.per}s of {operator.name}", rows)
        if isinstance(operator, Gemm):
            return self._gemm(operator, rows)
        if isinstance(operator, Experts):
            return self._experts(operator, rows)
        return self._collective(operator, rows) if isinstance(operator, Collective) else self._roofline(operator, rows)

    def _roofline(self, operator: Gemm | Elementwise | Experts | Collective, rows: int) -> Price:
        return Price(self.fallback.row(operator, rows).total, f"roofline of {self.fallback.device.name}")

    def _gemm(self, operator: Gemm, rows: int) -> Price:
        stored = operator.quantization
        dtype = self.fallback.dtype if stored is None else stored.kernel
        table = self.tables.gemm.get(_COLUMNS.get(dtype, dtype))
        if table is None:
            return self._roofline(operator, rows)
        return self._product(table, operator, rows)

    def _product(self, table: GemmTable, operator: Gemm, rows: int) -> Price:
        most, widest = table.last_rows(operator.k, operator.n), table.last_width
        self.domain.check("rows of a matrix product", rows, most)
        self.domain.check("width of a matrix product", operator.n, widest)
        between = "" if operator.n in table.curves.get(operator.k, {}) else ", between measured widths"
        domain = f"to {most} rows of {operator.k} x {operator.n}{between}, asked {rows}"
        inside = rows <= most and operator.n <= widest
        return Price(table.at(rows, operator.k, operator.n), self.tables.source, domain, inside)

    def _experts(self, operator: Experts, rows: int) -> Price:
        """The fused kernel of one rank; ranks that gather tokens of others see all of them."""
        stored = operator.quantization
        kernel = self.fallback.dtype if stored is None else stored.kernel
        dtype = _COLUMNS.get(kernel, kernel)
        if self.tables.expert is not None:
            return self._one_by_one(self.tables.expert, operator, rows)
        ep = operator.num_experts // operator.local
        key = (dtype, operator.hidden, operator.width, operator.top_k, operator.num_experts, 1, ep)
        curve = self.tables.experts.get(key) or self._split_experts(operator, dtype)
        if curve is None:
            return self._roofline(operator, rows)
        return self._along(curve, "tokens of experts", rows * operator.gathered)

    def _one_by_one(self, curve: Curve, operator: Experts, rows: int) -> Price:
        """So many experts as have tokens, each with its share of them."""
        pairs, active = self.fallback.routing.load(operator, rows * operator.gathered)
        each = pairs / active
        self.domain.check("tokens of an expert", each, curve.last)
        domain = f"tokens of an expert {curve.first} to {curve.last}, asked {active:.1f} times {each:.1f}"
        return Price(active * curve.at(each), self.tables.source, domain, each <= curve.last)

    def _split_experts(self, operator: Experts, dtype: str) -> Curve | None:
        """Return the curve of experts of which each rank holds a slice: the table names the whole width."""
        for key, curve in self.tables.experts.items():
            precision, hidden, inner, top_k, count, tp, ep = key
            shape = (precision, hidden, inner // tp, top_k, count, ep)
            if shape == (dtype, operator.hidden, operator.width, operator.top_k, operator.num_experts, 1):
                return curve
        return None

    def _collective(self, operator: Collective, rows: int) -> Price:
        curve = self.tables.collectives.get((operator.kind, operator.ranks))
        if curve is None:
            return self._roofline(operator, rows)
        size = rows * operator.elements * dtype_bytes(self.fallback.dtype)
        measured = self._along(curve, f"bytes of {operator.kind}", size)
        links = self.fallback.device.interconnect
        return attrs.evolve(measured, ns=measured.ns + links.skew_ns(operator.ranks)) if links else measured

    def _along(self, curve: Curve, axis: str, point: int) -> Price:
        self.domain.check(axis, point, curve.last)
        domain = f"{axis} {curve.first} to {curve.last}, asked {point}"
        return Price(max(1.0, curve.at(point)), self.tables.source, domain, point <= curve.last)

    # -- attention ---------------------------------------------------------------------------------------------

    def generation_table(self, operator: Attention | LatentAttention) -> AttentionTable | None:
        """Return the table of decodes for an operator's heads, if it was measured."""
        return None if isinstance(operator, LatentAttention) else _measured(self.tables.generation, operator, 0)

    def chunk(self, operator: Attention | LatentAttention, new: int, cached: int) -> Price:
        """Price one prompt chunk.

        Tables have whole prompts. A chunk after ``cached`` tokens is what a prompt of ``cached + new`` takes beyond one
        of ``cached``, which has the same pairs of queries and keys, and at least what a prompt of ``new`` takes.
        """
        if isinstance(operator, Attention):
            kinds = self.tables.chunks, self.tables.context
            chunks, context = (_measured(tables, operator, new + cached) for tables in kinds)
            if chunks is not None:
                return self._known_chunk(chunks, new, new + cached)
            if context is not None:
                return self._part_of_prompt(context.batch_curve(1), new, cached)
        cost = self.fallback.prefill(operator, [(new, cached)])
        return Price(cost.total, f"roofline of {self.fallback.device.name}")

    def _known_chunk(self, table: AttentionTable, new: int, context: int) -> Price:
        self.domain.check("tokens of a chunk", new, table.batches[-1])
        self.domain.check("context of a chunk", context, table.last_length)
        domain = f"chunks to {table.batches[-1]} of {table.last_length} tokens, asked {new} of {context}"
        inside = new <= table.batches[-1] and context <= table.last_length
        return Price(max(1.0, table.batch_curve(new).at(context)), self.tables.source, domain, inside)

    def _part_of_prompt(self, curve: Curve, new: int, cached: int) -> Price:
        self.domain.check("tokens of a prompt", new + cached, curve.last)
        alone = curve.at(new)
        ns = max(alone, curve.at(new + cached) - curve.at(cached)) if cached else alone
        domain = f"prompts of {curve.first} to {curve.last} tokens, asked {new} after {cached}"
        return Price(max(1.0, ns), self.tables.source, domain, new + cached <= curve.last)

    def decode(self, operator: Attention | LatentAttention, requests: int, context: int) -> Price:
        """Price decodes alone that attend to ``context`` tokens in all, as if to equally many each."""
        table = self.generation_table(operator)
        if table is None:
            cost = self.fallback.decode(operator, requests, context)
            return Price(cost.total, f"roofline of {self.fallback.device.name}")
        mean = min(context / requests, operator.window or context)
        domain = f"{table.batches[-1]} requests of {table.last_length}, asked {requests} of {mean:.0f}"
        inside = requests <= table.batches[-1] and mean <= table.last_length
        return Price(max(1.0, table.batch_curve(requests).at(mean)), self.tables.source, domain, inside)

    def running(
        self, operator: Attention | LatentAttention, requests: int, context: int, *, beside_prompts: bool
    ) -> Price:
        """Price decodes in the kernel that they take: if that is the one for prompts, by the roofline."""
        alone = self.decode(operator, requests, context)
        if self.fallback.tiles(operator, beside_prompts=beside_prompts) is None:
            return alone
        cost = self.fallback.running_decode(operator, requests, context, beside_prompts=beside_prompts)
        return alone if alone.ns > cost.total else Price(cost.total, f"roofline of {self.fallback.device.name}")


def _measured(tables: Mapping[Heads, AttentionTable], operator: Attention, longest: int) -> AttentionTable | None:
    """Return the table of an operator's heads: with its window, or without one if ``longest`` does not reach beyond."""
    heads, window = (operator.num_heads, operator.num_kv_heads, operator.head_dim), operator.window or 0
    known = tables.get((*heads, window))
    return tables.get((*heads, 0)) if known is None and longest <= window else known
