"""The time of an iteration from a calibrated roofline, in two look-ups and a closed form."""

from __future__ import annotations

from collections.abc import Iterator

from simloop.hardware.device import Device
from simloop.hardware.prices import Cost, Prices
from simloop.hardware.timing import IterationShape, OperatorTime
from simloop.model import Attention, Elementwise, Gemm, Model

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


class Roofline:
    """A :class:`~simloop.hardware.TimingModel` made of one :class:`~simloop.hardware.Prices` for each operator.

    Everything but attention depends only on the number of tokens (the language-model head and the sampler: of
    sequences), so it is priced once for each number. Attention of decoding requests depends on how many they are and
    how many tokens they attend to in all; attention of prompt chunks is a sum over the chunks. Kernels run one after
    another.

    Args:
        model: The model.
        device: The device.
        dtype: Precision; see :func:`serving_dtype`.
        cuda_graphs: Whether decode-only iterations are replayed from CUDA graphs. They then pay for one launch; other
            iterations last at least as long as launching their kernels one by one.

    Raises:
        InputError: The device's card states no peak for that precision.
    """

    def __init__(self, model: Model, device: Device, *, dtype: str | None = None, cuda_graphs: bool = True) -> None:
        self.dtype = serving_dtype(model, device, dtype)
        self.model = model.with_dtype(self.dtype)
        self.device = device
        self.largest_graph = LARGEST_GRAPH if cuda_graphs else 0
        self._prices = Prices(device, self.dtype)
        self._attention = model.attention
        self._layers = layers = model.num_layers
        self._launch_ns = 1e3 * device.calibration.launch.kernel_us
        self._kernels = sum(calls for _, calls in model.operators())
        self._by_tokens: dict[int, float] = {}
        self._by_sequences: dict[int, float] = {}
        self._window = self._attention.window
        # The price of decode attention is linear: a fixed part, a part by request, and two by attended token.
        fixed, one = self._prices.decode(self._attention, 0, 0), self._prices.decode(self._attention, 1, 0)
        many = self._prices.decode(self._attention, 1 << 40, 1 << 40)
        self._decode_fixed = layers * fixed.overhead
        self._decode_request = layers * one.memory
        self._decode_read = layers * (many.memory / (1 << 40) - one.memory)
        self._decode_compute = layers * many.compute / (1 << 40)

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
            if self._window is not None and context > decodes * self._window:
                context = decodes * self._window
            memory = context * self._decode_read + decodes * self._decode_request
            compute = context * self._decode_compute
            ns += self._decode_fixed + (memory if memory > compute else compute)
        chunks = shape.chunks
        if chunks:
            ns += self._layers * self._prices.prefill(self._attention, chunks).total
        if chunks or decodes > self.largest_graph:
            launching = self._kernels * self._launch_ns
            return int((ns if ns > launching else launching) + 0.5)
        return int(ns + self._launch_ns + 0.5)

    def explain(self, shape: IterationShape) -> list[OperatorTime]:
        """Return where the time of an iteration goes, in order of execution; the sum is :meth:`iteration_ns`."""
        lines = [
            OperatorTime(name, calls, calls * cost.total, cost.bound)
            for name, calls, cost in self._costs(shape)
            if calls
        ]
        kernels = sum(line.ns for line in lines)
        if shape.chunks or shape.num_decodes > self.largest_graph:
            waiting = max(0.0, self._kernels * self._launch_ns - kernels)
            return [*lines, OperatorTime("launch", self._kernels, waiting, "overhead")]
        return [*lines, OperatorTime("launch", 1, self._launch_ns, "overhead")]

    def _costs(self, shape: IterationShape) -> Iterator[tuple[str, int, Cost]]:
        for operator, calls in self.model.operators():
            rows = shape.num_sequences if operator.per == "sequence" else shape.num_tokens
            if isinstance(operator, Attention):
                if shape.chunks:
                    yield f"{operator.name} (prefill)", calls, self._prices.prefill(operator, shape.chunks)
                if shape.num_decodes:
                    cost = self._prices.decode(operator, shape.num_decodes, shape.decode_context)
                    yield f"{operator.name} (decode)", calls, cost
            elif rows:
                yield operator.name, calls, self._row_cost(operator, rows)

    def _row_cost(self, operator: Gemm | Elementwise, rows: int) -> Cost:
        return (
            self._prices.gemm(operator, rows)
            if isinstance(operator, Gemm)
            else self._prices.elementwise(operator, rows)
        )

    def _sum(self, per: str, rows: int) -> float:
        if rows == 0:
            return 0.0
        return sum(
            calls * self._row_cost(operator, rows).total
            for operator, calls in self.model.operators()
            if operator.per == per and not isinstance(operator, Attention)
        )

    def _price_tokens(self, tokens: int) -> float:
        return _remember(self._by_tokens, tokens, self._sum("token", tokens))

    def _price_sequences(self, sequences: int) -> float:
        return _remember(self._by_sequences, sequences, self._sum("sequence", sequences))


def _remember(memo: dict[int, float], key: int, value: float) -> float:
    """Store a price; a full table is emptied, which bounds it and costs nothing in the usual case."""
    if len(memo) >= _MEMO_SIZE:
        memo.clear()
    memo[key] = value
    return value
