"""What a transformer consists of: operators with shapes.

An operator knows how much work one *row* of its input is; it knows nothing of devices or of time. A row is a token, or,
for the few operators that run once for each sequence (the language-model head, the sampler), a sequence.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from simloop.model.attention import Attention, LatentAttention, Rows
from simloop.model.experts import Experts
from simloop.model.quantization import Quantization

__all__ = ["Collective", "CollectiveKind", "Elementwise", "Gemm", "Operator", "Split"]

Split: TypeAlias = Literal["none", "column", "row", "partial", "qkv", "qk", "vocab"]
"""How tensor parallelism divides an operator.

Not at all; by its outputs (``column``); by its inputs (``row``: the sums of all ranks are added up, ``partial``: later,
with those of the experts); by query and key-value heads (``qkv``, without the values ``qk``); by the vocabulary's rows.
"""

CollectiveKind: TypeAlias = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]


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
        split: How tensor parallelism divides it.
        quantization: How the weight is stored; in the model's precision if not given.
    """

    name: str
    k: int
    n: int
    bias: bool = False
    per: Rows = "token"
    tied: bool = False
    split: Split = "none"
    quantization: Quantization | None = None

    @property
    def parameters(self) -> int:
        """Stored weights, elements."""
        return 0 if self.tied else self.k * self.n + self.n * self.bias

    def weight_bytes(self, dtype_bytes: int) -> int:
        """Return the bytes that the weight occupies, scales and bias included; ``dtype_bytes`` is of one element."""
        return 0 if self.tied else self.read_bytes(dtype_bytes) + self.n * self.bias * dtype_bytes

    def read_bytes(self, dtype_bytes: int) -> int:
        """Return the bytes of weight that one product reads."""
        stored = self.quantization
        return self.k * self.n * dtype_bytes if stored is None else stored.stored_bytes(self.k, self.n)

    def flops(self, rows: int) -> int:
        """Multiplications and additions for ``rows`` rows: ``2 m k n``."""
        return 2 * rows * self.k * self.n

    def moved_bytes(self, rows: int, dtype_bytes: int) -> int:
        """Bytes moved to and from memory: the weight, and ``m k + m n`` elements of activations."""
        return rows * (self.k + self.n) * dtype_bytes + self.read_bytes(dtype_bytes)


@attrs.frozen
class Elementwise:
    """An operator bound by memory traffic alone: norms, rotary embedding, activation, table look-ups, sampling.

    Attributes:
        name: The operator's name.
        moved: Elements read and written for each row, in the model's precision.
        parameters: Stored weights, elements (a norm's scale, an embedding's table).
        per: What a row is.
        split: How tensor parallelism divides it.
    """

    name: str
    moved: int
    parameters: int = 0
    per: Rows = "token"
    split: Split = "none"

    def weight_bytes(self, dtype_bytes: int) -> int:
        """Return the bytes that the weights occupy."""
        return self.parameters * dtype_bytes

    def moved_bytes(self, rows: int, dtype_bytes: int) -> int:
        """Bytes moved to and from memory for ``rows`` rows."""
        return rows * self.moved * dtype_bytes


@attrs.frozen
class Collective:
    """An exchange between the ranks of a plan.

    Attributes:
        name: The operator's name.
        kind: What is exchanged how.
        elements: Elements of the message for each row: the buffer that is reduced, the result that is gathered, the
            input that is scattered, or all that a rank sends to others and itself.
        ranks: How many take part.
        per: What a row is.
    """

    name: str
    kind: CollectiveKind
    elements: int
    ranks: int
    per: Rows = "token"
    parameters: int = 0

    def weight_bytes(self, dtype_bytes: int) -> int:
        """Return 0: there are no weights."""
        return self.parameters * dtype_bytes


Operator: TypeAlias = Gemm | Elementwise | Attention | LatentAttention | Experts | Collective
