"""One rank's part of a model: operators cut by a plan, with the collectives that this takes."""

from __future__ import annotations

import math
from collections.abc import Iterator

import attrs

from simloop.errors import InputError
from simloop.model.architecture import Block, Model
from simloop.model.attention import Attention, LatentAttention
from simloop.model.experts import Experts
from simloop.model.operators import Collective, Elementwise, Gemm, Operator
from simloop.model.plan import Plan

__all__ = ["Stage", "exchanged_bytes", "shard"]

_PADDING = 64
"""vLLM pads the vocabulary to a multiple of this before it divides it."""


@attrs.frozen
class Stage:
    """What one rank of a pipeline stage runs in an iteration. All tensor-parallel ranks of a stage do the same.

    Attributes:
        index: Which stage.
        operators: Every operator with how often it runs; layers that are alike together, in order otherwise.
        order: What runs one after another: the operators of each layer with its number in the model, and what runs
            before the first and after the last layer with ``None``.
        send_elements: Elements that a token takes to the next stage, before they are divided over tensor-parallel
            ranks: the hidden state and the residual; 0 after the last stage.
        tensor_parallel: Ranks that share every layer.
    """

    index: int
    operators: tuple[tuple[Operator, int], ...]
    order: tuple[tuple[int | None, Block], ...]
    send_elements: int = 0
    tensor_parallel: int = 1

    @property
    def last(self) -> bool:
        """Whether the tokens are drawn here."""
        return self.send_elements == 0

    def weight_bytes(self, dtype_bytes: int) -> int:
        """Return the bytes of this rank's weights."""
        return sum(operator.weight_bytes(dtype_bytes) * calls for operator, calls in self.operators)

    def attentions(self) -> Iterator[tuple[Attention | LatentAttention, int]]:
        """Yield the different attention operators, with the number of their layers."""
        found: dict[Attention | LatentAttention, int] = {}
        for operator, calls in self.operators:
            if isinstance(operator, Attention | LatentAttention):
                found[operator] = found.get(operator, 0) + calls
        yield from found.items()

    def walk(self) -> Iterator[tuple[str, int | None, Operator]]:
        """Yield every call of an operator in order of execution: its path (``layers.3.o_proj``), its layer, itself."""
        for layer, block in self.order:
            prefix = "" if layer is None else f"layers.{layer}."
            yield from ((f"{prefix}{operator.name}", layer, operator) for operator in block)


def shard(model: Model, plan: Plan) -> tuple[Stage, ...]:
    """Return one rank of each pipeline stage.

    Raises:
        InputError: Heads, widths or experts cannot be divided by the plan, or there are fewer layers than stages.
    """
    cut = _Cut(model, plan)
    blocks = [cut.block(block) for block in model.blocks]
    spans = plan.stage_layers(model.num_layers)
    return tuple(cut.stage(index, blocks, span, len(spans)) for index, span in enumerate(spans))


def exchanged_bytes(model: Model, plan: Plan) -> tuple[int, int]:
    """Return what each data-parallel rank gets from the others in an iteration, for every token that a rank has, bytes.

    The two are the dispatch of tokens to the experts and the combining of their outputs, over all layers. With
    everything gathered and the sums scattered, ``n`` ranks of a model of width ``h`` with ``E`` experts get
    ``(n - 1) (h + E)`` and ``(n - 1) h`` elements a token and layer.
    """
    found = {"dispatch": 0, "combine": 0}
    for stage in shard(model, plan):
        for operator, calls in stage.operators:
            if isinstance(operator, Collective) and operator.name in found:
                from_others = operator.elements * (operator.ranks - 1) // operator.ranks
                found[operator.name] += calls * from_others * model.dtype_bytes
    return found["dispatch"], found["combine"]


