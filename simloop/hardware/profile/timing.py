"""The time of an iteration out of measured layers, in two look-ups and a line between two points."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import attrs

from simloop.errors import InputError
from simloop.hardware.device import Device
from simloop.hardware.profile.attention import AttentionGrid
from simloop.hardware.profile.bundle import ONCE, TWICE, Bundle, load_bundle
from simloop.hardware.profile.collectives import AllReduce
from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.domain import DomainWatch
from simloop.hardware.profile.mix import DecodeRow, extremes, merged
from simloop.hardware.profile.moe import expert_load
from simloop.hardware.profile.overheads import Overheads
from simloop.hardware.profile.reading import has_table
from simloop.hardware.profile.tail import Tail
from simloop.hardware.timing import IterationShape, OperatorTime
from simloop.model import (
    Attention,
    Collective,
    Experts,
    LatentAttention,
    Model,
    Operator,
    Plan,
    Routing,
    Stage,
    load_model,
    model_names,
    shard,
)

__all__ = ["MeasuredTime", "ProfileTiming"]

_MEMO_SIZE = 1 << 16
_MEASURED_AS = {"input_layernorm": "layernorm", "post_attention_layernorm": "layernorm"}


@attrs.frozen
class MeasuredTime(OperatorTime):
    """One line of an explanation, with where it comes from.

    Attributes:
        source: The measurements.
        domain: What they cover, and what was asked.
        inside: Whether the question lies within.
    """

    source: str = ""
    domain: str = ""
    inside: bool = True


class ProfileTiming:
    """A :class:`~simloop.hardware.TimingModel` of measured layers, composed as LLMServingSim 2.0 does it.

    An iteration is: each dense layer at the number of tokens, attention in one look-up for the whole step (the chunks
    of all prompts as one, decodes at the mean of their contexts, corrected for unequal ones), both times the number of
    decoder blocks; embedding, last norm, ``lm_head`` and sampler once; two all-reduces a block if the model is split;
    token ids to the host and back. Every look-up is cut to whole nanoseconds.

    Data-parallel ranks that share experts iterate together, each with as many tokens as the one that has the most (see
    :class:`~simloop.serving.Lockstep`): dense layers work on these, attention on the rank's own, the experts on those
    of all ranks. In every block an all-gather brings the tokens together, hidden states and what the router says of
    each expert, and a reduce-scatter takes the sums back.

    Args:
        bundle: Layer profiles, or where they are (see :func:`load_bundle`).
        model: The model: its number of blocks and its width.
        tp: Degree of tensor parallelism.
        all_reduce: What an all-reduce takes, and its halves; needed if ``tp`` or ``dp`` is larger than 1.
        host_bandwidth_gb_s: Bandwidth of the host's memory for token ids, GB/s; ``None`` leaves the transfers out.
        ep: Degree of expert parallelism, where the model has experts.
        dp: Data-parallel ranks that share the experts.
        pp: Pipeline stages.
        stage: The stage to price: embedding and token ids are the first one's, the head and new ids the last one's.
        routing: How tokens spread over experts; ``None`` is the reference's rule.
        overheads: What the engine adds; ``None`` is the reference's composition, kernels alone.
        strict: Whether leaving the measured domain is an error; else it is a warning, once for each axis.
        device: The device's card, for its number of multiprocessors; without it there is no ``attention_tail``.

    Raises:
        InputError: The profiles are not right, or do not fit the model or the other arguments.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        model: Model,
        *,
        tp: int = 1,
        all_reduce: AllReduce | None = None,
        host_bandwidth_gb_s: float | None = 256.0,
        ep: int = 1,
        dp: int = 1,
        pp: int = 1,
        stage: int | None = None,
        routing: Routing | None = None,
        overheads: Overheads | None = None,
        strict: bool = False,
        device: Device | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else load_bundle(bundle, tp=tp)
        self.model = model
        self.domain = DomainWatch(self.bundle.source, strict)
        self._tp = tp
        self._all_reduce = all_reduce
        self._host = host_bandwidth_gb_s
        self._experts = next((op for op, _ in model.operators() if isinstance(op, Experts)), None)
        self._ep, self._dp, self._routing = ep, dp, routing
        self.overheads = overheads or Overheads()
        self._has_floor = self.overheads.floor_ns(1) > 0
        _check_model(self.bundle, model)
        _check(self.bundle, tp, ep, dp, all_reduce, self._experts)
        grid = self.bundle.attention
        self._last = grid.chunks[-1], grid.last_history, grid.decodes[-1], grid.last_context
        plan = Plan(tensor_parallel=tp, pipeline_parallel=pp, data_parallel=dp, expert_parallel=ep > 1)
        if stage is None and pp > 1:
            raise InputError(f"a plan of {pp} pipeline stages: choose one of them")
        self._plan, self._stage = plan, stage or 0
        self._opens, self._closes = self._stage == 0, self._stage == pp - 1
        self._layers = len(plan.stage_layers(model.num_layers)[self._stage])
        self._prefill_ns = self.overheads.prefill_ns(self._layers)
        self._tail = _tail(model, tp, grid, device) if self.overheads.attention_tail else None
        self._by_tokens: dict[int, int] = {}
        self._by_sequences: dict[int, int] = {}
        self._rows: dict[int, DecodeRow] = {}
        self._row = self._add_row(1)

    def iteration_ns(self, shape: IterationShape) -> int:
        """Return the duration of one iteration, nanoseconds."""
        tokens, sequences, decodes = shape.num_tokens, shape.num_sequences, shape.num_decodes
        ns = self._by_tokens.get(tokens)
        if ns is None:
            ns = self._price_tokens(tokens)
        head = self._by_sequences.get(sequences)
        if head is None:
            head = self._price_sequences(sequences)
        if shape.chunks or not decodes:
            return self._with_prompts(shape, ns + head)
        row = self._row
        if row.decodes != decodes:
            row = self._row = self._rows.get(decodes) or self._add_row(decodes)
        mean = shape.decode_context // decodes - 1
        if not row.low <= mean < row.high:
            row.move(mean)
        time = row.base + row.rise * (mean - row.low) / (row.high - row.low)
        if row.skewed:
            longest = shape.decode_context_max - 1
            if longest != mean:
                time = row.corrected(time, mean, shape.decode_context_min - 1, longest)
        ns += head + self._layers * int(time)
        return max(ns, self.overheads.floor_ns(sequences)) if self._has_floor else ns

    def explain(self, shape: IterationShape) -> list[OperatorTime]:
        """Return where the time of an iteration goes; the sum is :meth:`iteration_ns`.

        Every line is a :class:`MeasuredTime`.
        """
        rows = self.overheads.padded(shape.num_tokens)
        lines = [self._line(name, calls, curve, rows) for name, calls, curve in self._token_layers()]
        if shape.num_decodes or shape.chunks:
            lines.append(self._attention_line(shape))
        if self._experts is not None:
            lines += self._expert_lines(rows)
        if self._tp > 1:
            lines.append(self._all_reduce_line(rows))
        heads = self._heads().items()
        lines += [self._line(name, 1, curve, shape.num_sequences) for name, curve in heads]
        host = self._host_ns(shape.num_tokens)
        lines.append(
            MeasuredTime(
                "token ids", self._opens + self._closes, host, "memory", f"{self._host or 0:g} GB/s host memory"
            )
        )
        waiting = self.iteration_ns(shape) - sum(line.ns for line in lines)
        return [*lines, MeasuredTime("host", 1, waiting, "overhead", "overheads of the engine")]

    @cached_property
    def stage(self) -> Stage:
        """The operators in order of execution, with the exchanges that ``tp`` and ``ep`` take."""
        return shard(self.model, self._plan)[self._stage]

    def operator_ns(self, operator: Operator, shape: IterationShape) -> float:
        """Return the time of one call of an operator, nanoseconds; 0 where nothing was measured under its name."""
        rows = self.overheads.padded(shape.num_tokens)
        if isinstance(operator, Attention | LatentAttention):
            return self._attention_ns(shape) if shape.chunks or shape.num_decodes else 0.0
        if isinstance(operator, Experts):
            return self._experts_ns(self._dp * rows)
        if isinstance(operator, Collective):
            return self._collective_ns(operator, rows)
        if operator.per == "sequence":
            heads = self.bundle.per_sequence
            known = shape.num_sequences and operator.name in heads
            return self._layer_ns(heads[operator.name], "sequences", shape.num_sequences) if known else 0
        curve = self.bundle.dense.get(_MEASURED_AS.get(operator.name, operator.name))
        return 0 if curve is None else self._layer_ns(curve, "tokens", rows)

    def _collective_ns(self, operator: Collective, rows: int) -> int:
        """Return the time of an exchange within a block; those before and after the blocks were not measured."""
        if operator.name in ("embedding_all_reduce", "logits_all_gather"):
            return 0
        if operator.kind == "all_reduce":
            return self._all_reduce_ns(rows)
        dispatch, combine = self._exchange_ns(rows)
        return dispatch if operator.kind == "all_gather" else combine

    # -- by tokens and sequences -------------------------------------------------------------------------------

    def _token_layers(self) -> list[tuple[str, int, Curve]]:
        blocks = self._layers
        return [
            (name, 1 if name in ONCE else 2 * blocks if name in TWICE else blocks, curve)
            for name, curve in self.bundle.dense.items()
            if name not in ONCE or (self._opens if name == "embedding" else self._closes)
        ]

    def _heads(self) -> dict[str, Curve]:
        """Return what is done once for each sequence, in the last stage."""
        return dict(self.bundle.per_sequence) if self._closes else {}

    def _price_tokens(self, tokens: int) -> int:
        rows = self.overheads.padded(tokens)
        ns = sum(calls * self._layer_ns(curve, "tokens", rows) for _, calls, curve in self._token_layers())
        if self._tp > 1:
            ns += 2 * self._layers * self._all_reduce_ns(rows)
        if self._experts is not None:
            ns += self._layers * (self._experts_ns(self._dp * rows) + sum(self._exchange_ns(rows)))
        return _remember(self._by_tokens, tokens, ns + self._host_ns(tokens))

    def _price_sequences(self, sequences: int) -> int:
        curves = self._heads().values() if sequences else ()
        ns = sum(self._layer_ns(curve, "sequences", sequences) for curve in curves)
        ns += self.overheads.sequences_ns(sequences, self.model.vocab_size) if self._closes else 0
        return _remember(self._by_sequences, sequences, ns + self.overheads.step_ns())

    def _layer_ns(self, curve: Curve, axis: str, point: int) -> int:
        self.domain.check(axis, point, curve.last)
        return max(1, int(curve.at(point)))

    def _host_ns(self, tokens: int) -> int:
        """Two ids of two bytes for each token in, one of four out."""
        return (self._opens + self._closes) * int(4 * tokens / self._host) if self._host else 0

    def _all_reduce_ns(self, tokens: int) -> int:
        num_bytes = tokens * self.model.hidden_size * self.model.dtype_bytes
        return 0 if self._all_reduce is None else self._all_reduce.all_reduce_ns(num_bytes, self._tp)

    def _exchange_ns(self, rows: int) -> tuple[int, int]:
        """Return the time of dispatch and combine in one block, for so many tokens on each data-parallel rank."""
        if self._dp == 1 or self._experts is None or self._all_reduce is None:
            return 0, 0
        width, size = self.model.hidden_size, self._dp * rows * self.model.dtype_bytes
        dispatch = self._all_reduce.all_gather_ns(size * (width + self._experts.num_experts), self._dp)
        return dispatch, self._all_reduce.reduce_scatter_ns(size * width, self._dp)

    def _experts_ns(self, tokens: int) -> int:
        """Return the time of one block's experts, for the tokens of all data-parallel ranks."""
        if self._experts is None or self.bundle.moe is None:
            return 0
        local, activated = expert_load(self._experts, tokens, self._ep, self._routing)
        self.domain.check("tokens of experts", local, self.bundle.moe.last_tokens)
        return max(1, int(self.bundle.moe.at(local, activated)))

    # -- attention ---------------------------------------------------------------------------------------------

    def _add_row(self, decodes: int) -> DecodeRow:
        self.domain.check("n_decode", decodes, self.bundle.attention.decodes[-1])
        row = self._rows[decodes] = DecodeRow(decodes, self.bundle.attention, self.bundle.skew, self.domain, self._tail)
        return row

    def _decode_ns(self, shape: IterationShape) -> int:
        """Return one layer's attention of a step without prompts, as :meth:`iteration_ns` counts it."""
        row, mean = self._add_row(shape.num_decodes), shape.decode_context // shape.num_decodes - 1
        row.move(mean)
        time = row.base + row.rise * (mean - row.low) / (row.high - row.low)
        longest = shape.decode_context_max - 1
        return int(row.corrected(time, mean, shape.decode_context_min - 1, longest) if longest != mean else time)

    def _with_prompts(self, shape: IterationShape, ns: int) -> int:
        if shape.chunks:
            ns += self._layers * self._attention_ns(shape) + self._prefill_ns
        return max(ns, self.overheads.floor_ns(shape.num_sequences)) if self._has_floor else ns

    def _attention_ns(self, shape: IterationShape) -> int:
        """Return one layer's attention of any step that has some."""
        if not shape.chunks:
            return self._decode_ns(shape)
        split = self.overheads.attention_per_prompt
        return max(1, int(self._split(shape) if split else self._merged(shape)))

    def _split(self, shape: IterationShape) -> float:
        """Each prompt by itself; what the decodes add is measured beside one chunk of all the prompts' tokens."""
        chunk, history, decodes, mean = merged(shape)
        self._inside(chunk, history, decodes, mean)
        grid, chunks = self.bundle.attention, shape.chunks
        if decodes and len(chunks) == 1:
            return grid.at(chunk, history, decodes, mean)
        time = 0.0
        for new, cached in chunks:
            if new > 1:
                time += grid.prompt(new, cached)
        if decodes:
            time += grid.at(chunk, history, decodes, mean)
            time -= grid.prompt(chunk, history) if chunk else 0.0
        return time

    def _merged(self, shape: IterationShape) -> float:
        """All prompts as one chunk, beside the decodes at the mean of their contexts, corrected if unequal."""
        chunk, history, decodes, mean = merged(shape)
        if self.bundle.skew is None or decodes < 2:
            self._inside(chunk, history, decodes, mean)
            return self.bundle.attention.at(chunk, history, decodes, mean)
        if decodes == shape.num_decodes:
            shortest, longest = shape.decode_context_min - 1, shape.decode_context_max - 1
        else:
            shortest, longest = extremes(shape)
        self._inside(chunk, history, decodes, longest)
        time = self.bundle.attention.at(chunk, history, decodes, mean)
        if longest == mean:
            return time
        alpha = self.bundle.skew.alpha(chunk, history, decodes, (mean - shortest) / (longest - shortest), longest)
        upper = self.bundle.attention.at(chunk, history, decodes, longest) if alpha else time
        return time + alpha * (upper - time) if upper > time else time

    def _inside(self, chunk: int, history: int, decodes: int, context: int) -> bool:
        """Return whether a step lies within the attention table; if not, say so."""
        last_chunk, last_history, last_decodes, last_context = self._last
        if chunk <= last_chunk and history <= last_history and decodes <= last_decodes and context <= last_context:
            return True
        for axis, value, last in (
            ("prefill_chunk", chunk, last_chunk),
            ("kv_prefill", history, last_history),
            ("n_decode", decodes, last_decodes),
            ("kv_decode", context, last_context),
        ):
            self.domain.check(axis, value, last)
        return False

    # -- explanations ------------------------------------------------------------------------------------------

    def _line(self, name: str, calls: int, curve: Curve, point: int) -> MeasuredTime:
        ns = calls * max(1, int(curve.at(point))) if point else 0
        domain = f"{curve.first} to {curve.last}, asked {point}"
        return MeasuredTime(name, calls, ns, "measured", self.bundle.source, domain, point <= curve.last)

    def _attention_line(self, shape: IterationShape) -> MeasuredTime:
        split = self.overheads.attention_per_prompt and shape.chunks
        ns = self._layers * self._attention_ns(shape)
        chunk, history, decodes, mean = merged(shape)
        longest, grid = extremes(shape)[1], self.bundle.attention
        domain = (
            f"prefill_chunk to {grid.chunks[-1]}, asked {chunk}; kv_prefill to {grid.last_history}, asked "
            f"{history}; n_decode to {grid.decodes[-1]}, asked {decodes}; kv_decode to {grid.last_context}, "
            f"asked {mean} on average and at most {longest}"
        )
        inside = self._inside(chunk, history, decodes, mean if split else longest)
        return MeasuredTime("attention", self._layers, ns, "measured", self.bundle.source, domain, inside)

    def _expert_lines(self, rows: int) -> list[MeasuredTime]:
        calls, tokens = self._layers, self._dp * rows
        ns = calls * self._experts_ns(tokens)
        lines = [MeasuredTime("experts", calls, ns, "measured", self.bundle.source, f"asked {tokens} tokens")]
        if self._dp > 1 and self._all_reduce is not None:
            for name, one in zip(("dispatch", "combine"), self._exchange_ns(rows), strict=True):
                lines.append(MeasuredTime(name, calls, calls * one, "link", self._all_reduce.source))
        return lines

    def _all_reduce_line(self, tokens: int) -> MeasuredTime:
        calls, source = 2 * self._layers, "" if self._all_reduce is None else self._all_reduce.source
        return MeasuredTime("all_reduce", calls, calls * self._all_reduce_ns(tokens), "link", source)


