"""The latency limits that a request must keep to count as good."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

__all__ = ["SLO"]

Limit = Annotated[float, Meta(gt=0)]


class SLO(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits on the latency of one request, in seconds; a request is good if it keeps all that are given.

    Attributes:
        ttft_s: Time from arrival to the first token.
        tpot_s: Mean time per output token after the first.
        max_gap_s: The longest time between two tokens that follow each other.
        e2e_s: Time from arrival to the last token.

    Raises:
        ValueError: No limit is given.
    """

    ttft_s: Limit | None = None
    tpot_s: Limit | None = None
    max_gap_s: Limit | None = None
    e2e_s: Limit | None = None

    def __post_init__(self) -> None:
        if not self.limits():
            raise ValueError("expected at least one of ttft_s, tpot_s, max_gap_s, e2e_s")

    def limits(self) -> dict[str, float]:
        """Return the limits that are given, by name, in seconds."""
        return {name: limit for name in self.__struct_fields__ if (limit := getattr(self, name)) is not None}
