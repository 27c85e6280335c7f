"""What a transformer consists of: operators with shapes.

An operator knows how much work one *row* of its input is; it knows nothing of devices or of time. A row is a token, or,
for the few operators that run once for each sequence (the language-model head, the sampler), a sequence.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

__all__ = ["Attention", "Elementwise", "Gemm", "Operator", "Rows"]

Rows: TypeAlias = Literal["token", "sequence"]


@attrs.frozen
class Gemm:
    """A matrix product with a weight: ``y[m, n] = x[m, k] w[k, n] (+ b[n])``, for ``m`` rows.

    Attributes:
        name: The operator's name inside its block, such as ``qkv_proj``.
        k: Inner dimension, elements.
        n: Outer dimension, elements.
        bias: Whether a bias of ``n`` elements is added.
        per: What a row is.
        tied: The weight belongs to another operator (tied embeddings): it is read, but not stored twice.
    """

    name: str
    k: int
    n: int
    bias: bool = False
    per: Rows = "token"
    tied: bool = False

    @property
    def parameters(self) -> int:
        """Stored weights, elements."""
        return 0 if self.tied else self.k * self.n + self.n * self.bias

    def flops(self, rows: int) -> int:
        """Multiplications and additions for ``rows`` rows: ``2 m k n``."""
        return 2 * rows * self.k * self.n

    def elements(self, rows: int) -> int:
        """Elements moved to and from memory: ``m k + k n + m n``."""
        return rows * (self.k + self.n) + self.k * self.n


@attrs.frozen
class Elementwise:
    """An operator bound by memory traffic alone: norms, rotary embedding, activation, table look-ups, sampling.

    Attributes:
        name: The operator's name.
        moved: Elements read and written for each row, in the model's precision.
        parameters: Stored weights, elements (a norm's scale, an embedding's table).
        per: What a row is.
    """

    name: str
    moved: int
    parameters: int = 0
    per: Rows = "token"

    def elements(self, rows: int) -> int:
        """Elements moved to and from memory for ``rows`` rows."""
        return rows * self.moved


@attrs.frozen
class Attention:
    """Softmax attention over the KV cache, MHA, GQA or MQA by its head counts.

    Attributes:
        name: The operator's name.
        num_heads: Query heads.
        num_kv_heads: Key-value heads.
        head_dim: Elements of one head.
        window: Tokens that a token can look back on (sliding window), or ``None`` for all.
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


Operator: TypeAlias = Gemm | Elementwise | Attention
