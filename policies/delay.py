"""A breakpoint that waits: a slow operator, a step that the engine has and the model has not, a fault.

    hooks:
      - {after: "layers[::4]", call: delay, params: {us: 50}}

Parameters:
    us: How long, microseconds.
"""

from __future__ import annotations

from simloop.clock import sleep_ns
from simloop.serving import Moment, OperatorMoment
from simloop.serving.policy import check_number


class hook:  # noqa: N801 - named after what it is, like the functions
    """Wait, whatever has happened."""

    def __init__(self, us: float) -> None:
        self.delay_ns = round(1e3 * check_number("us", us, least=0, most=1e12))

    async def __call__(self, moment: Moment | OperatorMoment) -> None:
        """Let time pass."""
        del moment
        await sleep_ns(self.delay_ns)
