from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCENARIO = {
    "model": "llama-3.1-8b",
    "workers": [{"device": "a100-sxm-80gb"}],
    "workload": {
        "requests": 30,
        "arrivals": {"process": "poisson", "rate": 8.0},
        "lengths": {"input": 100, "output": 20},
    },
}


@pytest.fixture
def bench_result(tmp_path: Path) -> Callable[..., Path]:
    """Write a result of ``vllm bench serve``: three requests, the last of which failed; None drops a key."""

    def write(name: str = "bench.json", **changes: Any) -> Path:
        document = {
            "model_id": "m",
            "duration": 9.0,
            "request_throughput": 0.25,
            "mean_ttft_ms": 1.0,
            "input_lens": [10, 20, 30],
            "output_lens": [3, 2, 0],
            "ttfts": [0.5, 0.25, 0.0],
            "itls": [[0.1, 0.3], [0.25], []],
            "start_times": [100.0, 101.5, 102.0],
            "errors": ["", "", "timed out"],
        }
        document.update(changes)
        path = tmp_path / name
        path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
        return path

    return write


@pytest.fixture
def bench_folder(tmp_path: Path) -> Path:
    """Write a folder as LLMServingSim's bench does: two requests, ticks that began 0.25 s before the first arrival."""
    folder = tmp_path / "bench"
    folder.mkdir()
    rows = [
        {"request_id": "bench-0", "input_toks": 40, "output_toks": 3, "arrival_time": 1000.25, "queued_ts": 7.0,
         "scheduled_ts": 7.1, "first_token_ts": 7.5, "last_token_ts": 8.5},
        {"request_id": "bench-1", "input_toks": 50, "output_toks": 1, "arrival_time": 1001.0, "queued_ts": 8.0,
         "scheduled_ts": 8.1, "first_token_ts": 9.0, "last_token_ts": 9.0},
    ]  # fmt: skip
    (folder / "requests.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "timeseries.csv").write_text(
        "t,prompt_throughput,gen_throughput\n1.0,40.0,1.0\n2.0,50.0,2.0\n3.0,0,1.0\n"
    )
    (folder / "meta.json").write_text(json.dumps({"started_at": "1970-01-01T00:16:40Z"}))
    hashes = [{"index": index, "hash_ids": list(range(index, index + 2))} for index in range(2)]
    (folder / "block_hashes.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in hashes))
    return folder
