"""What a scenario file may say, and how workloads are described."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

import simloop.workload
from simloop.workload import WorkloadSpec, open_workload

BOTH = {"arrivals": {"process": "poisson", "rate": 8}, "lengths": {"preset": "azure-conv-2023"}}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"requests": 2000, **BOTH}, "2,000 requests, Poisson at 8 requests/s, lengths of azure-conv-2023"),
        (
            {
                "requests": 5,
                "arrivals": {"process": "gamma", "rate": 2.5, "burstiness": 0.5},
                "lengths": {"input": 512, "output": {"distribution": "uniform", "min": 1, "max": 2000}},
            },
            "5 requests, gamma at 2.5 requests/s with burstiness 0.5, 512 tokens in and 1 to 2,000 tokens out",
        ),
        (
            {
                "requests": 5,
                "arrivals": {"process": "constant", "rate": 4},
                "lengths": {
                    "input": {"distribution": "normal", "mean": 50, "std": 5},
                    "output": {"distribution": "lognormal", "mean": 70, "std": 80},
                },
            },
            "5 requests, one every 0.25 s, normal 50 ± 5 tokens in and log-normal 70 ± 80 tokens out",
        ),
        (
            {"requests": 5, **BOTH, "arrivals": {"process": "burst"}},
            "5 requests, all at once, lengths of azure-conv-2023",
        ),
        (
            {"requests": 5, **BOTH, "arrivals": {"process": "burst", "size": 2, "every_s": 1.5}},
            "5 requests, groups of 2 every 1.5 s, lengths of azure-conv-2023",
        ),
        (
            {"requests": 5, **BOTH, "arrivals": {"process": "closed_loop", "concurrency": 1}},
            "5 requests, 1 client in a closed loop, lengths of azure-conv-2023",
        ),
        (
            {"requests": 5, **BOTH, "arrivals": {"process": "preset", "preset": "azure-code-2023", "rate_scale": 2}},
            "5 requests, gaps of azure-code-2023, 2 times as fast, lengths of azure-conv-2023",
        ),
        ({"trace": {"path": "t.csv"}}, "trace t.csv"),
        (
            {"requests": 5, "trace": {"path": "t.csv", "rate_scale": 0.5, "offset": 1, "limit": 8}},
            "at most 5 requests, trace t.csv, 0.5 times as fast, from request 1, at most 8",
        ),
        (
            {"arrivals": {"process": "trace", "path": "t.csv"}, "lengths": {"path": "t.csv"}},
            "times of t.csv, lengths of t.csv",
        ),
    ],
)
def test_a_workload_in_words(spec: dict[str, Any], text: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n0,5,5\n1,5,5\n")
    assert open_workload(spec, seed=0, base_dir=tmp_path).describe() == text


def test_a_spec_survives_being_written() -> None:
    spec = msgspec.convert({"requests": 5, **BOTH}, WorkloadSpec)
    assert msgspec.convert(msgspec.to_builtins(spec), WorkloadSpec) == spec
    assert msgspec.json.decode(msgspec.json.encode(spec), type=WorkloadSpec) == spec


def test_the_schema_names_every_process_and_distribution() -> None:
    text = msgspec.json.encode(msgspec.json.schema(WorkloadSpec)).decode()
    for name in (
        "poisson",
        "gamma",
        "constant",
        "burst",
        "closed_loop",
        "trace",
        "preset",
        "uniform",
        "normal",
        "lognormal",
        "mooncake",
    ):
        assert f'"{name}"' in text


def test_all_is_the_exact_surface() -> None:
    modules = {path.stem for path in Path(simloop.workload.__file__).parent.glob("*.py")}
    public = {name for name in vars(simloop.workload) if not name.startswith("_")} - modules
    assert set(simloop.workload.__all__) == public
    assert simloop.workload.__all__ == sorted(simloop.workload.__all__)
