"""Which experts tokens are routed to, as far as time depends on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import attrs

from simloop.errors import InputError
from simloop.model.experts import Experts

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

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

    A token chooses each expert independently, by a chance in proportion to its share. Where layers differ, the load is
    the mean of theirs, each of its own busiest rank: time is nearly linear in it.

    Attributes:
        layers: For each layer, or once for all of them, how often each expert was chosen; only the ratios matter.
    """

    layers: tuple[tuple[float, ...], ...]
    _chances: dict[int, npt.NDArray[np.float64]] = attrs.field(init=False, factory=dict, eq=False, repr=False)

    @classmethod
    def read(cls, file: Path, experts: Experts, num_layers: int) -> Recorded:
        """Read a file as :mod:`simloop.model.routing_files` describes them.

        Args:
            file: The file.
            experts: Those of the model that it is for.
            num_layers: How many layers of the model have such.

        Raises:
            InputError: The file cannot be read, is something else, or is of another model.
        """
        from simloop.model.routing_files import read_counts  # reads other formats than most runs need

        return cls(read_counts(file, experts, num_layers))

    def load(self, experts: Experts, tokens: int) -> Load:
        """Return the expected load of the busiest rank, the mean over layers.

        Raises:
            InputError: The model has another number of experts.
        """
        if len(self.layers[0]) != experts.num_experts:
            raise InputError(
                f"the recorded routing is of {len(self.layers[0])} experts, the model has {experts.num_experts}"
            )
        import numpy as np  # slow to import, and rarely needed

        chances = self._chances.get(experts.top_k)
        if chances is None:
            chances = np.array([_chances(shares, experts.top_k) for shares in self.layers])
            self._chances[experts.top_k] = chances
        ranks = np.arange(0, experts.num_experts, experts.local)
        pairs = np.add.reduceat(chances, ranks, axis=1)
        active = np.add.reduceat(1 - (1 - chances) ** tokens, ranks, axis=1)
        busiest = pairs.argmax(axis=1)[:, None]
        mean = [float(np.take_along_axis(of, busiest, axis=1).mean()) for of in (tokens * pairs, active)]
        return Load(*mean)


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
