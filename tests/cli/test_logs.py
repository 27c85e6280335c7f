from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

import simloop
from simloop.cli.logs import LogLevel, configure_logs


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
