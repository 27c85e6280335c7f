"""The routed experts of a mixture, as one operator."""

from __future__ import annotations

import attrs

from simloop.model.attention import Rows
from simloop.model.quantization import Quantization

__all__ = ["Experts"]


@attrs.frozen
class Experts:
    """Grouped gate-and-up product, activation and down product of the experts that tokens were routed to.

    How many experts a number of tokens reaches is the routing's business (:class:`simloop.model.Routing`).

    Attributes:
        name: The operator's name.
        hidden: Width of the model, elements.
        width: Inner width of one expert, elements.
        num_experts: Experts of the layer, on all ranks together.
        top_k: Experts that each token goes to.
        bias: Whether both products add a bias.
        quantization: How the weights are stored; in the model's precision if not given.
        local: Experts on this rank; all if not given.
        gathered: Data-parallel ranks whose tokens meet here: a row stands for that many tokens.
    """

    name: str
    hidden: int
    width: int
    num_experts: int
    top_k: int
    bias: bool = False
    quantization: Quantization | None = None
    local: int = attrs.field(kw_only=True, default=attrs.Factory(lambda self: self.num_experts, takes_self=True))
    gathered: int = attrs.field(kw_only=True, default=1)
    per: Rows = "token"

    @property
    def expert_parameters(self) -> int:
        """Weights of one expert, elements."""
        return 3 * self.hidden * self.width + self.bias * (2 * self.width + self.hidden)

    @property
    def parameters(self) -> int:
        """Stored weights, elements."""
        return self.local * self.expert_parameters

    def expert_bytes(self, dtype_bytes: int) -> int:
        """Return the bytes of one expert, scales and biases included."""
        stored, hidden, width = self.quantization, self.hidden, self.width
        if stored is None:
            return self.expert_parameters * dtype_bytes
        bias = self.bias * (2 * width + hidden) * dtype_bytes
        return stored.stored_bytes(hidden, 2 * width) + stored.stored_bytes(width, hidden) + bias

    def weight_bytes(self, dtype_bytes: int) -> int:
        """Return the bytes that the experts of this rank occupy."""
        return self.local * self.expert_bytes(dtype_bytes)

    def flops(self, pairs: float) -> float:
        """Multiplications and additions of ``pairs`` (token, expert) pairs: ``2 · 3 · hidden · width`` each."""
        return 6 * pairs * self.hidden * self.width

    def moved_bytes(self, pairs: float, active: float, dtype_bytes: int) -> float:
        """Bytes moved: the weights of ``active`` experts, and inputs and outputs of both products for each pair."""
        return active * self.expert_bytes(dtype_bytes) + pairs * (2 * self.hidden + 3 * self.width) * dtype_bytes
