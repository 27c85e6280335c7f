"""Mixture-of-experts layers by measured time, and how many experts a step activates."""

from __future__ import annotations

from pathlib import Path

import attrs

from simloop.hardware.profile.curve import Curve, blend, bracket
from simloop.hardware.profile.reading import read_table, time_number, whole

__all__ = ["Experts", "MoeTable"]


@attrs.frozen
class Experts:
    """The expert layer of a model, as far as its time depends on it.

    Attributes:
        count: Experts of a layer.
        per_token: Experts that each token goes to.
        ep: Degree of expert parallelism: each rank holds ``count / ep`` experts.
    """

    count: int
    per_token: int
    ep: int = 1

    def balanced(self, tokens: int) -> tuple[int, int]:
        """Return the tokens that one rank works on and the experts it activates, if tokens spread evenly.

        ``round(tokens * (1 - ((ep - 1) / ep)^k))`` tokens have at least one expert here;
        ``min(tokens * k / ep, count / ep)`` experts have at least one token.
        """
        local = round(tokens * (1 - ((self.ep - 1) / self.ep) ** self.per_token))
        pairs = tokens * self.per_token / self.ep
        return max(1, local), max(1, min(round(pairs), self.count // self.ep))


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

    def at(self, tokens: int, activated: int) -> float:
        """Return the time of the experts, nanoseconds."""
        low, high = bracket(self.activated, activated)
        below = self.curves[low].at(tokens)
        if low == high:
            return below
        return blend(below, self.curves[high].at(tokens), activated, self.activated[low], self.activated[high])
