"""What has been measured, and what happens where a prediction leaves it."""

from __future__ import annotations

import warnings

import attrs

from simloop.errors import SimulationError

__all__ = ["DomainWarning", "DomainWatch"]


class DomainWarning(UserWarning):
    """A prediction left the measured domain; from here on it is an extrapolation."""


@attrs.define
class DomainWatch:
    """Says once for each axis that it was left.

    Attributes:
        source: What was measured, for the message.
        strict: Whether leaving is an error instead.
        left: Axes that were left, with the first value beyond.
    """

    source: str
    strict: bool = False
    left: dict[str, float] = attrs.Factory(dict)

    def check(self, axis: str, value: float, last: float) -> None:
        """Note that ``value`` was asked for on an axis that was measured up to ``last``.

        Raises:
            SimulationError: It is beyond, and the watch is strict.
        """
        if value <= last or axis in self.left:
            return
        message = f"{axis} {value:,.0f} is beyond the measured {last:,.0f} of {self.source}"
        if self.strict:
            raise SimulationError(message)
        self.left[axis] = value
        warnings.warn(f"{message}: times are extrapolated", DomainWarning, stacklevel=3)
