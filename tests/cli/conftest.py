from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

SMALL = """
model: llama-3.1-8b
workers: [{name: gpu, device: a100-sxm-80gb}]
policies: {route: least_loaded, schedule: vllm}
workload: {requests: 40, arrivals: {process: poisson, rate: 8}, lengths: {input: 100, output: 20}}
slo: {ttft_s: 15, max_gap_s: 0.3}
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Callable[..., Path]:
    """Write a small scenario, with ``(old, new)`` pieces of text exchanged."""

    def write(*changes: Sequence[str], name: str = "small.yaml") -> Path:
        text = SMALL
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
