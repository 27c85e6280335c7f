from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from simloop.errors import InputError
from simloop.explore import Comparison, RunLog, compare
from simloop.explore.plots import check_plot, panels
from tests.explore.test_comparison import REAL, RUN


@pytest.fixture
def comparison() -> Comparison:
    return compare(RunLog.of_columns("simulated", RUN), RunLog.of_columns("measured", REAL))


def test_what_is_drawn(comparison: Comparison) -> None:
    drawn = {panel.title: panel for panel in panels(comparison)}
    assert list(drawn) == ["TTFT", "TPOT", "latency", "output tokens", "requests in the system", "TTFT by arrival"]
    x, y = drawn["TTFT"].real
    assert x.tolist() == [0.1, 0.2, 0.4]
    assert y == pytest.approx([1 / 3, 2 / 3, 1])
    times, inside = drawn["requests in the system"].real
    assert times == pytest.approx([0.0, 1.0, 1.1, 2.0, 2.4, 3.2])
    assert inside.tolist() == [1, 2, 1, 2, 1, 0]
    seconds, tokens = drawn["output tokens"].run
    assert np.diff(seconds).tolist() == [1.0] * (len(seconds) - 1)
    assert tokens.sum() == 34


def test_large_runs_are_thinned_to_what_can_be_seen() -> None:
    many = {
        "arrival_s": np.arange(10_000.0),
        "ttft_s": np.arange(10_000.0)[::-1] + 1,
        "e2e_s": np.full(10_000, 10_001.0),
    }
    log = RunLog.of_columns("many", many)
    x, y = next(panel for panel in panels(compare(log, log)) if panel.title == "TTFT").run
    assert (len(x), x[0], x[-1], y[-1]) == (4_000, 1.0, 10_000.0, 1.0)


@pytest.mark.parametrize(
    ("suffix", "library", "magic"), [("png", "matplotlib", b"\x89PNG"), ("html", "plotly", b"<!doctype html>")]
)
def test_files_hold_all_they_need(
    comparison: Comparison, tmp_path: Path, suffix: str, library: str, magic: bytes
) -> None:
    pytest.importorskip(library, reason=f"{library} is in the extra 'plot'")
    path = comparison.plot(tmp_path / f"plot.{suffix}")
    assert path.read_bytes().startswith(magic)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    if suffix == "html":
        text = path.read_text(encoding="utf-8")
        assert "simulated" in text
        assert '<script src="http' not in text


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"plot.png: matplotlib draws these.*pip install 'simloop-llm\[plot\]'"):
        check_plot(tmp_path / "plot.png")


def test_places_where_nothing_can_be_drawn(comparison: Comparison, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found '.pdf', expected .png or .html"):
        check_plot("plot.pdf")
    with pytest.raises(InputError, match=r"found 'no ending', expected"):
        check_plot("plot")
    with pytest.raises(InputError, match=r"there is no folder"):
        check_plot(tmp_path / "nowhere" / "plot.png")


def test_figures_alone_cannot_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra 'plot'")
    figures = RunLog.of_columns("figures", {}, reported={("makespan", ""): 1.0})
    with pytest.raises(InputError, match="nothing to draw"):
        compare(figures, figures).plot(tmp_path / "plot.png")
    assert list(tmp_path.iterdir()) == []
