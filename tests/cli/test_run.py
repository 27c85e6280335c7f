from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from simloop import Progress, simulate
from simloop.cli.progress import describe, virtual_time

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


def test_a_table_that_fits_80_columns(simloop: Command, scenario: Write) -> None:
    status, stdout, stderr = simloop("run", scenario())
    assert (status, stderr) == (0, "")
    assert 0 < max(map(len, stdout.splitlines())) <= 80
    assert "TTFT" in stdout


def test_json_is_the_summary_alone(simloop: Command, scenario: Write) -> None:
    status, stdout, stderr = simloop("run", scenario(), "--json")
    assert (status, stderr) == (0, "")
    summary = json.loads(stdout)
    assert summary["completed"] == 40
    assert summary["complete"] is True
    same = simulate(scenario()).summary()
    assert summary["p99_ttft_ms"] == same["p99_ttft_ms"]


def test_quiet_says_nothing(simloop: Command, scenario: Write, tmp_path: Path) -> None:
    assert simloop("run", scenario(), "--quiet", "--out", tmp_path / "out") == (0, "", "")
    assert json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["completed"] == 40


def test_seed_requests_and_overrides_take_effect(simloop: Command, scenario: Write) -> None:
    _, stdout, _ = simloop("run", scenario(), "--json", "--seed", "5", "-n", "7", "--set", "workers[0].count=2")
    summary = json.loads(stdout)
    assert (summary["seed"], summary["num_prompts"]) == (5, 7)
    assert summary["completed"] == 7


def test_the_output_can_be_run_again_and_gives_the_same(simloop: Command, scenario: Write, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    assert simloop("run", scenario(), "-q", "--out", first, "--set", "workers[0].count=2", "--seed", "9")[0] == 0
    assert simloop("run", first / "scenario.yaml", "-q", "--out", second)[0] == 0
    assert {path.name for path in first.iterdir()} == {
        *("summary.json", "requests.parquet", "timeseries.parquet", "scenario.yaml")
    }
    for name in ("requests.parquet", "timeseries.parquet", "scenario.yaml"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert simloop("run", first / "scenario.yaml", "-q", "--out", first)[0] == 0, "an earlier run is replaced"


def test_a_run_that_its_scenario_ends_is_partial_and_says_so(simloop: Command, scenario: Write, tmp_path: Path) -> None:
    status, stdout, stderr = simloop("run", scenario(), "--set", "until_s=1", "--out", tmp_path / "out", "--json")
    assert status == 0
    assert stderr == "warning: the run is partial: stopped at until_s = 1\n"
    assert json.loads(stdout)["complete"] is False
    assert (tmp_path / "out" / "PARTIAL.txt").exists()


def test_a_policy_that_fails_ends_the_run_with_1(simloop: Command, scenario: Write, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("async def route(request, cluster):\n    return 1 / 0\n", encoding="utf-8")
    path = scenario(("route: least_loaded", "route: broken.py:route"))
    status, stdout, stderr = simloop("run", path, "--out", tmp_path / "out")
    assert (status, stdout) == (1, "")
    assert "broken.py:route" in stderr
    assert "ZeroDivisionError" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


def test_checked_runs_are_the_same(simloop: Command, scenario: Write) -> None:
    plain, checked = (json.loads(simloop("run", scenario(), "--json", *more)[1]) for more in ([], ["--check"]))
    timings = ("wall_s", "simulated_s_per_wall_s")
    assert {k: v for k, v in plain.items() if k not in timings} == {
        k: v for k, v in checked.items() if k not in timings
    }


def test_progress_is_said_in_virtual_time() -> None:
    progress = Progress(virtual_s=3754.2, finished=1500, total=2000, running=12, waiting=3)
    assert describe(progress) == "1,500/2,000 done 12 running 3 waiting virtual 1:02:34"
    assert describe(Progress(virtual_s=0.5, finished=7, total=None, running=1, waiting=0)).startswith("7 done ")
    assert virtual_time(59.9) == "0:00:59"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_writes_what_it_has(
    scenario: Write, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    (tmp_path / "tell.py").write_text(
        f"from pathlib import Path\nasync def control(cluster):\n    Path({str(tmp_path / 'started')!r}).touch()\n",
        encoding="utf-8",
    )
    path = scenario(
        ("requests: 40", "requests: 100000000"), ("schedule: vllm", "schedule: vllm, control: tell.py:control")
    )
    command = [sys.executable, "-m", "simloop", "run", str(path), "--out", str(tmp_path / "out"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(tmp_path / "started")
    time.sleep(0.2)
    os.kill(process.pid, number)
    stdout, stderr = process.communicate(timeout=20)
    assert process.returncode == status
    assert stderr == f"warning: the run is partial: interrupted by {number.name}\n"
    summary = json.loads(stdout)
    assert summary["complete"] is False
    assert summary["completed"] > 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8")) == summary
    assert (tmp_path / "out" / "PARTIAL.txt").exists()


def test_a_stdout_that_lacks_letters_or_is_full(scenario: Write) -> None:
    command = [sys.executable, "-m", "simloop", "run", str(scenario())]
    plain = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    done = subprocess.run(command, capture_output=True, text=True, env=plain, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "kept TTFT <= 15 s" in done.stdout
    with Path("/dev/full").open("w") as full:
        failed = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (failed.returncode, failed.stderr) == (1, "error: [Errno 28] No space left on device\n")


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)


def test_the_installed_command(scenario: Write, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "simloop",
        "run",
        str(scenario(("model:", "modle:"))),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: .*: modle: found an unknown key; did you mean 'model'\? \(.*\)\n", done.stderr)
    assert not (tmp_path / "out").exists()


def test_explain_memory_says_where_it_goes(simloop: Command) -> None:
    status, _, errors = simloop("run", "quickstart", "--requests", "5", "--explain-memory", "--quiet")
    assert status == 0
    assert "gpu: llama-3.1-8b on a100-sxm-80gb" in errors
    assert "KV blocks of 16 tokens" in errors
