from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "workers": [{"name": "gpu", "device": "a100-sxm-80gb", "count": 2, "engine": {"max_num_seqs": 64}}],
    "policies": {"route": "round_robin", "schedule": {"name": "vllm", "params": {"watermark": 0.01}}},
    "workload": {"requests": 20, "arrivals": {"process": "poisson", "rate": 8}, "lengths": {"input": 64, "output": 8}},
    "slo": {"ttft_s": 15, "max_gap_s": 0.3},
    "seed": 3,
}


@pytest.fixture
def good() -> dict[str, Any]:
    """A scenario that is right, as a mapping of its own."""
    return copy.deepcopy(GOOD)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a scenario, a mapping or text, to a file."""

    def write(content: dict[str, Any] | str, name: str = "scenario.yaml") -> Path:
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)  # JSON is YAML too
        path.write_text(text, encoding="utf-8")
        return path

    return write
