from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

import simloop
from simloop.cli.logs import LogLevel, configure_logs

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


async def work() -> None:
    log = structlog.get_logger()
    await simloop.sleep(1.5)
    log.info("scaled", workers=3)
    log.debug("too much")


def test_lines_are_stamped_with_virtual_time(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogLevel.INFO, as_json=True)
    simloop.run(work)
    structlog.get_logger().warning("after the run")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first == {"t": 1.5, "event": "scaled", "workers": 3, "level": "info"}
    assert second == {"event": "after the run", "level": "warning"}


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogLevel.DEBUG)
    simloop.run(work)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "scaled" in captured.err
    assert "t=1.5" in captured.err
    assert "too much" in captured.err


def test_nothing_is_logged_unless_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs()
    simloop.run(work)
    structlog.get_logger().critical("nobody hears this")
    assert capsys.readouterr() == ("", "")


def test_the_command_logs_when_asked(
    simloop: Callable[..., tuple[int, str, str]], scenario: Callable[..., Path]
) -> None:
    path = scenario(("input: 100", "input: 200000"))
    status, stdout, stderr = simloop("run", path, "--json", "--log-level", "info", "--log-json")
    assert status == 0
    assert json.loads(stdout)["rejected"] == 40
    started, rejected, ended = (json.loads(line) for line in stderr.splitlines())
    assert started == {"event": "started", "level": "info"}
    assert (rejected["level"], rejected["requests"]) == ("warning", 40)
    assert (ended["event"], ended["completed"], ended["of"]) == ("ended", 0, 40)
    assert ended["t"] > 3
    assert simloop("run", path, "--quiet", "--log-level", "error") == (0, "", "")


def test_what_a_policy_logs_is_stamped(simloop: Command, scenario: Callable[..., Path], tmp_path: Path) -> None:
    text = (
        "import simloop, structlog\n"
        "async def control(cluster):\n"
        "    await simloop.sleep(2.5)\n"
        "    structlog.get_logger().warning('looked', outstanding=cluster.outstanding >= 0)\n"
    )
    (tmp_path / "watch.py").write_text(text, encoding="utf-8")
    path = scenario(("schedule: vllm", "schedule: vllm, control: watch.py:control"))
    _, _, stderr = simloop("run", path, "--quiet", "--log-level", "warning", "--log-json")
    assert json.loads(stderr) == {"t": 2.5, "event": "looked", "outstanding": True, "level": "warning"}
    assert simloop("run", path, "--quiet") == (0, "", ""), "off unless asked for"
