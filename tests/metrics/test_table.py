"""The table for the terminal."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from rich.console import Console

from simloop.metrics import Status
from simloop.report import summary_table
from simloop.report.table import format_seconds
from tests.metrics.reference import Ended, Run, runs, small_run


def shown(run: Run, **changes: object) -> str:
    stream = io.StringIO()
    Console(file=stream, width=80, force_terminal=False).print(summary_table(run.result(**changes)))
    return stream.getvalue()


def test_a_small_run() -> None:
    text = shown(small_run())
    assert "2 of 3 requests completed in 5.25 s virtual, 0.500 s real (10.5x)" in text
    assert ["longest", "gap", *["2.50", "s"] * 5] in [line.split() for line in text.splitlines()]
    assert "0.381 requests/s, 1.33 output tokens/s" in text
    assert "33.3 % kept longest gap ≤ 0.5 s" in text
    assert "1: too long" in text
    assert "PARTIAL" not in text


def test_a_partial_run_says_so_loudly() -> None:
    text = shown(small_run(), complete=False, reason="interrupted by SIGINT")
    assert "PARTIAL RUN: interrupted by SIGINT" in text


def test_reasons_are_shown_as_they_are_and_only_the_most_frequent() -> None:
    reasons = [f"[bold]{min(number, 20 - number)}" for number in range(20)]
    requests = [
        Ended(id=number, arrival_ns=0, finish_ns=0, status=Status.REJECTED, reason=reason)
        for number, reason in enumerate(reasons)
    ]
    text = shown(Run(requests, [], [[]]))
    assert "2: [bold]1" in text
    assert "10 for 6 other reasons" in text


@settings(max_examples=30)
@given(runs())
def test_it_fits_eighty_columns(run: Run) -> None:
    assert max(map(len, shown(run, complete=False, reason="x" * 200).splitlines())) <= 80


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0 ms"),
        (0.0000004, "0.400 µs"),
        (0.00085, "850 µs"),
        (0.0123, "12.3 ms"),
        (0.9994, "999 ms"),
        (1.0, "1.00 s"),
        (59.94, "59.9 s"),
        (12345.6, "12,346 s"),
    ],
)
def test_durations_have_three_digits(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_narrow_terminal_keeps_the_labels_and_the_heading_counts_what_is_missing() -> None:
    from io import StringIO

    from rich.console import Console

    ended = [Ended(id=0, arrival_ns=0, finish_ns=0, status=Status.REJECTED, reason="too long")]
    out = StringIO()
    Console(file=out, width=40).print(summary_table(Run(ended, [], [[]]).result()))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 40
    assert all(any(label in line for line in lines) for label in ("TTFT", "inter-token gap", "end to end", "p99"))
    assert any("1 rejected" in line for line in lines[:4])
    assert "0 of 1 request completed" in out.getvalue()
