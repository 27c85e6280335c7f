"""The latencies of each request, one array per metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from simloop.metrics.slo import SLO
from simloop.serving import Status

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

__all__ = ["Latencies"]


@attrs.frozen(eq=False)
class Latencies:
    """What each request waited for, in nanoseconds; NaN where it never came to that.

    Attributes:
        queueing: From arrival to the start of the first batch that contains it.
        ttft: From arrival to the first token.
        tpot: (e2e - ttft) / (tokens - 1), for finished requests with more than one token.
        max_gap: The longest time between two tokens that follow each other.
        e2e: From arrival to the last token, for finished requests.
        normalised: e2e / tokens, for finished requests.
    """

    queueing: Floats
    ttft: Floats
    tpot: Floats
    max_gap: Floats
    e2e: Floats
    normalised: Floats

    @classmethod
    def of(cls, requests: npt.NDArray[np.void], longest_gaps: npt.NDArray[np.int64]) -> Latencies:
        """Derive the latencies from the table of requests and the longest gap of each, -1 for none."""
        finished = requests["status"] == Status.FINISHED
        arrival, tokens = requests["arrival_ns"], requests["generated"]
        first, finish = requests["first_token_ns"], requests["finish_ns"]
        e2e = _where(finished, finish - arrival)
        return cls(
            queueing=_where(requests["scheduled_ns"] >= 0, requests["scheduled_ns"] - arrival),
            ttft=_where(first >= 0, first - arrival),
            tpot=_where(finished & (tokens > 1), finish - first) / np.maximum(tokens - 1, 1),
            max_gap=_where(longest_gaps >= 0, longest_gaps),
            e2e=e2e,
            normalised=_where(tokens > 0, e2e) / np.maximum(tokens, 1),
        )

    def attained(self, slo: SLO) -> dict[str, Bools]:
        """Mark, for each limit of an SLO, the requests that finished and kept it.

        A finished request that lacks the metric keeps the limit: one token has no TPOT and no gap.
        """
        finished = ~np.isnan(self.e2e)
        by_limit = {"ttft_s": self.ttft, "tpot_s": self.tpot, "max_gap_s": self.max_gap, "e2e_s": self.e2e}
        return {name: finished & ~(by_limit[name] > limit * 1e9) for name, limit in slo.limits().items()}


def _where(known: Bools, values: npt.NDArray[np.int64] | Floats) -> Floats:
    return np.where(known, values, np.nan)
