"""A model as the simulator sees it: sizes, operators, and the bytes it occupies."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from simloop.errors import InputError, did_you_mean
from simloop.model.operators import Attention, Operator

__all__ = ["DTYPE_BYTES", "Model", "dtype_bytes"]

DTYPE_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
"""Bytes of one element, by the name that ``config.json`` and vLLM use."""

_SHORT = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}


def dtype_bytes(dtype: str) -> int:
    """Return the bytes of one element of ``dtype``.

    Raises:
        InputError: The precision is unknown or not supported yet (quantised weights come later).
    """
    try:
        return DTYPE_BYTES[_SHORT.get(dtype, dtype)]
    except KeyError:
        options = ", ".join(DTYPE_BYTES)
        raise InputError(f"unknown dtype {dtype!r}{did_you_mean(dtype, DTYPE_BYTES)} (there are: {options})") from None


@attrs.frozen
class Model:
    """A dense decoder-only transformer.

    One decoder block stands for all of them; :attr:`prologue` runs before the first, :attr:`epilogue` after the last.

    Attributes:
        name: Bundled name, or the name of the folder or file it was read from.
        family: ``model_type`` of its configuration, such as ``llama``.
        hidden_size: Width of the residual stream, elements.
        num_layers: Decoder blocks.
        num_heads: Query heads.
        num_kv_heads: Key-value heads.
        head_dim: Elements of one head.
        intermediate_size: Width of the feed-forward layer, elements.
        vocab_size: Rows of the embedding table.
        max_model_len: Longest prompt plus output that the model was made for, tokens.
        tie_word_embeddings: Whether the language-model head shares the embedding's weight.
        dtype: Precision of weights, activations and KV cache.
        prologue: Operators before the decoder blocks.
        block: Operators of one decoder block, in order of execution.
        epilogue: Operators after the decoder blocks.
        source: Where the facts come from.
    """

    name: str
    family: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_model_len: int
    tie_word_embeddings: bool
    dtype: str
    prologue: tuple[Operator, ...]
    block: tuple[Operator, ...]
    epilogue: tuple[Operator, ...]
    source: str = ""

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one element of weights and KV cache."""
        return dtype_bytes(self.dtype)

    @property
    def num_parameters(self) -> int:
        """Weights, elements; tied weights count once."""
        return sum(operator.parameters * calls for operator, calls in self.operators())

    @property
    def weight_bytes(self) -> int:
        """Memory that the weights occupy, bytes."""
        return self.num_parameters * self.dtype_bytes

    @property
    def kv_bytes_per_token(self) -> int:
        """KV cache of one token, all layers, bytes: ``2 · layers · KV heads · head_dim · b``."""
        return self.num_layers * self.attention.kv_elements * self.dtype_bytes

    @property
    def attention(self) -> Attention:
        """The attention operator of a decoder block."""
        return next(operator for operator in self.block if isinstance(operator, Attention))

    def operators(self) -> Iterator[tuple[Operator, int]]:
        """Yield every operator of an iteration in order, with how often it runs."""
        yield from ((operator, 1) for operator in self.prologue)
        yield from ((operator, self.num_layers) for operator in self.block)
        yield from ((operator, 1) for operator in self.epilogue)

    def with_dtype(self, dtype: str | None) -> Model:
        """Return the model in another precision; ``None`` and ``"auto"`` keep its own.

        Raises:
            InputError: The precision is unknown.
        """
        if dtype is None or dtype == "auto":
            return self
        dtype_bytes(dtype)
        return attrs.evolve(self, dtype=_SHORT.get(dtype, dtype))
