"""When each operator of an iteration begins and ends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import attrs

from simloop.errors import InputError
from simloop.hardware.timing import IterationShape, OperatorTiming, TimingModel
from simloop.model import Operator

__all__ = ["OperatorCall", "Timeline"]


@attrs.frozen
class OperatorCall:
    """One call of an operator in an iteration.

    Attributes:
        path: Its name in the model: ``embedding``, ``layers.3.o_proj``.
        layer: The decoder block it is in, from 0; None before the first and after the last.
        operator: What is called.
    """

    path: str
    layer: int | None
    operator: Operator


class Timeline:
    """The operators of a timing model's iterations, one after another.

    What an iteration takes beyond its operators (launches, the host) passes before the first of them.

    Args:
        timing: What prices them.

    Attributes:
        calls: Every call, in order of execution.

    Raises:
        InputError: The timing model does not know its operators.
    """

    def __init__(self, timing: TimingModel) -> None:
        if not isinstance(timing, OperatorTiming):
            raise InputError(
                f"timing model {type(timing).__name__} has iteration_ns alone: breakpoints at operators also take its "
                "stage and operator_ns (simloop.hardware.OperatorTiming)"
            )
        self._timing = timing
        self.calls = tuple(OperatorCall(*call) for call in timing.stage.walk())
        self._kinds = tuple(dict.fromkeys(call.operator for call in self.calls))
        place = {operator: index for index, operator in enumerate(self._kinds)}
        self._order = [place[call.operator] for call in self.calls]

    def marks_ns(self, shape: IterationShape, duration_ns: int, places: Sequence[int]) -> list[int]:
        """Return times from the start of an iteration, nanoseconds; they rise, or stay, as the places do.

        Args:
            shape: The work of the iteration.
            duration_ns: What the iteration takes in all.
            places: How many calls are over: 0 is where the first begins, ``len(calls)`` the end of the iteration.
        """
        prices = [self._timing.operator_ns(operator, shape) for operator in self._kinds]
        ends = list(accumulate(map(prices.__getitem__, self._order), initial=0.0))
        lead = max(0.0, duration_ns - ends[-1])
        ends[-1] = duration_ns  # to the nanosecond, whatever the sum was rounded to
        return [min(int(lead + ends[place] + 0.5), duration_ns) for place in places]
