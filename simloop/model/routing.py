"""Which experts tokens are routed to, as far as time depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import attrs
import msgspec

from simloop.errors import InputError
from simloop.model.experts import Experts

__all__ = ["Balanced", "Load", "RandomRouting", "Recorded", "Routing"]


class Load(NamedTuple):
    """What the busiest rank has to do in one layer.

    Attributes:
        pairs: (token, expert) pairs.
        active: Experts with at least one token.
    """

    pairs: float
    active: float


class Routing(Protocol):
    """Says how the tokens of an iteration spread over experts. The answer must depend on the arguments alone."""

    def load(self, experts: Experts, tokens: int) -> Load:
        """Return the load of the busiest rank for ``tokens`` tokens."""
        ...


@attrs.frozen
class Balanced:
    """Every token chooses its experts independently, all equally likely; loads are the expected ones.

    ``tokens`` tokens reach ``E (1 - (1 - k / E) ^ tokens)`` of ``E`` experts, and every rank has its share.
    """

    def load(self, experts: Experts, tokens: int) -> Load:
        """Return the expected load, the same for all ranks."""
        share = experts.top_k / experts.num_experts
        return Load(tokens * share * experts.local, experts.local * (1 - (1 - share) ** tokens))


@attrs.frozen
class RandomRouting:
    """As :class:`Balanced`, but drawn: the busiest of the ranks sets the pace.

    One draw stands for each number of tokens, so that the same iteration always takes the same time.

    Attributes:
        seed: Seed of the draws.
    """

    seed: int = 0

    def load(self, experts: Experts, tokens: int) -> Load:
        """Return the load of the busiest rank in the draw for this number of tokens."""
        import numpy as np  # slow to import, and rarely needed

        draw = np.random.default_rng([self.seed, tokens, experts.num_experts, experts.top_k])
        counts = draw.binomial(tokens, experts.top_k / experts.num_experts, experts.num_experts)
        total = tokens * experts.top_k
        return _busiest([float(count) * total / max(1, int(counts.sum())) for count in counts], experts.local)


@attrs.frozen
class Recorded:
    """Tokens prefer experts as they were seen to; loads are the expected ones, of the busiest rank.

    Attributes:
        shares: How often each expert was chosen; only the ratios matter.
    """

    shares: tuple[float, ...]

    @classmethod
    def read(cls, file: Path) -> Recorded:
        """Read a JSON list with one number for each expert.

        Raises:
            InputError: The file cannot be read, or is something else.
        """
        try:
            shares = msgspec.json.decode(file.read_bytes(), type=list[float])
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror}", file=file) from error
        except msgspec.DecodeError as error:
            raise InputError(f"expected a JSON list with a number for each expert: {error}", file=file) from error
        if not shares or min(shares) < 0 or sum(shares) <= 0:
            raise InputError("expected numbers of at least 0, not all of them 0", file=file)
        return cls(tuple(shares))

    def load(self, experts: Experts, tokens: int) -> Load:
        """Return the expected load of the busiest rank.

        Raises:
            InputError: The model has another number of experts.
        """
        if len(self.shares) != experts.num_experts:
            raise InputError(
                f"the recorded routing is of {len(self.shares)} experts, the model has {experts.num_experts}"
            )
        chances = _chances(self.shares, experts.top_k)
        active = [1 - (1 - chance) ** tokens for chance in chances]
        ranks = range(0, experts.num_experts, experts.local)
        loads = [
            Load(tokens * sum(chances[first : first + experts.local]), sum(active[first : first + experts.local]))
            for first in ranks
        ]
        return max(loads)


def _chances(shares: tuple[float, ...], top_k: int) -> list[float]:
    """Return each expert's chance to be among a token's ``top_k``: in proportion, at most 1, ``top_k`` in all."""
    total = sum(shares)
    chances = [top_k * share / total for share in shares]
    while max(chances) > 1 + 1e-9:
        full = sum(1 for chance in chances if chance >= 1)
        rest = sum(chance for chance in chances if chance < 1)
        if rest == 0:
            break
        chances = [1.0 if chance >= 1 else chance * (top_k - full) / rest for chance in chances]
    return [min(1.0, chance) for chance in chances]


def _busiest(counts: list[float], local: int) -> Load:
    """Return the load of the rank with the most pairs; experts are placed in order, ``local`` on each rank."""
    blocks = [counts[first : first + local] for first in range(0, len(counts), local)]
    return max(Load(sum(block), float(sum(count > 0 for count in block))) for block in blocks)
