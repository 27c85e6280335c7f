"""Policies as files that users write and change between two runs, and what is said of those that fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import simloop
from simloop.errors import InputError
from simloop.serving import Engine, load_policy, policy_info
from simloop.serving.policy import check_number, where_raised
from simloop.serving.policy_files import fresh_policy_files
from tests.serving.world import make_cluster, serve

FIRST = "async def route(request, cluster):\n    return cluster.workers[0]\n"
LAST = "async def route(request, cluster):\n    return cluster.workers[1]\n"

DATACLASS = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

@dataclass
class route:
    index: int = 1
    seen: ClassVar[int] = 0

    async def __call__(self, request, cluster):
        return cluster.workers[self.index]
"""

COUNTING = """
count = 0

async def route(request, cluster):
    global count
    count += 1
    return cluster.workers[count > 10]
"""

SHARED = """
made = []

async def route(request, cluster):
    return cluster.workers[len(made) == 2]

class schedule:
    def __init__(self):
        from simloop.serving import load_policy
        made.append(self)
        self.vllm = load_policy("vllm", "schedule").make()

    async def __call__(self, worker):
        return await self.vllm(worker)
"""


@pytest.fixture
def used(tmp_path: Path) -> Callable[..., list[int]]:
    """Run 20 requests through a policy file; return how many each of two workers got."""

    def used(text: str | None = None, **policies: Any) -> list[int]:
        if text is not None:
            (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        scenario = {
            "model": "llama-3.1-8b",
            "workers": [{"name": "gpu", "device": "a100-sxm-80gb", "count": 2}],
            "policies": {"route": str(tmp_path / "mine.py"), **policies},
            "workload": {
                "requests": 20,
                "arrivals": {"process": "constant", "rate": 50},
                "lengths": {"input": 9, "output": 2},
            },
        }
        workers = simloop.simulate(scenario).requests["worker"].to_list()
        return [workers.count("gpu-0"), workers.count("gpu-1")]

    return used


def test_an_edited_file_counts_at_the_next_run(used: Callable[..., list[int]]) -> None:
    assert used(FIRST) == [20, 0]
    assert used(LAST) == [0, 20]  # as long, within the same second


def test_a_run_finds_nothing_of_the_one_before(used: Callable[..., list[int]]) -> None:
    assert used(COUNTING) == [10, 10]
    assert used() == [10, 10]


def test_a_file_may_define_dataclasses(used: Callable[..., list[int]]) -> None:
    assert used(DATACLASS) == [0, 20]


def test_the_policies_of_a_file_share_its_variables_and_it_runs_once(
    used: Callable[..., list[int]], tmp_path: Path
) -> None:
    assert used(SHARED, schedule=str(tmp_path / "mine.py")) == [0, 20]


def test_modules_beside_a_policy_can_be_imported_and_edited(used: Callable[..., list[int]], tmp_path: Path) -> None:
    helper = tmp_path / "helper_of_mine.py"
    mine = "from helper_of_mine import INDEX\n" + FIRST.replace("[0]", "[INDEX]")
    for index, expected in ((0, [20, 0]), (1, [0, 20])):
        helper.write_text(f"INDEX = {index}\n", encoding="utf-8")
        assert used(mine) == expected
    assert "helper_of_mine" not in sys.modules
    assert str(tmp_path) not in sys.path


def test_a_neighbour_does_not_stand_for_a_module_of_python(used: Callable[..., list[int]], tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('not this one')\n", encoding="utf-8")
    assert used("import colorsys\n" + FIRST) == [20, 0]


def test_folders_with_neighbours_of_the_same_name_do_not_mix(tmp_path: Path) -> None:
    with fresh_policy_files():
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "common.py").write_text(f"NAME = {name!r}\n", encoding="utf-8")
            (tmp_path / name / "mine.py").write_text(f"from common import NAME\n{FIRST}", encoding="utf-8")
            policy = load_policy(str(tmp_path / name / "mine.py"), "route")
            assert policy.target.__globals__["NAME"] == name


def test_a_file_that_cannot_be_imported_leaves_nothing_and_says_where(tmp_path: Path) -> None:
    file = tmp_path / "boom.py"
    file.write_text("x = 1\ny = x / 0\n", encoding="utf-8")
    before = set(sys.modules)
    with pytest.raises(InputError, match=r"could not be imported: ZeroDivisionError: division by zero at boom\.py:2"):
        load_policy(str(file), "route")
    assert set(sys.modules) == before
    (tmp_path / "neighbour.py").write_text("\n\ndef (:\n", encoding="utf-8")
    file.write_text("import neighbour\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"neighbour\.py: line 3: syntax error"):
        load_policy(str(file), "route")


def test_a_policy_that_fails_under_way_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "boom.py"
    file.write_text(
        "import json\n\n\nasync def route(request, cluster):\n    return json.loads('{')\n", encoding="utf-8"
    )
    cluster = make_cluster()
    cluster.route = load_policy(str(file), "route").make()
    with pytest.raises(simloop.PolicyError, match=r"JSONDecodeError: .* at boom\.py:5 \(t = "):
        serve(cluster, [(0, 5, 5)])


def test_where_an_error_was_raised_is_the_innermost_line_of_the_users() -> None:
    assert where_raised(ValueError("never raised")) == ""
    with pytest.raises(InputError) as caught:
        load_policy("nosuch", "route")
    assert where_raised(caught.value).startswith(" at test_policy_files.py:")


def test_parameters_are_listed_with_their_defaults() -> None:
    vllm = ("version='0.19'", "watermark=None", "preemption_mode='recompute'")
    assert policy_info("vllm").params == vllm
    assert policy_info("static").params == ("batch_delay_s=0.0",)
    assert policy_info("disaggregated").params == ("prefill='prefill'", "decode='decode'")
    assert policy_info("round_robin").params == policy_info("random").params == ()


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("vllm", {"watermark": "abc"}, "params.watermark: found 'abc', expected a number >= 0 and <= 1"),
        ("vllm", {"watermark": 5}, "params.watermark: found 5, expected"),
        ("vllm", {"watermark": -0.1}, "params.watermark: found -0.1, expected"),
        ("vllm", {"watermark": True}, "params.watermark: found True, expected"),
        ("vllm", {"version": "1.0"}, "params.version: found '1.0', expected '0.6' or '0.19'"),
        ("static", {"batch_delay_s": "abc"}, "params.batch_delay_s: found 'abc', expected a number >= 0"),
        ("static", {"batch_delay_s": -3}, "params.batch_delay_s: found -3, expected a number >= 0"),
        ("static", {"batch_delay_s": float("nan")}, "params.batch_delay_s: found nan, expected a number >= 0"),
    ],
)
def test_parameters_are_checked_when_the_policy_is_made(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_policy(name, "schedule", params=params).make()
    assert str(caught.value).startswith(message)


def test_a_class_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    file = tmp_path / "ini.py"
    file.write_text("class route:\n    def __init__(self, weights):\n        self.total = sum(weights)\n")
    with pytest.raises(InputError, match=r"policy '.*ini\.py' raised TypeError: unsupported .* at ini\.py:3$"):
        load_policy(str(file), "route", params={"weights": "abc"}).make()


def test_numbers_within_limits() -> None:
    assert check_number("n", 0, least=0) == 0.0
    with pytest.raises(InputError, match=r"^n: found None, expected a number >= 1$"):
        check_number("n", None, least=1)


@pytest.mark.parametrize("policy", ["orca", "static"])
def test_the_most_urgent_are_admitted_first_also_without_preemption(policy: str) -> None:
    engine = Engine(max_num_seqs=1, scheduling_policy="priority")
    requests = serve(make_cluster(schedule=policy, engine=engine), [(0, 10, 5)] * 6, priorities=3)
    by_end = sorted(requests[1:], key=lambda request: request.finish_ns)  # the first found the worker idle
    assert [request.priority for request in by_end] == [0, 1, 1, 2, 2]
