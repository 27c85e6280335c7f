from __future__ import annotations

from typing import Any

import pytest

from simloop.errors import InputError
from simloop.scenario import PolicyRef, Scenario, load_scenario
from simloop.scenario.overrides import apply_overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", ["seed"], 7),
        ("workers[0].count=4", ["workers", 0, "count"], 4),
        (" workers[0].engine.block_size = 32", ["workers", 0, "engine", "block_size"], 32),
        ("slo={ttft_s: 1}", ["slo"], {"ttft_s": 1}),
        ("slo=null", ["slo"], None),
        (
            "workload.arrivals={process: constant, rate: 1e1}",
            ["workload", "arrivals"],
            {"process": "constant", "rate": 10.0},
        ),
        ("policies.route.name=random", ["policies", "route", "name"], "random"),
        ("workers=[{device: h100}]", ["workers"], [{"device": "h100"}]),
        ("model=a=b", ["model"], "a=b"),
    ],
)
def test_a_value_is_written_where_the_path_says(
    good: dict[str, Any], override: str, path: list[Any], value: Any
) -> None:
    changed, places = apply_overrides(good, [override], Scenario)
    assert places == [path]
    for step in path:
        changed = changed[step]
    assert changed == value


def test_mappings_on_the_way_are_made(good: dict[str, Any]) -> None:
    del good["slo"], good["workers"][0]["engine"]
    scenario = load_scenario(good, overrides=["slo.e2e_s=5", "workers[0].engine.block_size=32"])
    assert scenario.slo is not None
    assert scenario.slo.e2e_s == 5
    assert scenario.workers[0].engine.block_size == 32


def test_parameters_can_be_given_to_a_policy_that_was_a_bare_name(good: dict[str, Any]) -> None:
    good["policies"] = {}
    good["policies"]["schedule"] = "vllm"
    scenario = load_scenario(good, overrides=["policies.schedule.params.watermark=0.02"])
    assert scenario.policies.schedule == PolicyRef(name="vllm", params={"watermark": 0.02})


def test_what_aliases_share_is_changed_in_one_place(good: dict[str, Any]) -> None:
    good["workers"].append(good["workers"][0])
    changed, _ = apply_overrides(good, ["workers[1].name=other"], Scenario)
    assert [group["name"] for group in changed["workers"]] == ["gpu", "other"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed"], "found 'seed', expected path=value, such as workers[0].count=4"),
        (["=3"], "found '=3', expected path=value, such as workers[0].count=4"),
        (["a..b=3"], "found 'a..b', expected a path such as workers[0].count"),
        (["[0]=3"], "found '[0]', expected a path such as workers[0].count"),
        (["seed=1", "seed=2"], "seed: given twice"),
        (["sede=1"], "sede: found an unknown key; did you mean 'seed'?"),
        (["workers[0].engine.max_seqs=1"], "engine.max_seqs: found an unknown key; did you mean 'max_num_seqs'?"),
        (["workers[3].count=1"], "workers[3]: there is no entry 3: the list has 1"),
        (["workers.count=1"], "workers: found a list, which has no keys"),
        (["model.name=1"], "model: found 'llama-3.1-8b', which has no keys"),
        (["model[0]=1"], "model: found 'llama-3.1-8b', which has no entries by number"),
        (["seed=[1"], "seed: not valid YAML: "),
        (["until_s=.inf"], "until_s: found inf, expected a finite number"),
    ],
)
def test_overrides_that_cannot_be_applied(good: dict[str, Any], overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as error:
        apply_overrides(good, overrides, Scenario)
    assert str(error.value).startswith("--set: ")
    assert message in str(error.value)
