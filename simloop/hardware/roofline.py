"""The time of an iteration from a calibrated roofline, in two look-ups and a closed form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import attrs

from simloop.errors import InputError
from simloop.hardware.device import Device
from simloop.hardware.prices import Cost, Prices
from simloop.hardware.profile.overheads import Overheads
from simloop.hardware.tiles import Tiles
from simloop.hardware.timing import IterationShape, OperatorTime
from simloop.model import (
    Attention,
    Balanced,
    Collective,
    LatentAttention,
    Model,
    Operator,
    Plan,
    Routing,
    Stage,
    shard,
)

__all__ = ["LARGEST_GRAPH", "Roofline", "serving_dtype"]

LARGEST_GRAPH = 512
"""Most sequences of a decode-only iteration that is replayed from a CUDA graph (vLLM's largest capture size)."""

_MEMO_SIZE = 1 << 16


def serving_dtype(model: Model, device: Device, dtype: str | None = None) -> str:
    """Return the precision in which a device serves a model.

    Args:
        model: The model.
        device: The device.
        dtype: A precision, or ``None`` or ``"auto"``: the model's own, and float16 where the device lacks bfloat16,
            as vLLM falls back.

    Raises:
        InputError: The device's card states no peak for that precision.
    """
    wanted = model.with_dtype(dtype).dtype
    automatic = dtype is None or dtype == "auto"
    if automatic and wanted == "bfloat16" and wanted not in device.peak_tflops and "float16" in device.peak_tflops:
        return "float16"
    device.peak_flops(wanted)
    return wanted


class _Decode(NamedTuple):
    """Decode attention of layers that are alike is linear: a fixed part, one by request, two by attended token."""

    fixed: float
    request: float
    read: float
    compute: float
    window: int | None

    def ns(self, decodes: int, context: int) -> float:
        """Return the time of all these layers."""
        if self.window is not None and context > decodes * self.window:
            context = decodes * self.window
        memory = context * self.read + decodes * self.request
        compute = context * self.compute
        return self.fixed + (memory if memory > compute else compute)


class Roofline:
    """A :class:`~simloop.hardware.TimingModel` made of one :class:`~simloop.hardware.Prices` for each operator.

    Everything but attention depends only on the number of tokens (the language-model head and the sampler: of
    sequences), so it is priced once for each number. Attention of decoding requests depends on how many they are and
    how many tokens they attend to in all; attention of prompt chunks is a sum over the chunks. Kernels run one after
    another. Of a plan over several devices it prices one rank, with the exchanges that this takes.

    Args:
        model: The model.
        device: The device.
        dtype: Precision; see :func:`serving_dtype`.
        cuda_graphs: Whether decode-only iterations are replayed from CUDA graphs. They then pay for one launch; other
            iterations last at least as long as launching their kernels one by one.
        plan: How the model is spread over devices; one device if not given. With data-parallel ranks a shape is the
            work of each of them.
        stage: The pipeline stage to price; :class:`~simloop.hardware.Pipeline` has all of them.
        kv_cache_dtype: Precision of the KV cache; ``None`` and ``"auto"`` are the model's own.
        routing: How tokens spread over experts; :class:`~simloop.model.Balanced` if not given.
        overheads: What the engine adds; nothing if not given. Attention is always priced prompt by prompt, and reads
            what requests share as often as they do: ``attention_tail`` and ``shared_read`` are of measured kernels.

    Raises:
        InputError: The device's card states no peak for that precision or no interconnect for the plan, the plan does
            not divide the model, or it has several stages and none is chosen.
    """

    def __init__(
        self,
        model: Model,
        device: Device,
        *,
        dtype: str | None = None,
        cuda_graphs: bool = True,
        plan: Plan | None = None,
        stage: int | None = None,
        kv_cache_dtype: str | None = None,
        routing: Routing | None = None,
        overheads: Overheads | None = None,
    ) -> None:
        self.dtype = serving_dtype(model, device, dtype)
        self.model = model = model.with_dtype(self.dtype).with_kv_cache_dtype(kv_cache_dtype)
        self.device, self.plan = device, plan or Plan()
        self.stage = self._chosen(stage)
        self.overheads = overheads or Overheads()
        self.largest_graph = (self.overheads.largest_graph or LARGEST_GRAPH) if cuda_graphs else 0
        self._prices = Prices(device, self.dtype, model.kv_dtype_bytes, routing or Balanced())
        self._operators = self.stage.operators
        self._attentions = tuple(self.stage.attentions())
        self._launch_ns = 1e3 * device.calibration.launch.kernel_us
        self._kernels = sum(calls for _, calls in self._operators)
        self._launching_ns = self._kernels * self._launch_ns + self._exchanging_ns()
        self._host_ns = self.overheads.step_ns()
        layers = sum(calls for _, calls in self._attentions)
        self._prompt_ns = self._host_ns + self.overheads.prefill_ns(layers)
        self._replay_ns = self._launch_ns + self._host_ns
        self._floor = self.overheads.floor_ns if self.overheads.floor_ns(1) else None
        self._by_tokens: dict[int, float] = {}
        self._by_sequences: dict[int, float] = {}
        self._decodes = tuple(self._decode(operator, calls) for operator, calls in self._attentions)
        first = self._decodes[0]
        self._decode_fixed, self._decode_request, self._decode_read, self._decode_compute, _ = first
        self._alike = len(self._decodes) == 1 and first.window is None
        self._windows = self._windowed()

    def iteration_ns(self, shape: IterationShape) -> int:
        """Return the duration of one iteration, nanoseconds. A decode-only one costs about half a microsecond."""
        tokens, sequences, decodes = shape.num_tokens, shape.num_sequences, shape.num_decodes
        ns = self._by_tokens.get(tokens)
        if ns is None:
            ns = self._price_tokens(tokens)
        head = self._by_sequences.get(sequences)
        ns += self._price_sequences(sequences) if head is None else head
        if decodes:
            context = shape.decode_context
            if self._alike:
                memory = context * self._decode_read + decodes * self._decode_request
                compute = context * self._decode_compute
                ns += self._decode_fixed + (memory if memory > compute else compute)
            elif self._windows:
                for tiles, layers, calls in self._windows:
                    ns += layers.fixed + calls * tiles.ns(decodes, context) if tiles else layers.ns(decodes, context)
            else:
                for layers in self._decodes:
                    ns += layers.ns(decodes, context)
        chunks = shape.chunks
        if chunks:
            for attention, calls in self._attentions:
                ns += calls * self._prices.prefill(attention, chunks).total
        if chunks or decodes > self.largest_graph:
            ns = ns if ns > self._launching_ns else self._launching_ns
            ns += self._prompt_ns if chunks else self._host_ns
        else:
            ns += self._replay_ns
        return int(ns + 0.5) if self._floor is None else max(int(ns + 0.5), self._floor(sequences))

    def explain(self, shape: IterationShape) -> list[OperatorTime]:
        """Return where the time of an iteration goes, in order of execution; the sum is :meth:`iteration_ns`.

        Operators of the same name in layers of different kinds make one line.
        """
        lines: dict[str, OperatorTime] = {}
        for name, calls, cost in self._costs(shape):
            before = lines.get(name, OperatorTime(name, 0, 0.0, cost.bound))
            bound = before.bound if before.ns > calls * cost.total else cost.bound
            lines[name] = OperatorTime(name, before.calls + calls, before.ns + calls * cost.total, bound)
        kernels = sum(line.ns for line in lines.values())
        if shape.chunks or shape.num_decodes > self.largest_graph:
            waiting = max(0.0, self._launching_ns - kernels)
            launch = OperatorTime("launch", self._kernels, waiting, "overhead")
        else:
            launch = OperatorTime("launch", 1, self._launch_ns, "overhead")
        if self.overheads == Overheads():
            return [*lines.values(), launch]
        host = self.iteration_ns(shape) - kernels - launch.ns
        return [*lines.values(), launch, OperatorTime("host", 1, host, "overhead")]

    def operator_ns(self, operator: Operator, shape: IterationShape) -> float:
        """Return the time of one call of an operator, nanoseconds."""
        if isinstance(operator, Attention | LatentAttention):
            ns = self._prices.prefill(operator, shape.chunks).total if shape.chunks else 0.0
            if shape.num_decodes:
                ns += self._prices.decode(operator, shape.num_decodes, shape.decode_context).total
            return ns
        rows = shape.num_sequences if operator.per == "sequence" else self.overheads.padded(shape.num_tokens)
        return self._prices.row(operator, rows).total if rows else 0.0

    def _chosen(self, stage: int | None) -> Stage:
        stages = shard(self.model, self.plan)
        if stage is None and len(stages) > 1:
            raise InputError(f"a plan of {len(stages)} pipeline stages takes a Pipeline, or a stage of it")
        if not 0 <= (stage or 0) < len(stages):
            raise InputError(f"there is no stage {stage} (there are: 0 to {len(stages) - 1})")
        return stages[stage or 0]

    def _exchanging_ns(self) -> float:
        """Return what the host spends on starting exchanges outside of a CUDA graph, beyond the launch of a kernel."""
        exchanges = [(operator, calls) for operator, calls in self._operators if isinstance(operator, Collective)]
        if not exchanges:
            return 0.0
        for operator, _ in exchanges:
            self._prices.collective(operator, 1)  # finds out now whether the card can price it
        more = max(0.0, 1e3 * self.device.links().launch_us - self._launch_ns)
        return more * sum(calls for _, calls in exchanges)

    def _decode(self, operator: Attention | LatentAttention, layers: int) -> _Decode:
        fixed, one = self._prices.decode(operator, 0, 0), self._prices.decode(operator, 1, 0)
        many = self._prices.decode(_without_window(operator), 1 << 40, 1 << 40)
        read = layers * (many.memory / (1 << 40) - one.memory)
        return _Decode(
            layers * fixed.overhead, layers * one.memory, read, layers * many.compute / (1 << 40), operator.window
        )

    def _windowed(self) -> list[tuple[Tiles | None, _Decode, int]]:
        """Return how decodes of each kind of layers are priced, if those with a window take the kernel for prompts."""
        tiles = [self._prices.tiles(operator, beside_prompts=False) for operator, _ in self._attentions]
        calls = [calls for _, calls in self._attentions]
        return list(zip(tiles, self._decodes, calls, strict=True)) if any(tiles) else []

    def _costs(self, shape: IterationShape) -> Iterator[tuple[str, int, Cost]]:
        for operator, calls in self._operators:
            rows = shape.num_sequences if operator.per == "sequence" else self.overheads.padded(shape.num_tokens)
            if isinstance(operator, Attention | LatentAttention):
                if shape.chunks:
                    yield f"{operator.name} (prefill)", calls, self._prices.prefill(operator, shape.chunks)
                if shape.num_decodes:
                    asked = shape.num_decodes, shape.decode_context
                    cost = self._prices.running_decode(operator, *asked, beside_prompts=False)
                    yield f"{operator.name} (decode)", calls, cost
            elif rows:
                yield operator.name, calls, self._prices.row(operator, rows)

    def _sum(self, per: str, rows: int) -> float:
        if rows == 0:
            return 0.0
        return sum(
            calls * self._prices.row(operator, rows).total
            for operator, calls in self._operators
            if operator.per == per and not isinstance(operator, Attention | LatentAttention)
        )

    def _price_tokens(self, tokens: int) -> float:
        return _remember(self._by_tokens, tokens, self._sum("token", self.overheads.padded(tokens)))

    def _price_sequences(self, sequences: int) -> float:
        ns = self._sum("sequence", sequences)
        if self.stage.last:
            ns += self.overheads.sequences_ns(sequences, self.model.vocab_size)
        return _remember(self._by_sequences, sequences, ns)


def _without_window(operator: Attention | LatentAttention) -> Attention | LatentAttention:
    return attrs.evolve(operator, window=None)


def _remember(memo: dict[int, float], key: int, value: float) -> float:
    """Store a price; a full table is emptied, which bounds it and costs nothing in the usual case."""
    if len(memo) >= _MEMO_SIZE:
        memo.clear()
    memo[key] = value
    return value
