"""Engines that take several devices, or keep their KV cache in another precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import simloop
from simloop.errors import InputError
from simloop.hardware import load_device
from simloop.metrics import Records
from simloop.report import write_run
from simloop.scenario import load_scenario
from simloop.scenario.build import build_cluster
from simloop.serving import Cluster
from tests.hardware.measured import PROFILES, needs_data

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
        (scenario(pipeline_parallel_size=64), r"workers\[0\]: 32 layers cannot make 64 pipeline stages"),
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


def test_what_keeping_step_costs_is_in_the_results(tmp_path: Path) -> None:
    result = simloop.simulate("shared-experts", requests=30)
    (engine,), rows = result.summary()["lockstep"], result.lockstep
    assert engine["ranks"] == ["gpu-0.0", "gpu-0.1"]
    assert engine["iterations"] == len(rows) / 2
    assert engine["waves"] == rows["wave"].max()
    assert engine["dummies"] == (rows["tokens"] == 0).sum() > 0
    assert (engine["tokens"], engine["padding_tokens"]) == (rows["tokens"].sum(), rows["padding"].sum())
    computed = (rows["tokens"] + rows["padding"]).sum() // 2  # the same on both ranks
    assert engine["dispatched_bytes"] == computed * 48 * (2048 + 128) * 2
    assert engine["combined_bytes"] == computed * 48 * 2048 * 2
    folder = write_run(result, tmp_path / "out")
    assert pl.read_parquet(folder / "lockstep.parquet").equals(rows)
    dense = simloop.simulate(scenario(data_parallel_size=2))
    assert (dense.summary()["lockstep"], len(dense.lockstep)) == ([], 0)
    assert not (write_run(dense, folder) / "lockstep.parquet").exists()


@needs_data
@pytest.mark.filterwarnings("ignore::simloop.hardware.profile.DomainWarning")
def test_shared_experts_from_measured_layers() -> None:
    path = PROFILES / "RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"
    timing = {"model": "profile", "path": str(path), "all_reduce": {"bandwidth_gib_s": 16, "latency_us": 20}}
    changes = [f"workers[0].timing={json.dumps(timing)}"]
    measured = simloop.simulate("shared-experts", requests=60, overrides=changes, check=True).summary()
    roofline = simloop.simulate("shared-experts", requests=60).summary()
    assert measured["completed"] == 60
    assert measured["mean_tpot_ms"] == pytest.approx(roofline["mean_tpot_ms"], rel=0.25)


def test_data_parallel_ranks_of_a_dense_model_are_strangers() -> None:
    cluster = build(scenario(data_parallel_size=3))
    assert (len(cluster.workers), len(cluster.lockstep)) == (3, 0)


def routed(routing: Any, **timing: Any) -> simloop.metrics.Result:
    values = scenario("qwen3-30b-a3b", data_parallel_size=2, enable_expert_parallel=True)
    values["workers"][0]["timing"] = {"routing": routing, **timing}
    return simloop.simulate(values)


def test_routing_of_experts(tmp_path: Path) -> None:
    counts = [1.0 / (place + 1) for place in range(128)]
    (tmp_path / "skewed.json").write_text(json.dumps(counts))
    times = [
        routed(routing).summary()["mean_tpot_ms"]
        for routing in (None, "balanced", "random", {"recorded": str(tmp_path / "skewed.json")})
    ]
    assert times[0] == times[1]
    assert len(set(times)) == 3
    drawn = scenario("qwen3-30b-a3b", data_parallel_size=2, enable_expert_parallel=True)
    drawn["workers"][0]["timing"] = {"routing": "random"}
    assert simloop.simulate(drawn).summary()["mean_tpot_ms"] == times[2]
    assert simloop.simulate(drawn | {"seed": 1}).summary()["mean_tpot_ms"] != times[2]


@needs_data
@pytest.mark.filterwarnings("ignore::simloop.hardware.profile.DomainWarning")
def test_routing_of_experts_with_measured_layers(tmp_path: Path) -> None:
    (tmp_path / "few.csv").write_text("expert\n" + "".join(f"{expert}\n" for expert in range(8)))
    path = PROFILES / "RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16"
    link = {"bandwidth_gib_s": 16, "latency_us": 20}
    even, balanced, few = (
        routed(routing, model="profile", path=str(path), all_reduce=link).summary()["mean_tpot_ms"]
        for routing in (None, "balanced", {"recorded": str(tmp_path / "few.csv")})
    )
    assert few < balanced < even  # fewer experts are activated


def test_files_of_routing_lie_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "routing.csv").write_text("expert,count\n200,1\n")
    values = scenario("qwen3-30b-a3b")
    values["workers"][0]["timing"] = {"routing": {"recorded": "routing.csv"}}
    (tmp_path / "here.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"routing.csv: line 2: found expert 200, the model has 0 to 127"):
        load_scenario(tmp_path / "here.json")
    (tmp_path / "routing.csv").write_text("expert,count\n100,1\n")
    load_scenario(tmp_path / "here.json")
    with pytest.raises(InputError, match=r"workers\[0\].timing.routing: says nothing: llama-3.1-8b has no experts"):
        build(values | {"model": LLAMA})
    values["workers"][0]["timing"] = {"routing": "zipf"}
    with pytest.raises(
        InputError, match=r"timing.routing: found 'zipf', expected one of balanced, random or a mapping"
    ):
        load_scenario(values)
