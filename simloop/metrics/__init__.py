"""What happened: columnar records of a run, and every metric that follows from them.

:class:`Records` is what serving fills; :class:`Result` is what a run returns. Numpy is imported with the first
:class:`Result`, polars with the first data frame.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simloop._later import later
from simloop.metrics.records import Records
from simloop.metrics.slo import SLO
from simloop.serving import Status

if TYPE_CHECKING:
    from simloop.metrics.checks import LittlesLaw, check_conservation, littles_law
    from simloop.metrics.distribution import Distribution
    from simloop.metrics.result import Result


__all__ = ["SLO", "Distribution", "LittlesLaw", "Records", "Result", "Status", "check_conservation", "littles_law"]

__getattr__ = later(
    __name__,
    {
        "Distribution": "distribution",
        "LittlesLaw": "checks",
        "Result": "result",
        "check_conservation": "checks",
        "littles_law": "checks",
    },
)
