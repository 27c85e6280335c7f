"""Engines that take several devices, or keep their KV cache in another precision."""

from __future__ import annotations

from typing import Any

import pytest

import simloop
from simloop.errors import InputError
from simloop.hardware import load_device
from simloop.metrics import Records
from simloop.scenario import load_scenario
from simloop.scenario.build import build_cluster
from simloop.serving import Cluster

LLAMA = "llama-3.1-8b"


def scenario(model: str = LLAMA, device: str = "h100-sxm-80gb", **engine: Any) -> dict[str, Any]:
    return {
        "model": model,
        "workers": [{"device": device, "engine": engine}],
        "workload": {
            "requests": 40,
            "arrivals": {"process": "poisson", "rate": 20},
            "lengths": {"input": 300, "output": 20},
        },
    }


def build(values: dict[str, Any]) -> Cluster:
    return build_cluster(load_scenario(values), Records())


def test_more_devices_are_faster_and_hold_more() -> None:
    one, four = (simloop.simulate(scenario(tensor_parallel_size=ranks)).summary() for ranks in (1, 4))
    assert one["mean_tpot_ms"] / 4 < four["mean_tpot_ms"] < one["mean_tpot_ms"]
    blocks = [build(scenario(tensor_parallel_size=ranks)).workers[0].kv.total for ranks in (1, 4)]
    assert blocks[1] > 4 * blocks[0]


def test_a_small_cache_holds_twice_as_many_tokens() -> None:
    wide, narrow = (build(scenario(kv_cache_dtype=dtype)).workers[0].kv.total for dtype in ("auto", "fp8"))
    assert narrow == pytest.approx(2 * wide, abs=1)


def test_a_mixture_with_whole_experts_on_each_device() -> None:
    values = scenario("qwen3-30b-a3b", tensor_parallel_size=4, enable_expert_parallel=True)
    assert simloop.simulate(values).summary()["completed"] == 40


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (scenario(pipeline_parallel_size=2), r"workers\[0\].engine.pipeline_parallel_size: found 2, expected 1"),
        (
            scenario(enable_expert_parallel=True, tensor_parallel_size=2),
            r"workers\[0\].engine.enable_expert_parallel: found true, expected false: llama-3.1-8b has no experts",
        ),
        (scenario("mixtral-8x7b", enable_expert_parallel=True), "one device holds all experts anyway"),
        (scenario(tensor_parallel_size=3), r"workers\[0\]: llama-3.1-8b cannot be divided over 3 ranks: 8 key-value"),
        (
            scenario(tensor_parallel_size=16),
            r"workers\[0\]: the interconnect was measured for at most 8 ranks, not for 16",
        ),
        (scenario(kv_cache_dtype="int4"), r"workers\[0\]: unknown kv_cache_dtype 'int4'"),
        (scenario("deepseek-v3", tensor_parallel_size=2), "deepseek-v3 needs 3.* GB of weights on each of 2"),
    ],
)
def test_plans_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build(values)
    assert "\n" not in str(caught.value)


def test_the_card_needs_links(tmp_path: Any) -> None:
    assert load_device("h100-sxm-80gb").interconnect is not None
    text = tmp_path / "card.toml"
    from simloop.content import find_content

    card = find_content("devices", "h100-sxm-80gb").read_text()
    start, end = card.index("[interconnect]"), card.index("[sources]")
    text.write_text(card[:start] + card[end:])
    with pytest.raises(InputError, match="states no interconnect, which a plan over several devices needs"):
        build(scenario(device=str(text), tensor_parallel_size=2))


def test_data_parallel_ranks_of_a_mixture_keep_step() -> None:
    values = scenario("qwen3-30b-a3b", data_parallel_size=2, enable_expert_parallel=True)
    cluster = build(values)
    assert [worker.name for worker in cluster.workers] == ["worker-0.0", "worker-0.1"]
    assert len(cluster.lockstep) == 1
    assert simloop.simulate(values, check=True).summary()["completed"] == 40


def test_data_parallel_ranks_of_a_dense_model_are_strangers() -> None:
    cluster = build(scenario(data_parallel_size=3))
    assert (len(cluster.workers), len(cluster.lockstep)) == (3, 0)
