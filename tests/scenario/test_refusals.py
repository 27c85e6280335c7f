"""What a scenario cannot mean, found before the run and not under way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import simloop
from simloop.errors import InputError
from simloop.scenario import load_scenario


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sample_interval_s=1e-12", "sample_interval_s: found 1e-12, expected a number >= 1e-09 and <= 1e+09"),
        ("sample_interval_s=1e300", "sample_interval_s: found 1e+300, expected"),
        ("until_s=1e-12", "until_s: found 1e-12, expected a number >= 1e-09 and <= 1e+09"),
        ("until_s=1e300", "until_s: found 1e+300, expected"),
        ("network={bandwidth_gb_s: 1e-300}", "network.bandwidth_gb_s: found 1e-300, expected"),
        ("network={bandwidth_gb_s: 1e300}", "network.bandwidth_gb_s: found 1e+300, expected"),
        ("network={bandwidth_gb_s: 1, latency_us: 1e300}", "network.latency_us: found 1e+300, expected"),
        (
            "workers[0].engine.max_model_len=131073",
            "workers[0].engine.max_model_len: found 131073, expected at most 131072, the limit of llama-3.1-8b: leave",
        ),
        (
            "policies.schedule={name: vllm, params: {watermark: 5}}",
            "policies.schedule.params.watermark: found 5, expected a number >= 0 and <= 1",
        ),
        (
            "policies.schedule={name: vllm, params: {version: '1.0'}}",
            "policies.schedule.params.version: found '1.0', expected '0.6' or '0.19'",
        ),
        (
            "workers[0].schedule={name: static, params: {batch_delay_s: abc}}",
            "workers[0].schedule.params.batch_delay_s: found 'abc', expected a number >= 0 and <= 1e+09",
        ),
    ],
)
def test_values_that_cannot_be_used_are_refused_with_their_place(
    good: dict[str, Any], override: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        load_scenario(good, overrides=[override])
    assert str(caught.value).startswith(f"--set: {message}")


@pytest.mark.parametrize("seconds", [1e-9, 1e9])
def test_the_shortest_and_the_longest_times_work(good: dict[str, Any], seconds: float) -> None:
    good["workload"]["requests"] = 2
    good["policies"].pop("schedule")
    for key in ("sample_interval_s", "until_s"):
        simloop.simulate({**good, key: seconds})


@pytest.mark.parametrize("kind", ["route", "schedule", "control"])
def test_a_policy_that_cannot_be_made_is_an_input_error_with_its_place(
    good: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "ini.py"
    file.write_text(f"class {kind}:\n    def __init__(self, weights):\n        self.total = sum(weights)\n")
    good["policies"][kind] = {"name": str(file), "params": {"weights": "abc"}}
    with pytest.raises(InputError, match=rf"^policies\.{kind}: policy .* raised TypeError: .* at ini\.py:3$"):
        load_scenario(good)


@pytest.mark.parametrize("policy", ["orca", "static"])
@pytest.mark.parametrize(
    ("argument", "found"),
    [("max_num_batched_tokens", 512), ("long_prefill_token_threshold", 9), ("scheduler_reserve_full_isl", False)],
)
def test_engine_arguments_that_the_policy_does_not_look_at_are_refused(
    good: dict[str, Any], policy: str, argument: str, found: Any
) -> None:
    good["policies"]["schedule"] = policy
    load_scenario(good)
    good["workers"][0]["engine"] = {argument: found}
    with pytest.raises(InputError) as caught:
        load_scenario(good)
    expected = f"found {json.dumps(found)}, expected nothing: policy '{policy}' does not look at it"
    assert str(caught.value) == f"workers[0].engine.{argument}: {expected}"
    good["policies"]["schedule"] = "vllm"
    load_scenario(good)


def test_without_a_token_budget_there_may_be_more_sequences_than_its_default(good: dict[str, Any]) -> None:
    good["workers"][0]["engine"] = {"max_num_seqs": 4096}
    good["policies"]["schedule"] = "orca"
    load_scenario(good)
    good["policies"]["schedule"] = "vllm"
    with pytest.raises(InputError, match=r"max_num_batched_tokens: found 2048, expected at least max_num_seqs \(4096"):
        load_scenario(good)


def test_blocks_that_the_hashes_of_a_trace_do_not_fit(good: dict[str, Any], write: Callable[..., Path]) -> None:
    row = {"timestamp": 0, "input_length": 1000, "output_length": 2, "hash_ids": [1, 2]}
    trace = write(json.dumps(row) + "\n", "trace.jsonl")
    good["workload"] = {"trace": {"path": str(trace), "format": "mooncake"}}
    good["workers"][0]["engine"] = {"block_size": 24}
    with pytest.raises(InputError) as caught:
        load_scenario(good)
    assert str(caught.value).startswith("workers[0].engine.block_size: found 24, expected a divisor of 512, ")
    for engine in ({"block_size": 32}, {"block_size": 24, "enable_prefix_caching": False}):
        good["workers"][0]["engine"] = engine
        assert simloop.simulate(good).summary()["completed"] == 1