@attrs.frozen
class _Cut:
    """Cuts the operators of one model by one plan."""

    model: Model
    plan: Plan

    def stage(self, index: int, blocks: list[Block], span: range, stages: int) -> Stage:
        """Return one rank of a stage that runs the layers of ``span``."""
        kinds = [self.model.layers[layer] for layer in span]
        last = index == stages - 1
        prologue = self.block(self.model.prologue) if index == 0 else ()
        epilogue = self.block(self.model.epilogue) if last else ()
        if stages > 1:
            epilogue = tuple(_untied(operator) for operator in epilogue)
        found = [(operator, 1) for operator in prologue]
        for kind in sorted(set(kinds)):
            found += [(operator, kinds.count(kind)) for operator in blocks[kind]]
        found += [(operator, 1) for operator in epilogue]
        layers = [(layer, blocks[kind]) for layer, kind in zip(span, kinds, strict=True)]
        sent = 0 if last else 2 * self.model.hidden_size
        order = ((None, prologue), *layers, (None, epilogue))
        return Stage(index, tuple(found), order, sent, self.plan.tensor_parallel)

    def block(self, block: Block) -> Block:
        """Return one rank's operators of a block, with its collectives."""
        return tuple(piece for operator in block for piece in self._cut(operator))

    def _cut(self, operator: Operator) -> Iterator[Operator]:
        if isinstance(operator, Experts):
            yield from self._experts(operator)
        elif isinstance(operator, Gemm):
            yield from self._gemm(operator)
        elif isinstance(operator, Elementwise):
            yield from self._elementwise(operator)
        elif isinstance(operator, Attention):
            heads, kv_heads = self._heads(operator)
            yield attrs.evolve(operator, num_heads=heads, num_kv_heads=kv_heads)
        elif isinstance(operator, LatentAttention):
            yield attrs.evolve(operator, num_heads=self._divided(operator.num_heads, "attention heads"))
        else:
            yield operator

    def _gemm(self, gemm: Gemm) -> Iterator[Operator]:
        ranks, hidden = self.plan.tensor_parallel, self.model.hidden_size
        if ranks == 1 or gemm.split == "none":
            yield gemm
        elif gemm.split in ("row", "partial"):
            yield attrs.evolve(gemm, k=self._divided(gemm.k, f"inputs of {gemm.name}"))
            if gemm.split == "row":
                yield Collective(f"{gemm.name}_all_reduce", "all_reduce", hidden, ranks, gemm.per)
        elif gemm.split == "vocab":
            yield attrs.evolve(gemm, n=self._vocabulary())
            yield Collective("logits_all_gather", "all_gather", gemm.n, ranks, gemm.per)
        elif gemm.split == "qkv":
            yield attrs.evolve(gemm, n=self._by_heads(gemm.n, 2))
        else:
            yield attrs.evolve(gemm, n=self._divided(gemm.n, f"outputs of {gemm.name}"))

    def _elementwise(self, operator: Elementwise) -> Iterator[Operator]:
        ranks = self.plan.tensor_parallel
        if ranks == 1 or operator.split == "none":
            yield operator
        elif operator.split == "vocab":
            table = operator.parameters - self.model.vocab_size * self.model.hidden_size
            yield attrs.evolve(operator, parameters=table + self._vocabulary() * self.model.hidden_size)
            yield Collective("embedding_all_reduce", "all_reduce", self.model.hidden_size, ranks)
        elif operator.split == "qk":
            yield attrs.evolve(operator, moved=self._by_heads(operator.moved, 1))
        else:
            yield attrs.evolve(operator, moved=math.ceil(operator.moved / ranks))

    def _experts(self, experts: Experts) -> Iterator[Operator]:
        plan, hidden = self.plan, experts.hidden
        mine = attrs.evolve(experts, gathered=plan.data_parallel)
        if plan.expert_parallel:
            mine = attrs.evolve(mine, local=math.ceil(experts.num_experts / plan.expert_ranks))
        else:
            mine = attrs.evolve(mine, width=self._divided(experts.width, "width of an expert", plan.expert_ranks))
        yield from self._exchange("dispatch", "all_gather", hidden + experts.num_experts, experts.top_k * hidden)
        yield mine
        yield from self._exchange("combine", "reduce_scatter", hidden, experts.top_k * hidden)
        if plan.tensor_parallel > 1:
            yield Collective(f"{experts.name}_all_reduce", "all_reduce", hidden, plan.tensor_parallel)

    def _exchange(self, name: str, kind: str, elements: int, pairs: int) -> Iterator[Operator]:
        """Yield what data-parallel ranks exchange before and after the experts."""
        ranks = self.plan.data_parallel
        if ranks == 1:
            return
        if self.plan.all2all_backend == "all_to_all":
            yield Collective(name, "all_to_all", pairs, ranks)
        else:
            yield Collective(name, "all_gather" if kind == "all_gather" else "reduce_scatter", elements * ranks, ranks)

    def _heads(self, attention: Attention) -> tuple[int, int]:
        """Return query and key-value heads of one rank; the latter are copied where there are more ranks than heads."""
        ranks, kv_heads = self.plan.tensor_parallel, attention.num_kv_heads
        if max(ranks, kv_heads) % min(ranks, kv_heads):
            raise self._error(kv_heads, "key-value heads", ranks)
        return self._divided(attention.num_heads, "attention heads"), max(1, kv_heads // ranks)

    def _by_heads(self, elements: int, weight: int) -> int:
        """Return one rank's part of ``elements`` that belong to query heads and ``weight`` times key-value heads."""
        attention = next(operator for operator in self.model.block if isinstance(operator, Attention))
        heads, kv_heads = self._heads(attention)
        return elements * (heads + weight * kv_heads) // (attention.num_heads + weight * attention.num_kv_heads)

    def _vocabulary(self) -> int:
        padded = math.ceil(self.model.vocab_size / _PADDING) * _PADDING
        return math.ceil(padded / self.plan.tensor_parallel)

    def _divided(self, size: int, what: str, ranks: int | None = None) -> int:
        ranks = ranks or self.plan.tensor_parallel
        if size % ranks:
            raise self._error(size, what, ranks)
        return size // ranks

    def _error(self, size: int, what: str, ranks: int) -> InputError:
        return InputError(f"{self.model.name} cannot be divided over {ranks} ranks: {size} {what}")


def _untied(operator: Operator) -> Operator:
    """Return the head with a weight of its own: on another device than the embedding it cannot share it."""
    return attrs.evolve(operator, tied=False) if isinstance(operator, Gemm) and operator.tied else operator
