from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simloop.content import content_dir, content_names
from simloop.errors import InputError
from simloop.scenario import PolicyRef, load_scenario

TOML = """
model = "llama-3.1-8b"
seed = 3
[[workers]]
name = "gpu"
device = "a100-sxm-80gb"
count = 2
engine.max_num_seqs = 64
[policies]
route = "round_robin"
schedule = {name = "vllm", params = {watermark = 0.01}}
[workload]
requests = 20
arrivals = {process = "poisson", rate = 8}
lengths = {input = 64, output = 8}
[slo]
ttft_s = 15
max_gap_s = 0.3
"""
YAML = """
model: llama-3.1-8b
workers: [{name: gpu, device: a100-sxm-80gb, count: 2, engine: {max_num_seqs: 64}}]
policies: {route: round_robin, schedule: {name: vllm, params: {watermark: 1e-2}}}
workload: {requests: 20, arrivals: {process: poisson, rate: 8}, lengths: {input: 64, output: 8}}
slo: {ttft_s: 15, max_gap_s: 0.3}
seed: 3
"""


def test_yaml_json_and_toml_mean_the_same(good: dict[str, Any], write: Callable[..., Path]) -> None:
    scenario = load_scenario(good)
    assert scenario.policies.schedule == PolicyRef(name="vllm", params={"watermark": 0.01})
    assert load_scenario(write(YAML, "a.yaml")) == scenario
    assert load_scenario(write(json.dumps(good), "a.json")) == scenario
    assert load_scenario(write(TOML, "a.toml")) == scenario


def test_the_mapping_that_was_given_is_not_changed(good: dict[str, Any]) -> None:
    before = json.dumps(good)
    load_scenario(good, overrides=["workers[0].count=9", "policies.control=null"])
    assert json.dumps(good) == before


@pytest.mark.parametrize("name", content_names("configs"))
def test_every_bundled_scenario_loads_and_says_how_to_run_it(name: str) -> None:
    load_scenario(name)
    head = (content_dir("configs") / f"{name}.yaml").read_text(encoding="utf-8").split("model:")[0]
    assert f"simloop run {name}" in head
    assert all(line.startswith("#") for line in head.splitlines())


def test_names_of_files_are_relative_to_the_scenario(
    good: dict[str, Any], write: Callable[..., Path], tmp_path: Path
) -> None:
    device = (content_dir("devices") / "a100-sxm-80gb.toml").read_text(encoding="utf-8")
    write(device, "card.toml")
    write("async def route(request, cluster):\n    return cluster.workers[0]\n", "first.py")
    write("arrival_s,input_tokens,output_tokens\n0.5,10,2\n", "trace.csv")
    good["workers"][0]["device"] = "card.toml"
    good["policies"]["route"] = "first.py:route"
    good["workload"] = {"trace": {"path": "trace.csv", "format": "csv"}}
    scenario = load_scenario(write(good))
    assert scenario.workers[0].device == str(tmp_path / "card.toml")
    assert scenario.policies.route == f"{tmp_path / 'first.py'}:route"
    assert scenario.workload.trace is not None
    assert scenario.workload.trace.path == str(tmp_path / "trace.csv")


def test_a_bundled_name_that_is_misspelt() -> None:
    with pytest.raises(InputError, match="no such file or bundled scenario; did you mean 'quickstart'"):
        load_scenario("quickstrat")
    with pytest.raises(InputError, match="no such file; the bundled one is called 'quickstart'"):
        load_scenario("configs/quickstart.yaml" if not Path("configs").exists() else "quickstart.yml")


def test_a_mistake_of_an_override_is_not_blamed_on_the_file(good: dict[str, Any], write: Callable[..., Path]) -> None:
    path = write(good)
    with pytest.raises(InputError, match=r"^--set: workers\[0\]\.engine\.max_num_batched_tokens: found 2048"):
        load_scenario(path, overrides=["workers[0].engine.max_num_seqs=4000"])
    with pytest.raises(InputError, match=r"^--set: workers\[0\]: llama-3.1-70b needs"):
        load_scenario(path, overrides=["model=llama-3.1-70b"])
    good["seed"] = -1
    with pytest.raises(InputError, match=r"scenario.yaml: seed: found -1"):
        load_scenario(write(good), overrides=["workers[0].count=4"])