def _check(bundle: Bundle, tp: int, ep: int, dp: int, all_reduce: AllReduce | None, experts: Experts | None) -> None:
    if bundle.tp != tp:
        raise InputError(f"the profiles are of tp {bundle.tp}, asked for was tp {tp}", file=bundle.folder)
    if tp > 1 and all_reduce is None:
        raise InputError(f"tp {tp} needs to know what an all-reduce takes (a RingLink or a measured table)")
    if dp > 1 and all_reduce is None:
        reason = "what its ranks exchange is priced by the halves of an all-reduce (a RingLink or a measured table)"
        raise InputError(f"dp {dp} needs all_reduce: {reason}")
    if dp > 1 and ep == 1 and experts is not None:
        raise InputError(f"has whole experts only: dp {dp} takes enable_expert_parallel", file=bundle.folder)
    if tp > 1 and ep == 1 and bundle.moe is not None and has_table(bundle.folder, "moe") is None:
        raise InputError(f"has whole experts only (from tp1): tp {tp} takes ep {tp}", file=bundle.folder)
    if (bundle.moe is None) != (experts is None):
        has, lacks = ("the profiles", "the model") if experts is None else ("the model", "the profiles")
        raise InputError(
            f"{has} have experts, {lacks} have none".replace("model have", "model has"), file=bundle.folder
        )


def _check_model(bundle: Bundle, model: Model) -> None:
    """Stop where ``meta.yaml`` names a bundled model whose layers have other sizes; how many layers is no matter."""
    measured = str(bundle.meta.get("model", ""))
    name = measured.rpartition("/")[2].lower()
    if name in model_names() and _sizes(load_model(name)) != _sizes(model):
        raise InputError(
            f"the profiles are of {measured}, whose layers have other sizes than those of {model.name}",
            file=bundle.folder,
        )


def _sizes(model: Model) -> tuple[int, ...]:
    return model.hidden_size, model.num_heads, model.num_kv_heads, model.head_dim, model.intermediate_size


def _tail(model: Model, tp: int, grid: AttentionGrid, device: Device | None) -> Tail | None:
    if device is None or device.peak_identity is None:
        return None
    return Tail.of(grid, max(1, model.num_kv_heads // tp), device.peak_identity.units)


def _remember(memo: dict[int, int], key: int, value: int) -> int:
    if len(memo) >= _MEMO_SIZE:
        memo.clear()
    memo[key] = value
    return value
