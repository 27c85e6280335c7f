"""Attention over the KV cache: by heads (MHA, GQA, MQA), and latent (MLA)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

__all__ = ["Attention", "LatentAttention", "Rows"]

Rows: TypeAlias = Literal["token", "sequence"]


@attrs.frozen
class Attention:
    """Softmax attention over the KV cache, MHA, GQA or MQA by its head counts.

    Attributes:
        name: The operator's name.
        num_heads: Query heads.
        num_kv_heads: Key-value heads.
        head_dim: Elements of one head.
        window: Tokens that a token can look back on (sliding window), or ``None`` for all.
        parameters: Stored weights, elements (attention sinks).
    """

    name: str
    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None = None
    per: Rows = "token"
    parameters: int = 0

    @property
    def kv_elements(self) -> int:
        """Elements that one token leaves in the KV cache of one layer: a key and a value for each KV head."""
        return 2 * self.num_kv_heads * self.head_dim

    @property
    def pair_flops(self) -> int:
        """Multiplications and additions of one (query, key) pair, all heads: ``q k`` and ``p v``."""
        return 4 * self.num_heads * self.head_dim

    @property
    def decode_flops(self) -> int:
        """The same for a token that decodes."""
        return self.pair_flops

    @property
    def row_elements(self) -> int:
        """Elements of the query and of the output of one new token."""
        return 2 * self.num_heads * self.head_dim

    @property
    def decode_row_elements(self) -> int:
        """The same for a token that decodes."""
        return self.row_elements

    @property
    def context_elements(self) -> int:
        """Elements of keys and values that prefill reads for each token of the context."""
        return self.kv_elements

    @property
    def expand_flops(self) -> int:
        """Multiplications and additions to make keys and values of one cached token before prefill reads them."""
        return 0

    def weight_bytes(self, dtype_bytes: int) -> int:
        """Return the bytes that the weights occupy."""
        return self.parameters * dtype_bytes

    def attended(self, new: int, cached: int) -> int:
        """Return how many (query, key) pairs are formed by ``new`` tokens after ``cached`` ones, causally.

        Token ``i`` of the chunk sees ``cached + i`` tokens including itself, at most ``window``:
        the sum over ``i = 1 .. new`` of ``min(cached + i, window)``.
        """
        window = self.window
        if window is None or cached + new <= window:
            return new * cached + new * (new + 1) // 2
        rising = max(0, window - cached)
        return rising * cached + rising * (rising + 1) // 2 + (new - rising) * window


@attrs.frozen
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): one compressed vector for each token in the cache.

    Prefill expands it to keys and values of all heads (``kv_b_proj``; a product of its own for the new tokens, part of
    this operator for cached ones). Decode attends to it as it is: the expansion is absorbed into the projections
    around it, which is as much work as ``kv_b_proj`` on the new token. With tensor parallelism every rank keeps the
    whole vector.

    Attributes:
        name: The operator's name.
        num_heads: Heads.
        latent: Elements of the compressed keys and values (``kv_lora_rank``).
        nope: Elements of a head's key and query without position.
        rope: Elements of the rotary part of the key, which all heads share.
        value: Elements of a head's value.
    """

    name: str
    num_heads: int
    latent: int
    nope: int
    rope: int
    value: int
    per: Rows = "token"
    parameters: int = 0
    window: int | None = None

    @property
    def kv_elements(self) -> int:
        """Elements that one token leaves in the KV cache of one layer: 576 in DeepSeek's models."""
        return self.latent + self.rope

    @property
    def pair_flops(self) -> int:
        """Multiplications and additions of one (query, key) pair in prefill, all heads."""
        return 2 * self.num_heads * (self.nope + self.rope + self.value)

    @property
    def decode_flops(self) -> int:
        """The same in the absorbed form: ``2 heads (576 + 512)``."""
        return 2 * self.num_heads * (2 * self.latent + self.rope)

    @property
    def row_elements(self) -> int:
        """Elements of the query and of the output of one new token, prefill."""
        return self.num_heads * (self.nope + self.rope + self.value)

    @property
    def decode_row_elements(self) -> int:
        """The same in the absorbed form."""
        return self.num_heads * (2 * self.latent + self.rope)

    @property
    def context_elements(self) -> int:
        """Elements of keys and values that prefill reads for each token of the context."""
        return self.row_elements

    @property
    def expand_flops(self) -> int:
        """Multiplications and additions to make keys and values of one cached token before prefill reads them."""
        return 2 * self.latent * self.num_heads * (self.nope + self.value)

    def weight_bytes(self, dtype_bytes: int) -> int:
        """Return 0: the projections hold the weights."""
        return self.parameters * dtype_bytes

    def attended(self, new: int, cached: int) -> int:
        """Return how many (query, key) pairs are formed by ``new`` tokens after ``cached`` ones, causally."""
        return new * cached + new * (new + 1) // 2
