"""The time of an iteration out of kernel tables, operator by operator of a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from simloop.errors import InputError
from simloop.hardware.device import Device
from simloop.hardware.prices import Prices
from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.domain import DomainWatch
from simloop.hardware.profile.kernel_prices import KernelPrices, Price
from simloop.hardware.profile.kernels import KernelTables
from simloop.hardware.profile.layers import load_tables
from simloop.hardware.profile.mix import DecodeRow
from simloop.hardware.profile.overheads import Overheads
from simloop.hardware.profile.timing import MeasuredTime
from simloop.hardware.roofline import serving_dtype
from simloop.hardware.tiles import Tiles
from simloop.hardware.timing import IterationShape, OperatorTime
from simloop.model import Attention, Balanced, LatentAttention, Model, Operator, Plan, Routing, shard

__all__ = ["KernelTiming"]

_MEMO_SIZE = 1 << 16
_NO_LIMIT = 1 << 24


class _Tiled(NamedTuple):
    """Attention of some layers whose decodes take the kernel for prompts, and the fixed cost of that."""

    operator: Attention | LatentAttention
    calls: int
    tiles: Tiles
    overhead: float

    def ns(self, decodes: int, context: int) -> float:
        """Return the time of all these layers."""
        return self.calls * (self.overhead + self.tiles.ns(decodes, context))


class KernelTiming:
    """A :class:`~simloop.hardware.TimingModel` of measured kernels.

    Matrix products, experts and exchanges cost what the tables say for their shapes, attention of prompts is summed
    over the prompts, attention of decodes is read at the mean of their contexts. Decodes that take the kernel for
    prompts (:class:`~simloop.hardware.tiles.Tiles`) cost that, if it is slower. What was not measured (norms and the
    like always) costs what the roofline of the device's card says; :meth:`explain` says which is which.

    Args:
        tables: The tables, or the folder they are in (see :func:`~simloop.hardware.profile.load_tables`).
        model: The model.
        device: The device's card.
        dtype: Precision; see :func:`~simloop.hardware.serving_dtype`.
        plan: How the model is spread over devices; one device if not given.
        stage: The pipeline stage to price.
        routing: How tokens spread over experts that were not measured.
        overheads: What the engine adds; ``None`` is nothing. Attention is always priced prompt by prompt.
        strict: Whether leaving the measured domain is an error; else it is a warning, once for each axis.

    Raises:
        InputError: The tables are not right, or do not fit the device, the model or the plan.
    """

    def __init__(
        self,
        tables: KernelTables | str | Path,
        model: Model,
        device: Device,
        *,
        dtype: str | None = None,
        plan: Plan | None = None,
        stage: int | None = None,
        routing: Routing | None = None,
        overheads: Overheads | None = None,
        strict: bool = False,
    ) -> None:
        self.dtype = serving_dtype(model, device, dtype)
        self.model = model = model.with_dtype(self.dtype)
        self.plan, self.overheads = plan or Plan(), overheads or Overheads()
        found = tables if isinstance(tables, KernelTables) else load_tables(tables, tp=self.plan.tensor_parallel)
        cache_bytes = 1e6 * (device.onchip_memory_mb or 0)
        self.tables = found.believed(device.memory_bandwidth_gb_s, cache_bytes, model.kv_dtype_bytes)
        stages = shard(model, self.plan)
        if stage is None and len(stages) > 1:
            raise InputError(f"a plan of {len(stages)} pipeline stages: choose one of them")
        self.stage = stages[stage or 0]
        self.domain = DomainWatch(self.tables.source, strict)
        fallback = Prices(device, self.dtype, model.kv_dtype_bytes, routing or Balanced())
        self._prices = KernelPrices(self.tables, fallback, self.domain)
        self._attentions = list(self.stage.attentions())
        self._tiles_mixed, self._tiles_alone = (list(self._tiled(beside_prompts=mixed)) for mixed in (True, False))
        self._prefill_ns = self.overheads.prefill_ns(sum(calls for _, calls in self._attentions))
        self._by_tokens: dict[int, float] = {}
        self._by_sequences: dict[int, float] = {}
        self._by_chunk: dict[tuple[int, int], float] = {}
        self._rows: dict[int, DecodeRow] = {}
        self._row = self._add_row(1)
        self._has_floor = self.overheads.floor_ns(1) > 0
        self._saved = 1.0 - self.overheads.shared_read

    def iteration_ns(self, shape: IterationShape) -> int:
        """Return the duration of one iteration, nanoseconds."""
        tokens, sequences, decodes = shape.num_tokens, shape.num_sequences, shape.num_decodes
        ns = self._by_tokens.get(tokens)
        if ns is None:
            ns = self._price_tokens(tokens)
        head = self._by_sequences.get(sequences)
        ns += self._price_sequences(sequences) if head is None else head
        if decodes:
            row = self._row
            if row.decodes != decodes:
                row = self._row = self._rows.get(decodes) or self._add_row(decodes)
            context = self._read(shape) if self._saved else shape.decode_context
            mean = context / decodes
            if not row.low <= mean < row.high:
                row.move(mean)
            alone = row.base + row.rise * (mean - row.low) / (row.high - row.low)
            tiled = self._tiles_mixed if shape.chunks else self._tiles_alone
            ns += self._price_tiles(tiled, alone, decodes, context) if tiled else alone
        if shape.chunks:
            by_chunk = self._by_chunk
            for chunk in shape.chunks:
                ns += by_chunk.get(chunk) or self._price_chunk(chunk)
            ns += self._prefill_ns
        whole = int(ns + 0.5)
        return max(whole, self.overheads.floor_ns(sequences)) if self._has_floor else whole

    def explain(self, shape: IterationShape) -> list[OperatorTime]:
        """Return where the time of an iteration goes, in order of execution; the sum is :meth:`iteration_ns`.

        Every line is a :class:`~simloop.hardware.profile.MeasuredTime`.
        """
        lines: list[OperatorTime] = [
            MeasuredTime(name, calls, calls * price.ns, _bound(price), price.source, price.domain, price.inside)
            for name, calls, price in self._costs(shape)
        ]
        waiting = self.iteration_ns(shape) - sum(line.ns for line in lines)
        return [*lines, MeasuredTime("host", 1, waiting, "overhead", "overheads of the engine")]

    def operator_ns(self, operator: Operator, shape: IterationShape) -> float:
        """Return the time of one call of an operator, nanoseconds."""
        if isinstance(operator, Attention | LatentAttention):
            ns = sum(self._prices.chunk(operator, new, cached).ns for new, cached in shape.chunks)
            if shape.num_decodes:
                ns += self._decode(operator, shape).ns
            return ns
        by_token = operator.per == "token"
        rows = self.overheads.padded(shape.num_tokens) if by_token else shape.num_sequences
        return self._prices.row(operator, rows).ns if rows else 0.0

    def _costs(self, shape: IterationShape) -> Iterator[tuple[str, int, Price]]:
        for operator, calls in self.stage.operators:
            if isinstance(operator, Attention | LatentAttention):
                for new, cached in shape.chunks:
                    yield f"{operator.name} (prefill)", calls, self._prices.chunk(operator, new, cached)
                if shape.num_decodes:
                    price = self._decode(operator, shape)
                    yield f"{operator.name} (decode)", calls, price
                continue
            by_token = operator.per == "token"
            rows = self.overheads.padded(shape.num_tokens) if by_token else shape.num_sequences
            if rows:
                yield operator.name, calls, self._prices.row(operator, rows)

    def _read(self, shape: IterationShape) -> int:
        """Return the context of decodes that takes as long from the device's memory, at least one token each."""
        saved = int(self._saved * shape.shared_context) if self._saved else 0
        return max(shape.num_decodes, shape.decode_context - saved)

    # -- what is remembered ------------------------------------------------------------------------------------

    def _price_tokens(self, tokens: int) -> float:
        return _remember(self._by_tokens, tokens, self._sum("token", self.overheads.padded(tokens)))

    def _price_sequences(self, sequences: int) -> float:
        ns = self._sum("sequence", sequences) + self.overheads.step_ns()
        if self.stage.last:
            ns += self.overheads.sequences_ns(sequences, self.model.vocab_size)
        return _remember(self._by_sequences, sequences, ns)

    def _sum(self, per: str, rows: int) -> float:
        return sum(
            calls * self._prices.row(operator, rows).ns
            for operator, calls in self.stage.operators
            if rows and operator.per == per and not isinstance(operator, Attention | LatentAttention)
        )

    def _price_chunk(self, chunk: tuple[int, int]) -> float:
        ns = sum(calls * self._prices.chunk(operator, *chunk).ns for operator, calls in self._attentions)
        if len(self._by_chunk) >= _MEMO_SIZE:
            self._by_chunk.clear()
        self._by_chunk[chunk] = ns
        return ns

    def _tiled(self, *, beside_prompts: bool) -> Iterator[_Tiled]:
        """Yield the attention whose decodes take the kernel for prompts."""
        prices = self._prices.fallback
        for operator, calls in self._attentions:
            tiles = prices.tiles(operator, beside_prompts=beside_prompts)
            if tiles is not None:
                yield _Tiled(operator, calls, tiles, prices.decode(operator, 1, 1).overhead)

    def _price_tiles(self, tiled: list[_Tiled], alone: float, decodes: int, context: int) -> float:
        """Return the time of decodes of which some or all layers take the kernel for prompts, if it is slower."""
        if len(self._attentions) == 1:
            return max(alone, tiled[0].ns(decodes, context))
        for one in tiled:
            packed = one.calls * self._prices.decode(one.operator, decodes, context).ns
            alone += max(0.0, one.ns(decodes, context) - packed)
        return alone

    # -- attention of decodes ----------------------------------------------------------------------------------

    @property
    def last_context(self) -> int:
        """The longest measured context of a decode."""
        tables = [self._prices.generation_table(operator) for operator, _ in self._attentions]
        return min((table.last_length for table in tables if table is not None), default=_NO_LIMIT)

    def decode_curve(self, decodes: int) -> Curve:
        """Return the time of all layers' attention by the mean context of so many decodes, nanoseconds."""
        points = sorted({point for operator, _ in self._attentions for point in self._points(operator, decodes)})
        prices = self._prices
        values = [
            sum(calls * prices.decode(operator, decodes, decodes * point).ns for operator, calls in self._attentions)
            for point in points
        ]
        return Curve(points, values)

    def _decode(self, operator: Attention | LatentAttention, shape: IterationShape) -> Price:
        """Price the decodes of an iteration as they run: beside prompts, or alone."""
        return self._prices.running(operator, shape.num_decodes, self._read(shape), beside_prompts=bool(shape.chunks))

    def _points(self, operator: Attention | LatentAttention, decodes: int) -> list[int]:
        """Return the contexts between which the price is a straight line."""
        table = self._prices.generation_table(operator)
        if table is not None:
            return table.batch_curve(decodes).points
        return [1, _NO_LIMIT, *([operator.window] if operator.window else [])]

    def _add_row(self, decodes: int) -> DecodeRow:
        for operator, _ in self._attentions:
            table = self._prices.generation_table(operator)
            if table is not None:
                self.domain.check("requests that decode", decodes, table.batches[-1])
        row = self._rows[decodes] = DecodeRow(decodes, self, None, self.domain)
        return row


def _bound(price: Price) -> str:
    return "roofline" if price.source.startswith("roofline") else "measured"


def _remember(memo: dict[int, float], key: int, value: float) -> float:
    if len(memo) >= _MEMO_SIZE:
        memo.clear()
    memo[key] = value
    return value
