"""Mixture-of-experts layers by measured time, and how many experts a step activates."""

from __future__ import annotations

from pathlib import Path

import attrs

from simloop.hardware.profile.curve import Curve, blend, bracket
from simloop.hardware.profile.reading import read_table, time_number, whole
from simloop.model import Experts, Routing

__all__ = ["MoeTable", "expert_load"]


def expert_load(experts: Experts, tokens: int, ep: int, routing: Routing | None) -> tuple[int, int]:
    """Return the tokens that a rank's experts work on, and how many of these experts are activated.

    Args:
        experts: The model's experts, of all ranks.
        tokens: Tokens of all ranks together.
        ep: Ranks that share the experts.
        routing: How tokens spread; ``None`` is the rule of LLMServingSim, whose tokens never meet in an expert while
            there are others: ``min(tokens * k / ep, count / ep)`` activated experts.
    """
    pairs = tokens * experts.top_k / ep
    activated = float(min(round(pairs), experts.num_experts // ep))
    if routing is not None and tokens:
        pairs, activated = routing.load(attrs.evolve(experts, local=experts.num_experts // ep), tokens)
    elsewhere = 1 - pairs / (tokens * experts.top_k) if tokens else 1.0  # of a token's choices
    return max(1, round(tokens * (1 - elsewhere**experts.top_k))), max(1, round(activated))


@attrs.frozen
class MoeTable:
    """Time of a rank's experts by tokens and activated experts, linear in both; each number of experts has its points.

    Attributes:
        activated: Measured numbers of activated experts, rising.
        curves: Time by tokens for each of these, nanoseconds.
    """

    activated: list[int]
    curves: list[Curve]

    @classmethod
    def read(cls, file: Path) -> MoeTable:
        """Read ``tokens, activated_experts, time_us``.

        Raises:
            InputError: The table is not right.
        """
        pairs: dict[int, list[tuple[int, float]]] = {}
        columns = {"tokens": whole, "activated_experts": whole, "time_us": time_number}
        for tokens, activated, time in read_table(file, columns):
            pairs.setdefault(activated, []).append((tokens, max(1, round(time * 1000))))
        return cls(sorted(pairs), [Curve.of(pairs[activated]) for activated in sorted(pairs)])

    @property
    def last_tokens(self) -> int:
        """The most measured tokens."""
        return max(curve.last for curve in self.curves)

    def at(self, tokens: int, activated: int) -> float:
        """Return the time of the experts, nanoseconds."""
        low, high = bracket(self.activated, activated)
        below = self.curves[low].at(tokens)
        if low == high:
            return below
        return blend(below, self.curves[high].at(tokens), activated, self.activated[low], self.activated[high])
