"""A run in a folder: all of it or nothing, and the same bytes each time."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from simloop.errors import InputError
from simloop.report import check_out_dir, files, write_run
from tests.metrics.reference import small_run

FILES = ["requests.parquet", "scenario.yaml", "summary.json", "timeseries.parquet"]


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    result = small_run().result()
    folder = write_run(result, tmp_path / "deep" / "out")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert json.loads((folder / "summary.json").read_text()) == result.summary()
    assert yaml.safe_load((folder / "scenario.yaml").read_text()) == result.scenario
    assert pl.read_parquet(folder / "requests.parquet").equals(result.requests)
    assert pl.read_parquet(folder / "timeseries.parquet").equals(result.timeseries)
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_summary_keys_keep_their_order(tmp_path: Path) -> None:
    result = small_run().result()
    folder = write_run(result, tmp_path / "out")
    assert list(json.loads((folder / "summary.json").read_text())) == list(result.summary())


def test_token_times_on_request(tmp_path: Path) -> None:
    folder = write_run(small_run().result(), tmp_path / "out", token_times=True)
    tokens = pl.read_parquet(folder / "tokens.parquet")
    assert tokens["request_id"].to_list() == [0] * 6 + [1]
    assert tokens["time_s"].to_list() == [0.5, 1.0, 2.0, 4.5, 5.0, 5.25, 2.0]


def test_the_same_run_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import polars, sys; from simloop.report import write_run; from tests.metrics.reference import small_run; "
        "write_run(small_run().result(wall_s=9.0), sys.argv[1], token_times=True)"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "other")], check=True, cwd=root)
    write_run(small_run().result(), tmp_path / "out", token_times=True)
    for name in ("requests.parquet", "timeseries.parquet", "tokens.parquet", "scenario.yaml"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_a_partial_run_is_marked_and_a_complete_one_takes_the_mark_away(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_run(small_run().result(complete=False, reason="interrupted"), out, token_times=True)
    assert (out / "PARTIAL.txt").read_text() == "This run is not complete: interrupted\n"
    assert json.loads((out / "summary.json").read_text())["complete"] is False
    write_run(small_run().result(), out)
    assert sorted(path.name for path in out.iterdir()) == FILES


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), ValueError("odd")])
def test_a_write_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    out = write_run(small_run().result(), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr(files, "_write_parquet", fail)
    with pytest.raises(InputError if isinstance(error, OSError) else type(error)) as raised:
        write_run(small_run().result(seed=1), out)
    if isinstance(error, OSError):
        assert str(raised.value) == f"{out}: cannot write the run: No space left on device"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_exchange_that_fails_puts_the_old_run_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_run(small_run().result(), tmp_path / "out")
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.suffix == ".new":
            raise OSError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(InputError, match="Permission denied"):
        write_run(small_run().result(seed=1), out)
    assert json.loads((out / "summary.json").read_text())["seed"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["thesis.tex", "scenario.yaml"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("years of work")
    with pytest.raises(InputError, match=f"something other than a run: '{name}'"):
        write_run(small_run().result(), tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["years of work"]


def test_a_run_with_something_beside_it_is_left_alone(tmp_path: Path) -> None:
    out = write_run(small_run().result(), tmp_path / "out")
    (out / "notes.md").write_text("")
    with pytest.raises(InputError, match=r"something other than a run: 'notes\.md'"):
        check_out_dir(out)


def test_the_current_folder_is_not_pulled_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="cannot be the current one"):
        check_out_dir(".")


@pytest.mark.parametrize("inside", ["", "below", "below/deeper"])
def test_a_file_in_the_way(tmp_path: Path, inside: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        check_out_dir(tmp_path / "file" / inside)


def test_an_empty_folder_will_do(tmp_path: Path) -> None:
    assert sorted(path.name for path in write_run(small_run().result(), tmp_path).iterdir()) == FILES


def test_a_mount_point_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write_run(small_run().result(complete=False, reason="interrupted"), tmp_path / "out")
    rename = Path.rename

    def busy(path: Path, target: Path) -> Path:
        if path == out:
            raise OSError(errno.EBUSY, "Device or resource busy")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    result = small_run().result()
    write_run(result, out)
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert json.loads((out / "summary.json").read_text()) == result.summary()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
