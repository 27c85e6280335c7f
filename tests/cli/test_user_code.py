"""Policies and hooks in a file of the user's, with state: they work, raise, or wait for ever, through the command."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]

MINE = '''
import simloop
from simloop.serving import load_policy

class Counting:
    """Does what it should, counts, and at the third time does what the scenario says."""

    def __init__(self, then="nothing"):
        self.then, self.calls = then, 0

    async def count(self):
        self.calls += 1
        if self.calls == 3 and self.then == "raise":
            raise KeyError("the third")
        if self.calls == 3 and self.then == "hang":
            await simloop.Event("what never comes").wait()
        if self.calls == 3 and self.then == "spin":
            while True:
                await simloop.sleep(0)

class route(Counting):
    async def __call__(self, request, cluster):
        await self.count()
        return cluster.workers[0]

class schedule(Counting):
    def __init__(self, then="nothing"):
        super().__init__(then)
        self.vllm = load_policy("vllm", "schedule").make()

    async def __call__(self, worker):
        await self.count()
        return await self.vllm(worker)

class control(Counting):
    async def __call__(self, cluster):
        while True:
            await simloop.sleep(0.5)
            await self.count()

class hook(Counting):
    async def __call__(self, moment):
        await self.count()
'''

PLACES = {
    "route": "policies.route={name: mine.py, params: {then: THEN}}",
    "schedule": "policies.schedule={name: mine.py, params: {then: THEN}}",
    "control": "policies.control={name: mine.py, params: {then: THEN}}",
    "moment": "hooks=[{at: first_token, call: mine.py, params: {then: THEN}}]",
    "operator": 'hooks=[{after: "layers[::16].o_proj", call: mine.py, params: {then: THEN}}]',
    "background": "hooks=[{at: first_token, call: mine.py, params: {then: THEN}, background: true}]",
}

AT, AT_S = r"at mine\.py:14", r"\(t = \d+\.\d+ s"
WHOM = {
    "route": rf"routing policy \S*mine\.py raised KeyError: 'the third' {AT} {AT_S}, request 2\)",
    "schedule": rf"scheduling policy \S*mine\.py raised KeyError: 'the third' {AT} {AT_S}, worker gpu-0 .*\)",
    "control": rf"controller \S*mine\.py raised KeyError: 'the third' {AT} \(t = 1\.5\d* s\)",
    "moment": rf"hook \S*mine\.py at 'first_token' of request 2 raised KeyError: 'the third' {AT} {AT_S}\)",
    "operator": rf"hook \S*mine\.py after layers\.0\.o_proj on gpu-0 raised KeyError: 'the third' {AT} {AT_S}\)",
    "background": rf"hook \S*mine\.py at 'first_token' of request 2 raised KeyError: 'the third' {AT} {AT_S}\)",
}

WAITS = r"at .*mine\.py:16 in Counting\.count: .*waits for Event 'what never comes'(.*\n)*"
STUCK = {
    "route": rf"task 'routing request 2' {WAITS}1 requests are being routed by \S*mine\.py",
    "schedule": rf"task 'worker gpu-0' {WAITS}worker gpu-0 \(policy \S*mine\.py\): ",
    "moment": r"\nhook \S*mine\.py at 'first_token' of request 2 has not returned since t = \d",
    "operator": r"\nhook \S*mine\.py after layers\.0\.o_proj on gpu-0 has not returned since t = \d",
    "background": r"\nhook \S*mine\.py at 'first_token' of request 2 has not returned since t = \d",
}


@pytest.fixture
def with_mine(simloop: Command, scenario: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the small scenario with something of the user's in one place; return status, stdout, stderr."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return lambda place, then: simloop("run", scenario(), "-q", "--set", PLACES[place].replace("THEN", then))


@pytest.mark.parametrize("place", PLACES)
def test_it_works_with_state(with_mine: Command, place: str) -> None:
    assert with_mine(place, "nothing") == (0, "", "")


@pytest.mark.parametrize("place", PLACES)
def test_an_error_ends_the_run_with_one_line_that_names_it(with_mine: Command, place: str) -> None:
    status, stdout, stderr = with_mine(place, "raise")
    assert (status, stdout) == (1, "")
    assert re.fullmatch(rf"error: {WHOM[place]}.*\n", stderr), stderr


@pytest.mark.parametrize("place", STUCK)
def test_waiting_for_ever_ends_with_a_report_that_names_it(with_mine: Command, place: str) -> None:
    status, stdout, stderr = with_mine(place, "hang")
    assert (status, stdout) == (1, "")
    assert "nothing is ready and no timer is set at " in stderr
    assert re.search(STUCK[place], stderr), stderr


def test_a_controller_that_waits_for_ever_keeps_nobody_up(with_mine: Command) -> None:
    assert with_mine("control", "hang") == (0, "", "")


def test_a_process_of_its_own_says_the_same(scenario: Write, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    change = PLACES["operator"].replace("THEN", "hang").replace("mine.py", str(tmp_path / "mine.py"))
    command = [sys.executable, "-m", "simloop", "run", str(scenario()), "--set", change]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(STUCK["operator"], done.stderr), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("place", ["route", "moment"])
def test_a_loop_in_which_time_stands_still_is_named(with_mine: Command, place: str) -> None:
    status, stdout, stderr = with_mine(place, "spin")
    assert (status, stdout) == (1, "")
    assert "the clock does not move" in stderr
    assert re.search(r"mine\.py:1[89] in Counting\.count", stderr), stderr


@pytest.mark.filterwarnings("default")
def test_warnings_are_one_line_each(simloop: Command, scenario: Write, tmp_path: Path) -> None:
    code = """import warnings
from simloop.hardware.profile import DomainWarning
warnings.warn("tokens 9 is beyond the measured 8", DomainWarning)
warnings.warn("mine", UserWarning)
async def route(request, cluster):
    return cluster.workers[0]
"""
    (tmp_path / "warns.py").write_text(code, encoding="utf-8")
    status, _, stderr = simloop("run", scenario(("route: least_loaded", "route: warns.py:route")), "-q")
    first, second = dict.fromkeys(stderr.splitlines())
    assert (status, first) == (0, "warning: tokens 9 is beyond the measured 8")
    assert second.endswith("warns.py:4: UserWarning: mine")
