"""What runs teach: how far one is from a real one."""

from __future__ import annotations

from simloop.explore.comparison import Comparison, Figure, compare
from simloop.explore.real_run import real_run
from simloop.explore.run_log import RunLog

__all__ = ["Comparison", "Figure", "RunLog", "compare", "real_run"]
