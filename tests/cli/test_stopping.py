"""Ctrl-C and SIGTERM, whenever they come; and `simulate` where a loop runs already."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import simloop

Write = Callable[..., Path]
Command = Callable[..., tuple[int, str, str]]
LONG = ("requests: 40", "requests: 100000000")
SENDS = "import os, signal\nsent = []\nasync def route(request, cluster):\n    if request.id == 5 and not sent:\n"
ONCE = SENDS + "        sent.append(os.kill(os.getpid(), signal.SIGINT))\n    return cluster.workers[0]\n"
KILLS = "        for _ in range(2):\n            os.kill(os.getpid(), signal.SIGINT)\n            time.sleep(0.05)\n"
BUSY = f"import time\n{SENDS}{KILLS}        while True:\n            pass\n    return cluster.workers[0]\n"


def stopped(scenario: Write, code: str) -> Path:
    """Write a scenario whose router signals its own process."""
    path = scenario(LONG, ("route: least_loaded", "route: signals.py:route"))
    (path.parent / "signals.py").write_text(code, encoding="utf-8")
    return path


@pytest.mark.parametrize("code", [ONCE, BUSY], ids=["awaits", "busy"])
def test_ctrl_c_ends_the_program_around_a_simulation_and_hands_over_what_there_is(scenario: Write, code: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(simloop.Interrupted) as raised:
        simloop.simulate(stopped(scenario, code))
    assert isinstance(raised.value, KeyboardInterrupt)
    assert raised.value.result.complete is False
    assert raised.value.result.reason == "interrupted by SIGINT"
    assert raised.value.result.summary()["num_prompts"] >= 5
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("code", [ONCE, BUSY], ids=["awaits", "busy"])
def test_a_simulation_inside_a_running_loop(scenario: Write, code: str) -> None:
    async def notebook() -> None:
        assert simloop.simulate(scenario()).summary()["completed"] == 40
        with pytest.raises(simloop.InputError):
            simloop.simulate(scenario(("llama-3.1-8b", "llama-99")))
        with pytest.raises(simloop.Interrupted) as raised:
            simloop.simulate(stopped(scenario, code))
        assert raised.value.result.complete is False

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        runner.run(notebook())


def test_a_signal_while_results_are_written_loses_nothing(
    simloop: Command, scenario: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simloop.report import files

    write = files._write_files

    def signalled(*args: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        write(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(files, "_write_files", signalled)
    assert simloop("run", scenario(), "-q", "--out", tmp_path / "out") == (143, "", "")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["out"]
    assert not (tmp_path / "out" / "PARTIAL.txt").exists()


def test_a_second_signal_while_results_are_written_leaves_nothing_behind(
    simloop: Command, scenario: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from simloop.report import files

    def signalled(*args: object, **options: object) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(files, "_write_files", signalled)
    status, _, stderr = simloop("run", scenario(), "-q", "--out", tmp_path / "out")
    assert (status, stderr) == (143, "warning: interrupted: there are no results\n")
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_ctrl_c_while_the_command_is_loaded_prints_no_traceback() -> None:
    code = "import os, signal, sys\nsys.modules['simloop.cli'] = None\nimport simloop.__main__ as command\n"
    code += "import builtins\nimporting = builtins.__import__\n"
    code += "def hook(name, *rest):\n    if name == 'simloop.cli': os.kill(os.getpid(), signal.SIGINT)\n"
    code += "    return importing(name, *rest)\nbuiltins.__import__ = hook\ncommand.main()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")


@pytest.mark.parametrize("module", ["simloop", "simloop.cli"])
def test_the_command_as_a_module(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed: found -1, expected a whole number >= 0"),
        ({"requests": 0}, "requests: found 0, expected a whole number >= 1"),
        ({"seed": 1.5}, "seed: found 1.5, expected a whole number >= 0"),
        ({"overrides": "seed=3"}, "overrides: found 'seed=3', expected a list: ['seed=3']"),
    ],
)
def test_arguments_of_simulate_are_named(scenario: Write, options: dict[str, object], message: str) -> None:
    with pytest.raises(simloop.InputError) as raised:
        simloop.simulate(scenario(), **options)  # type: ignore[arg-type]
    assert str(raised.value) == message
