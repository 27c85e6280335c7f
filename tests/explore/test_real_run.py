from __future__ import annotations

import json
from pathlib import Path

import attrs
import numpy as np
import pytest

from simloop import simulate
from simloop.errors import InputError
from simloop.explore import RunLog, compare, real_run
from simloop.report import write_run
from simloop.workload import open_workload
from tests.explore.conftest import SCENARIO


def test_a_bench_folder_has_queued_ts_for_arrival(bench_folder: Path) -> None:
    log = real_run(bench_folder)
    assert log.requests.drop("finished").rows() == [
        ("bench-0", 0.0, 40, 3, 0.5, 0.5, 1.5, [0, 1]),
        ("bench-1", 1.0, 50, 1, 1.0, None, 1.0, [1, 2]),
    ]


def test_its_ticks_lie_where_the_wall_clock_says(bench_folder: Path) -> None:
    tokens = real_run(bench_folder).tokens
    assert tokens is not None
    assert tokens.grid_s == -0.25  # ticks began at 1000 s, the first request came at 1000.25 s
    assert tokens.per_second(-0.25, 4).tolist() == [1.0, 2.0, 1.0, 0.0]
    (bench_folder / "meta.json").unlink()
    assert attrs.asdict(real_run(bench_folder))["tokens"]["grid_s"] == 0.0


def test_it_can_be_replayed(bench_folder: Path, tmp_path: Path) -> None:
    trace = real_run(bench_folder).write_trace(tmp_path / "trace.jsonl")
    arrivals = list(open_workload({"trace": {"path": str(trace)}}, seed=0))
    assert [(a.arrival_ns, a.prompt_tokens, a.output_tokens, a.hash_ids) for a in arrivals] == [
        (0, 40, 3, (0, 1)),
        (1_000_000_000, 50, 1, (1, 2)),
    ]


def test_what_cannot_be_replayed_is_refused(tmp_path: Path) -> None:
    log = RunLog.of_columns("some.csv", {"arrival_s": [0.0], "prompt_tokens": [None], "output_tokens": [1]})
    with pytest.raises(InputError, match=r"some.csv: cannot be replayed: prompt_tokens is not known of every request"):
        log.write_trace(tmp_path / "trace.jsonl")
    sound = RunLog.of_columns("some.csv", {"arrival_s": [0.0], "prompt_tokens": [1], "output_tokens": [1]})
    with pytest.raises(InputError, match=r"trace.jsonl: cannot be written"):
        sound.write_trace(tmp_path / "nowhere" / "trace.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_run_read_back_is_the_run(tmp_path: Path) -> None:
    result = simulate(SCENARIO)
    direct = RunLog.of_result(result)
    plain, exact = (real_run(write_run(result, tmp_path / str(t), token_times=t)) for t in (False, True))
    assert direct.requests.equals(plain.requests)
    assert direct.figures == plain.figures == exact.figures
    assert direct.figures["ttft", "p99"] * 1e3 == pytest.approx(result.summary()["p99_ttft_ms"], abs=1e-6)
    assert direct.figures["output_throughput", ""] == pytest.approx(result.summary()["output_throughput"])
    for log in (exact, plain):
        comparison = compare(log, direct)
        assert comparison.tokens_per_second is not None
        ours, theirs = comparison.tokens_per_second
        assert ours.sum() == pytest.approx(theirs.sum()) == 600
    assert compare(exact, direct).throughput_wape == 0.0
    assert exact.tokens is not None
    assert direct.tokens is not None
    start, end = -0.3, direct.tokens.end_s
    for series in (exact.tokens, direct.tokens):
        times = np.concatenate([result.token_times(request) for request in range(30)])
        times -= result.requests["arrival_s"].min()
        counted = [np.sum((times >= start + k) & (times < start + k + 1)) for k in range(int(end) + 2)]
        assert series.per_second(start, int(end) + 2).tolist() == counted


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("timeseries.csv", "t,gen\n1,2\n", "timeseries.csv: line 1: no column 'gen_throughput'"),
        ("timeseries.csv", "t,gen_throughput\n1,x\n", "timeseries.csv: line 2: found '1', 'x', expected numbers"),
        ("timeseries.csv", "t,gen_throughput\n2,1\n1,1\n", "timeseries.csv: t: expected ascending times above 0"),
        ("requests.jsonl", '{"queued_ts": 1}\n', "requests.jsonl: no column 'request_id' for id"),
    ],
)
def test_bench_folders_that_cannot_be_read(bench_folder: Path, name: str, text: str, message: str) -> None:
    (bench_folder / name).write_text(text)
    with pytest.raises(InputError) as caught:
        real_run(bench_folder)
    assert message in str(caught.value)


def test_what_is_not_there_or_not_a_run(tmp_path: Path, bench_folder: Path) -> None:
    with pytest.raises(InputError, match=r"benhc: there is no such file or folder; did you mean 'bench'\?"):
        real_run(tmp_path / "benhc")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="neither a run of simloop"):
        real_run(tmp_path / "empty")
    with pytest.raises(InputError, match=r"--columns: has no effect on a folder"):
        real_run(bench_folder, columns={"ttft_s": "x"})
    (tmp_path / "empty" / "requests.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"requests.parquet: not a Parquet file"):
        real_run(tmp_path / "empty")


def test_a_stamp_that_is_no_stamp_shifts_nothing(bench_folder: Path) -> None:
    (bench_folder / "meta.json").write_text(json.dumps({"started_at": "yesterday"}))
    tokens = real_run(bench_folder).tokens
    assert tokens is not None
    assert tokens.grid_s == 0.0
