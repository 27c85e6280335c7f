"""Whatever is wrong with the input: one line on stderr, exit status 2, no traceback, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

IN_THE_FILE = {
    "empty file": ("", "the file is empty"),
    "a list, not a mapping": ("- model: x", "found a list, expected a mapping"),
    "broken YAML": ("model: [", "line 1, column 9: not valid YAML"),
    "a tab for indentation": ("workers:\n\t- x", "line 2, column 1: not valid YAML"),
    "Python in YAML": ("model: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
}
CHANGES = {
    "misspelt key": ("model:", "modle:", "modle: found an unknown key; did you mean 'model'?"),
    "missing model": ("model: llama-3.1-8b\n", "", "model: missing, expected text"),
    "missing device": (", device: a100-sxm-80gb", "", "workers[0].device: missing, expected text"),
    "key that stands twice": (
        "slo:",
        "model: x\nslo:",
        "line 6, column 1: not valid YAML: the key 'model' stands twice",
    ),
    "model is a number": ("llama-3.1-8b", "8", "model: found 8, expected text"),
    "unknown model": ("llama-3.1-8b", "llama-3.1-8bb", "model: no bundled model is called 'llama-3.1-8bb'; did you"),
    "unknown device": ("a100-sxm", "a100-smx", "workers[0].device: no device is called 'a100-smx-80gb'; did you mean"),
    "missing device card": ("a100-sxm-80gb", "my.toml", "my.toml: cannot be read: No such file or directory"),
    "unknown policy": ("schedule: vllm", "schedule: vlm", "policies.schedule: no schedule policy is called 'vlm'; did"),
    "policy of another kind": ("route: least_loaded", "route: vllm", "policies.route: policy 'vllm' is for schedule"),
    "policy file that is not there": (
        "schedule: vllm",
        "schedule: my.py:f",
        "policies.schedule: policy 'my.py:f': there",
    ),
    "unknown policy parameter": (
        "schedule: vllm",
        "schedule: {name: vllm, params: {watermrak: 0.1}}",
        "policies.schedule: policy 'vllm' has no parameter 'watermrak'; did you mean 'watermark'?",
    ),
    "no workers": ("[{name: gpu, device: a100-sxm-80gb}]", "[]", "workers: found an empty list, expected a list of"),
    "no worker in a group": ("{name: gpu", "{count: 0, name: gpu", "workers[0].count: found 0, expected a whole"),
    "two groups of one name": (
        "[{name: gpu, device: a100-sxm-80gb}]",
        "[{device: a100-sxm-80gb}, {device: a100-sxm-80gb}]",
        "workers[1].name: found 'worker', which workers[0] is called already",
    ),
    "budget below sequences": (
        "{name: gpu",
        "{engine: {max_num_seqs: 512, max_num_batched_tokens: 256}, name: gpu",
        "workers[0].engine.max_num_batched_tokens: found 256, expected at least max_num_seqs (512)",
    ),
    "text for a number": ("{name: gpu", "{engine: {block_size: big}, name: gpu", "block_size: found 'big', expected a"),
    "share above one": (
        "{name: gpu",
        "{engine: {gpu_memory_utilization: 90}, name: gpu",
        "found 90, expected a number",
    ),
    "unknown engine argument": ("{name: gpu", "{engine: {max_seqs: 9}, name: gpu", "did you mean 'max_num_seqs'?"),
    "unknown dtype": ("{name: gpu", "{engine: {dtype: float61}, name: gpu", "unknown dtype 'float61'; did you mean"),
    "model too large": ("llama-3.1-8b", "llama-3.1-70b", "workers[0]: llama-3.1-70b needs 141.1 GB of weights"),
    "zero requests": ("requests: 40", "requests: 0", "workload.requests: found 0, expected a whole number >= 1"),
    "no number of requests": ("requests: 40, ", "", "workload.requests: missing"),
    "no arrivals": ("arrivals: {process: poisson, rate: 8}, ", "", "workload.arrivals: missing, expected arrivals and"),
    "trace and arrivals": (
        "lengths:",
        "trace: {path: x.csv}, lengths:",
        "workload.arrivals: says nothing beside trace",
    ),
    "trace that is not there": (
        "arrivals: {process: poisson, rate: 8}, lengths: {input: 100, output: 20}",
        "trace: {path: nowhere.csv}",
        "nowhere.csv",
    ),
    "unknown arrival process": ("poisson", "poison", "workload.arrivals.process: found 'poison', expected one of"),
    "parameter of another process": (
        "rate: 8",
        "rate: 8, burstiness: 1",
        "workload.arrivals.burstiness: found an unkn",
    ),
    "negative rate": ("rate: 8", "rate: -8", "workload.arrivals.rate: found -8, expected a number > 0"),
    "NaN": ("rate: 8", "rate: .nan", "workload.arrivals.rate: found nan, expected a finite number"),
    "infinity": ("rate: 8", "rate: .inf", "workload.arrivals.rate: found inf, expected a finite number"),
    "unknown preset": ("{input: 100, output: 20}", "{preset: azure-conv}", "did you mean 'azure-conv-2023'"),
    "limits that exclude everything": (
        "input: 100",
        "input: {distribution: uniform, min: 9, max: 3}",
        "workload.lengths.input.max: found 3, expected at least min (9)",
    ),
    "SLO without a limit": ("{ttft_s: 15, max_gap_s: 0.3}", "{}", "slo: expected at least one of ttft_s, tpot_s"),
    "negative seed": ("slo:", "seed: -1\nslo:", "seed: found -1, expected a whole number >= 0"),
    "misspelt moment": ("slo:", "hooks: [{at: first_tokn, call: hand_over}]\nslo:", "did you mean 'first_token'?"),
    "no moment": ("slo:", "hooks: [{call: hand_over}]\nslo:", "hooks[0]: found none of at, before and after, expected"),
    "unknown hook": (
        "slo:",
        "hooks: [{at: token, call: hand_ovr}]\nslo:",
        "hooks[0].call: no hook is called 'hand_ovr'",
    ),
    "a hook that is a router": (
        "slo:",
        "hooks: [{at: token, call: random}]\nslo:",
        "'random' is for route, not for hook",
    ),
    "an operator that there is not": (
        "slo:",
        "hooks: [{after: layers.*.oproj, call: delay, params: {us: 1}}]\nslo:",
        "hooks[0].after: 'layers.*.oproj' fits no operator of llama-3.1-8b; did you mean 'o_proj'?",
    ),
    "a layer that there is not": (
        "slo:",
        'hooks: [{after: "layers[99]", call: delay, params: {us: 1}}]\nslo:',
        "fits no layer: llama-3.1-8b has layers 0 to 31",
    ),
    "a hook for another group": (
        "slo:",
        "hooks: [{at: token, group: gpus, call: hand_over}]\nslo:",
        "hooks[0].group: no group of workers is called 'gpus'; did you mean 'gpu'?",
    ),
    "operators of a closed form": (
        "device: a100-sxm-80gb",
        "device: a100-sxm-80gb, timing: {model: tokensim}}]\nhooks: [{after: lm_head, call: delay, params: {us: 1}",
        "hooks[0].after: timing model TokenSim has iteration_ns alone",
    ),
    "network without a bandwidth": (
        "slo:",
        "network: {send_kv: layer}\nslo:",
        "network: give bandwidth_gb_s, or the path",
    ),
    "negative preload": (
        "slo:",
        "network: {bandwidth_gb_s: 1, preload: -1}\nslo:",
        "network.preload: found -1, expected a whole number >= 0",
    ),
    "network file that is not there": (
        "{name: gpu, device: a100-sxm-80gb}]",
        "{name: gpu, count: 2, device: a100-sxm-80gb}]\nnetwork: {path: no.yml}",
        "no.yml: cannot be read: No such file or directory\n",
    ),
    "misspelt signal": (
        "policies: {",
        "policies: {signals: {intervals: 1}, ",
        "policies.signals.intervals: found an unknown key; did you mean 'interval_s'?",
    ),
    "no interval": ("policies: {", "policies: {signals: {interval_s: 0}, ", "policies.signals.interval_s: found 0"),
    "a closed loop of nobody": (
        "{process: poisson, rate: 8}",
        "{process: closed_loop, concurrency: 0}",
        "workload.arrivals.concurrency: found 0, expected a whole number >= 1",
    ),
    "more stages than layers": (
        "{name: gpu",
        "{engine: {pipeline_parallel_size: 64}, name: gpu",
        "workers[0]: 32 layers cannot make 64 pipeline stages",
    ),
    "experts that there are not": (
        "{name: gpu",
        "{engine: {enable_expert_parallel: true}, name: gpu",
        "enable_expert_parallel: found true, expected false: llama-3.1-8b has no experts",
    ),
    "routing without experts": (
        "{name: gpu",
        "{timing: {routing: balanced}, name: gpu",
        "workers[0].timing.routing: says nothing: llama-3.1-8b has no experts",
    ),
    "swapping with an engine that does not": (
        "schedule: vllm",
        "schedule: {name: vllm, params: {preemption_mode: swap}}",
        "policies.schedule.params.preemption_mode: found 'swap', expected 'recompute', or 'swap' with 0.6",
    ),
    "measurements that are not there": (
        "{name: gpu",
        "{timing: {model: profile, path: nowhere}, name: gpu",
        "nowhere: no such folder of measured kernels",
    ),
    "an end before the start": ("slo:", "until_s: 0\nslo:", "until_s: found 0, expected a number >= 1e-09"),
}
ON_THE_COMMAND_LINE = {
    "override without a value": (["--set", "seed"], "--set: found 'seed', expected path=value"),
    "override of an unknown key": (
        ["--set", "workers[0].devise=x"],
        "--set: workers[0].devise: found an unknown key; did",
    ),
    "override beyond the list": (["--set", "workers[1].count=2"], "--set: workers[1]: there is no entry 1"),
    "override given twice": (["--set", "seed=1", "--seed", "2"], "--set: seed: given twice"),
    "override out of range": (["--set", "slo.ttft_s=0"], "--set: slo.ttft_s: found 0, expected a number > 0"),
    "seed that is no number": (["--seed", "x"], "Invalid value for '--seed': found 'x', expected a whole number >= 0"),
    "no requests": (["-n", "0"], "Invalid value for '--requests' / '-n': found '0', expected a whole number >= 1"),
    "unknown option": (["--sed", "1"], "No such option: --sed"),
    "unknown log level": (["--log-level", "loud"], "'loud' is not one of 'debug', 'info'"),
    "option without effect": (["--log-json"], "--log-json: has no effect without --log-level"),
    "an argument too many": (["again.yaml"], "Got unexpected extra argument"),
}


Command = Callable[..., tuple[int, str, str]]


def check(simloop: Command, tmp_path: Path, arguments: list[str | Path], message: str) -> None:
    before = sorted(tmp_path.iterdir())
    status, stdout, stderr = simloop("run", *arguments)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert message in stderr
    assert "Traceback" not in stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("text", "message"), IN_THE_FILE.values(), ids=IN_THE_FILE.keys())
def test_files(simloop: Command, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    check(simloop, tmp_path, [path, "--out", tmp_path / "out"], message)


@pytest.mark.parametrize(("old", "new", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_scenarios(
    simloop: Command, scenario: Callable[..., Path], tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = scenario((old, new))
    check(simloop, tmp_path, [path, "--out", tmp_path / "out"], message)


@pytest.mark.parametrize(("options", "message"), ON_THE_COMMAND_LINE.values(), ids=ON_THE_COMMAND_LINE.keys())
def test_options(
    simloop: Command, scenario: Callable[..., Path], tmp_path: Path, options: list[str], message: str
) -> None:
    check(simloop, tmp_path, [scenario(), "--out", tmp_path / "out", *options], message)


def test_a_scenario_that_is_not_there(simloop: Command, tmp_path: Path) -> None:
    check(simloop, tmp_path, [tmp_path / "none.yaml"], f"{tmp_path / 'none.yaml'}: there is no such file")
    check(simloop, tmp_path, ["quickstrat"], "bundled scenario; did you mean 'quickstart'?")
    check(simloop, tmp_path, [], "Missing argument 'SCENARIO'")


def test_a_trace_without_a_request(simloop: Command, scenario: Callable[..., Path], tmp_path: Path) -> None:
    arrivals = "arrivals: {process: poisson, rate: 8}, lengths: {input: 100, output: 20}"
    path = scenario((arrivals, "trace: {path: trace.csv}"), ("requests: 40, ", ""))
    (tmp_path / "trace.csv").write_text("arrival_s,input_tokens,output_tokens\n", encoding="utf-8")
    check(simloop, tmp_path, [path, "--out", tmp_path / "out"], "trace.csv: no request in it, expected at least one")
    (tmp_path / "trace.csv").write_text("", encoding="utf-8")
    check(simloop, tmp_path, [path, "--out", tmp_path / "out"], "trace.csv: the file is empty, expected a trace")


def test_a_hook_that_is_not_async(simloop: Command, scenario: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def hook(moment):\n    pass\n", encoding="utf-8")
    path = scenario(("slo:", "hooks: [{at: token, call: mine.py}]\nslo:"))
    check(simloop, tmp_path, [path, "--out", tmp_path / "out"], "'moment'; write 'async def'")


def test_a_row_of_a_trace_that_is_found_while_the_run_goes_on(
    simloop: Command, scenario: Callable[..., Path], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{number},100,20" for number in range(5000)]
    trace.write_text("\n".join(["arrival_s,input_tokens,output_tokens", *rows, "5000,-3,20"]), encoding="utf-8")
    arrivals = "arrivals: {process: poisson, rate: 8}, lengths: {input: 100, output: 20}"
    path = scenario((arrivals, "trace: {path: trace.csv}"), ("requests: 40, ", ""))
    check(simloop, tmp_path, [path, "--out", tmp_path / "out"], f"{trace}: line 5002: ")


def test_output_that_is_not_simloops(simloop: Command, scenario: Callable[..., Path], tmp_path: Path) -> None:
    path, out = scenario(), tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("years of work", encoding="utf-8")
    check(simloop, tmp_path, [path, "--out", out], "the folder holds something other than a run: 'chapter1.tex'")
    check(simloop, tmp_path, [path, "--out", path], "expected a folder")
    check(simloop, tmp_path, [path, "--out", path / "inside"], "cannot write to")
    assert (out / "chapter1.tex").read_text(encoding="utf-8") == "years of work"


@pytest.mark.parametrize(
    ("command", "near"),
    [("devices", "a100-sxm-80gb"), ("models", "llama-3.1-8b"), ("policies", "vllm"), ("workloads", "azure-conv-2023")],
)
def test_names_to_show(simloop: Command, command: str, near: str) -> None:
    status, stdout, stderr = simloop(command, f"{near}x")
    assert (status, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert f"did you mean {near!r}?" in stderr


def test_an_unknown_command(simloop: Command) -> None:
    status, _, stderr = simloop("rnu")
    assert status == 2
    assert stderr.startswith("error: No such command 'rnu'")
    assert stderr.count("\n") == 1


def test_options_of_the_command_are_refused_in_simloops_words(simloop: Command) -> None:
    found = "error: No such option: --nosuch; did you mean --out? (see 'simloop run --help')\n"
    assert simloop("run", "x", "--nosuch") == (2, "", found)
    assert "Value error" not in simloop("run", "x", "--log-level", "loud")[2]
