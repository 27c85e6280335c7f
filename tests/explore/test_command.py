from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from simloop import simulate
from simloop.report import write_run
from tests.explore.conftest import SCENARIO

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(simulate(SCENARIO), tmp_path / "run")


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.json"
    path.write_text(json.dumps(SCENARIO))
    return path


def test_a_run_beside_itself(simloop: Command, run: Path) -> None:
    status, stdout, stderr = simloop("compare", run, run)
    assert (status, stderr) == (0, "")
    assert "30 of 30 requests matched by id" in stdout
    assert "+0.00 %" in stdout
    assert max(map(len, stdout.splitlines())) <= 80


def test_a_scenario_is_simulated_first(simloop: Command, run: Path, scenario: Path) -> None:
    status, stdout, _ = simloop("compare", scenario, run, "--json")
    assert status == 0
    found = json.loads(stdout)
    assert found["matched"] == {"requests": 30, "by": "id"}
    assert found["per_request_mape"] == {"ttft": 0.0, "tpot": 0.0, "e2e": 0.0}
    assert found["throughput_from"] == ["token times", "time series"]
    _, stdout, _ = simloop("compare", scenario, run, "--json", "--set", "workload.lengths.output=21")
    assert json.loads(stdout)["matched"] == {"requests": 0, "by": None}


def test_a_table_with_a_mapping_and_a_plot(simloop: Command, run: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is in the extra 'plot'")
    log = tmp_path / "log.csv"
    log.write_text("t,first,total\n0,10,20\n5,11,21\n")
    plot = tmp_path / "plot.html"
    columns = "arrival_ms=t,ttft_ms=first,e2e_ms=total"
    status, stdout, stderr = simloop("compare", run, log, "--columns", columns, "--plot", plot)
    assert (status, stderr) == (0, "")
    assert "2 of 2 requests matched by order" in stdout
    assert plot.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RUN", "nowhere"], "error: nowhere: there is no such file or folder"),
        (["nowhere.yaml", "RUN"], "error: nowhere.yaml: "),
        (["EMPTY", "RUN"], "found a folder without requests.parquet, expected one of simloop run --out"),
        (["RUN", "EMPTY"], "neither a run of simloop (requests.parquet) nor a bench folder (requests.jsonl)"),
        (["RUN", "RUN", "--set", "seed=1"], "error: --set: has no effect on a run that is over"),
        (["RUN", "RUN", "--columns", "ttft_s=a"], "error: --columns: has no effect on a folder"),
        (["RUN", "RUN", "--columns", "nonsense"], "error: --columns: found 'nonsense', expected KEY=COLUMN"),
        (["RUN", "RUN", "--plot", "plot.pdf"], "error: plot.pdf: found '.pdf', expected .png or .html"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    simloop: Command, run: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    status, stdout, stderr = simloop("compare", *({"RUN": run, "EMPTY": empty}.get(one, one) for one in arguments))
    assert (status, stdout) == (2, "")
    assert message in stderr
    assert len(stderr.splitlines()) == 1
