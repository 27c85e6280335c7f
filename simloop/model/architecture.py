"""A model as the simulator sees it: sizes, operators, and the bytes it occupies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import attrs

from simloop.errors import InputError, did_you_mean
from simloop.model.attention import Attention, LatentAttention
from simloop.model.experts import Experts
from simloop.model.operators import Operator

__all__ = ["DTYPE_BYTES", "KV_DTYPE_BYTES", "Block", "Model", "dtype_bytes"]

DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
"""Bytes of one element, by the name that ``config.json`` and vLLM use."""

KV_DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}
"""Bytes of one element of the KV cache, by vLLM's names."""

Block: TypeAlias = tuple[Operator, ...]
"""The operators of one decoder block, in order of execution."""

_SHORT = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}


def dtype_bytes(dtype: str) -> int:
    """Return the bytes of one element of ``dtype``.

    Raises:
        InputError: The precision is unknown: quantised weights come from a model's ``quantization_config``.
    """
    try:
        return DTYPE_BYTES[_SHORT.get(dtype, dtype)]
    except KeyError:
        options = ", ".join(DTYPE_BYTES)
        raise InputError(f"unknown dtype {dtype!r}{did_you_mean(dtype, DTYPE_BYTES)} (there are: {options})") from None


@attrs.frozen
class Model:
    """A decoder-only transformer.

    Decoder blocks that are alike share one description: :attr:`layers` says which of :attr:`blocks` each layer is.
    :attr:`prologue` runs before the first, :attr:`epilogue` after the last.

    Attributes:
        name: Bundled name, or the name of the folder or file it was read from.
        family: ``model_type`` of its configuration, such as ``llama``.
        hidden_size: Width of the residual stream, elements.
        num_heads: Query heads.
        num_kv_heads: Key-value heads; as many as query heads with latent attention.
        head_dim: Elements of one head's query.
        intermediate_size: Width of the dense feed-forward layer, elements.
        vocab_size: Rows of the embedding table.
        max_model_len: Longest prompt plus output that the model was made for, tokens.
        tie_word_embeddings: Whether the language-model head shares the embedding's weight.
        dtype: Precision of activations, KV cache, and of weights that are not quantised.
        prologue: Operators before the decoder blocks.
        blocks: The kinds of decoder block.
        layers: Which of :attr:`blocks` each layer is.
        epilogue: Operators after the decoder blocks.
        quantization: ``quant_method`` of the weights, where they are quantised.
        kv_cache_dtype: Precision of the KV cache, ``auto`` for the activations'.
        source: Where the facts come from.
    """

    name: str
    family: str
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_model_len: int
    tie_word_embeddings: bool
    dtype: str
    prologue: Block
    blocks: tuple[Block, ...]
    layers: tuple[int, ...]
    epilogue: Block
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    source: str = ""

    @property
    def num_layers(self) -> int:
        """Decoder blocks."""
        return len(self.layers)

    @property
    def block(self) -> Block:
        """The kind of block that most layers are."""
        return self.blocks[max(range(len(self.blocks)), key=self.layers.count)]

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one element of activations, and of weights that are not quantised."""
        return dtype_bytes(self.dtype)

    @property
    def kv_dtype_bytes(self) -> int:
        """Bytes of one element of the KV cache."""
        return KV_DTYPE_BYTES.get(self.kv_cache_dtype, self.dtype_bytes)

    @property
    def num_parameters(self) -> int:
        """Weights, elements; tied weights count once."""
        return sum(operator.parameters * calls for operator, calls in self.operators())

    @property
    def num_active_parameters(self) -> int:
        """Weights that one token meets, elements: all but the experts it is not routed to."""
        idle = sum(
            (operator.num_experts - operator.top_k) * operator.expert_parameters * calls
            for operator, calls in self.operators()
            if isinstance(operator, Experts)
        )
        return self.num_parameters - idle

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights occupy, bytes."""
        return sum(operator.weight_bytes(self.dtype_bytes) * calls for operator, calls in self.operators())

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache of one token, all layers, bytes: ``2 · layers · KV heads · head_dim · b``; latent less."""
        elements = sum(
            operator.kv_elements * calls
            for operator, calls in self.operators()
            if isinstance(operator, Attention | LatentAttention)
        )
        return elements * self.kv_dtype_bytes

    @property
    def attention(self) -> Attention | LatentAttention:
        """The attention operator of the usual decoder block."""
        return next(operator for operator in self.block if isinstance(operator, Attention | LatentAttention))

    def operators(self) -> Iterator[tuple[Operator, int]]:
        """Yield every operator of an iteration, with how often it runs; blocks that are alike together."""
        yield from ((operator, 1) for operator in self.prologue)
        for kind, block in enumerate(self.blocks):
            yield from ((operator, self.layers.count(kind)) for operator in block)
        yield from ((operator, 1) for operator in self.epilogue)

    def with_dtype(self, dtype: str | None) -> Model:
        """Return the model in another precision; ``None`` and ``"auto"`` keep its own. Quantised weights stay so.

        Raises:
            InputError: The precision is unknown.
        """
        if dtype is None or dtype == "auto":
            return self
        dtype_bytes(dtype)
        return attrs.evolve(self, dtype=_SHORT.get(dtype, dtype))

    def with_kv_cache_dtype(self, dtype: str | None) -> Model:
        """Return the model with its KV cache in another precision; ``None`` and ``"auto"`` keep its own.

        Raises:
            InputError: The precision is unknown.
        """
        if dtype is None or dtype == "auto":
            return self
        if dtype not in KV_DTYPE_BYTES:
            options = ", ".join(["auto", *KV_DTYPE_BYTES])
            near = did_you_mean(dtype, KV_DTYPE_BYTES)
            raise InputError(f"unknown kv_cache_dtype {dtype!r}{near} (there are: {options})")
        return attrs.evolve(self, kv_cache_dtype=dtype)
