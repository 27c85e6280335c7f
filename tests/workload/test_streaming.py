"""Workloads are streams: their size costs no memory."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections import deque
from pathlib import Path
from typing import Any

import pytest

from simloop.workload import open_workload

DRAWN = {"arrivals": {"process": "poisson", "rate": 8}, "lengths": {"preset": "azure-conv-2023"}}


def peak_bytes(spec: dict[str, Any]) -> int:
    workload = open_workload(spec, seed=0)
    next(iter(workload))
    tracemalloc.start()
    try:
        deque(workload, maxlen=0)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_hundred_times_the_requests_need_no_more_memory() -> None:
    small, large = (peak_bytes({"requests": count, **DRAWN}) for count in (5_000, 500_000))
    assert large < small * 1.2 + 50_000
    assert large < 3_000_000


def test_a_long_trace_needs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{number},5,5\n" for number in range(100_000)))
    assert path.stat().st_size > 900_000
    assert peak_bytes({"trace": {"path": str(path)}}) < 500_000


def test_numpy_and_polars_are_imported_only_when_used() -> None:
    code = "import sys, simloop.workload; print([name for name in ('numpy', 'polars') if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.slow
def test_a_million_requests_take_a_second_or_two() -> None:
    assert peak_bytes({"requests": 1_000_000, **DRAWN}) < 3_000_000
