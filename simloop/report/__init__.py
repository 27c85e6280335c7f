"""What people and other tools read of a run: a table on the terminal, and a folder of files.

Rich, polars and YAML are imported when they are used.
"""

from __future__ import annotations

from simloop.report.files import check_out_dir, write_run
from simloop.report.table import summary_table

__all__ = ["check_out_dir", "summary_table", "write_run"]
