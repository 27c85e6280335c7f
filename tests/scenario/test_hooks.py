"""Breakpoints that a scenario registers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import simloop
from simloop.errors import InputError
from simloop.scenario import load_scenario
from simloop.serving import Cluster

HOOKS = """
seen = []

async def log(moment, *, note=None):
    seen.append((str(moment), note))

class count:
    def __init__(self, most):
        self.most = most

    async def __call__(self, moment):
        seen.append(self)
        if seen.count(self) > self.most:
            raise RuntimeError("too many")

class unmade:
    def __init__(self):
        1 / 0
"""


@pytest.fixture
def hooked(good: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """A small scenario beside a file of hooks."""
    (tmp_path / "hooks.py").write_text(HOOKS, encoding="utf-8")
    good["workload"]["requests"] = 3
    good["policies"].pop("schedule")
    return good


def call(tmp_path: Path, function: str) -> str:
    return f"{tmp_path / 'hooks.py'}:{function}"


def seen_by(cluster: Cluster, moment: str) -> list[Any]:
    """Return what the file of the first hook of a moment has seen."""
    listener = cluster.hooks.by_moment[moment][0]
    function = getattr(listener.call, "func", listener.call)
    seen = getattr(function, "__globals__", None) or type(function).__call__.__globals__
    return list(seen["seen"])


async def serve(cluster: Cluster) -> None:
    async with cluster:
        await cluster.generate(prompt_tokens=30, output_tokens=2)


def test_hooks_are_called_with_their_parameters_at_moments_and_operators(
    hooked: dict[str, Any], tmp_path: Path
) -> None:
    hooked["hooks"] = [
        {"at": "first_token", "call": call(tmp_path, "log"), "params": {"note": 7}},
        {"before": "lm_head", "call": call(tmp_path, "log"), "background": True},
        {"after": "layers[-1]", "call": call(tmp_path, "log")},
    ]
    cluster = simloop.cluster(hooked)
    simloop.run(serve(cluster))
    name = cluster.workers[0].name
    last = cluster.workers[0].model.num_layers - 1
    step = [(f"after layers.{last} on {name}", None), (f"before lm_head on {name}", None)]
    assert seen_by(cluster, "first_token") == [*step, ("at 'first_token' of request 0", 7), *step]


def test_each_entry_has_a_state_of_its_own_anew_in_every_run(hooked: dict[str, Any], tmp_path: Path) -> None:
    hooked["hooks"] = [{"at": "token", "call": call(tmp_path, "count"), "params": {"most": 2}} for _ in range(2)]
    for _ in range(2):
        cluster = simloop.cluster(hooked)
        simloop.run(serve(cluster))
        assert len(set(seen_by(cluster, "token"))) == 2


def test_files_of_hooks_lie_beside_the_scenario(hooked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_text(
        "model: llama-3.1-8b\nworkers: [{device: a100-sxm-80gb}]\n"
        "hooks: [{at: arrival, call: 'hooks.py:log'}]\n"
        "workload: {requests: 2, arrivals: {process: burst}, lengths: {input: 5, output: 5}}\n",
        encoding="utf-8",
    )
    assert load_scenario(tmp_path / "scenario.yaml").hooks[0].call == call(tmp_path, "log")
    assert simloop.simulate(tmp_path / "scenario.yaml").complete


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("{call: HOOKS:log}", "hooks[0]: found none of at, before and after, expected one"),
        ("{at: token, after: lm_head, call: HOOKS:log}", "hooks[0]: found at and after of at, before and after"),
        ("{at: frist_token, call: HOOKS:log}", "hooks[0].at: found 'frist_token', expected one of admitted, arrival"),
        ("{at: token, call: HOOKS:log, backgroud: true}", "hooks[0].backgroud: found an unknown key; did you mean"),
        ("{at: token, call: HOOKS:log, background: 1}", "hooks[0].background: found 1, expected true or false"),
        ("{at: token}", "hooks[0].call: missing, expected text"),
        (
            "{at: token, call: HOOKS:lag}",
            "hooks[0].call: hook 'HOOKS:lag': the module has no function 'lag'; did you",
        ),
        ("{at: token, call: nosuch}", "hooks[0].call: no hook is called 'nosuch'"),
        ("{at: token, call: vllm}", "hooks[0].call: policy 'vllm' is for schedule, not for hook (for hook: delay"),
        ("{at: token, call: none.py}", "hooks[0].call: hook 'none.py': there is no file"),
        (
            "{at: token, call: HOOKS:log, params: {nte: 1}}",
            "hooks[0].call: hook 'HOOKS:log' has no parameter 'nte'; did",
        ),
        ("{at: token, call: HOOKS:unmade}", "hooks[0]: hook 'HOOKS:unmade' raised ZeroDivisionError"),
        ("{at: token, call: delay, params: {us: -1}}", "hooks[0].params.us: found -1, expected a number >= 0"),
        (
            "{after: layers.*.out_proj, call: delay, params: {us: 1}}",
            "hooks[0].after: 'layers.*.out_proj' fits no opera",
        ),
        (
            "{before: lm_haed, call: delay, params: {us: 1}}",
            "hooks[0].before: 'lm_haed' fits no operator of llama-3.1-8",
        ),
        (
            "{at: token, call: delay, params: {us: 1}, group: gpus}",
            "hooks[0].group: no group of workers is called 'gpus'; did you mean 'gpu'? (there are: gpu)",
        ),
        (
            "{at: arrival, call: delay, params: {us: 1}, group: gpu}",
            "hooks[0].at: 'arrival' is before there is a worker",
        ),
        ("{before: '', call: delay, params: {us: 1}}", "hooks[0].before: found '', expected text that is not empty"),
    ],
)
def test_what_is_wrong_with_a_hook_is_said_with_its_place(
    hooked: dict[str, Any], tmp_path: Path, hook: str, message: str
) -> None:
    file = str(tmp_path / "hooks.py")
    with pytest.raises(InputError) as caught:
        load_scenario(hooked, overrides=[f"hooks=[{hook.replace('HOOKS', file)}]"])
    assert str(caught.value).startswith(f"--set: {message.replace('HOOKS', file)}")


def test_the_bundled_breakpoint_disaggregates_like_the_policy() -> None:
    """Two lines, in a hook and a router, do what the scheduling policy ``disaggregated`` does.

    That one hands requests back with the iteration that completes their prompts, the hook after it; with one decode
    worker there is no choice that could fall differently.
    """
    alone = ["workers[1].count=1", "workload.arrivals.rate=4"]
    hook, policy = (simloop.simulate(name, requests=300, overrides=alone) for name in ("breakpoints", "disaggregated"))
    assert hook.requests.equals(policy.requests)
    assert hook.summary()["completed"] == 300


def test_delays_in_layers_lengthen_every_iteration(hooked: dict[str, Any]) -> None:
    hooked["workload"].update(requests=1, lengths={"input": 50, "output": 10})
    plain = simloop.simulate(hooked)
    hooked["hooks"] = [{"after": "layers[::4]", "call": "delay", "params": {"us": 50}}]
    slow = simloop.simulate(hooked)
    assert slow.end_ns - plain.end_ns == 10 * (32 // 4) * 50_000
