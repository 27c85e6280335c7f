"""Tables in which nothing is wrong are read in one go; what is read is what the reader of lines gives."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.hardware.profile import reading
from simloop.hardware.profile.reading import Columns, number, read_table, time_number, whole

COLUMNS: Columns = {"size": whole, "name": str, "time": time_number, "shift": number}
CELLS = st.one_of(
    st.integers(-2, 10**12).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(repr),
    st.sampled_from(["", "x", "1e3", "12.0", "+4", "007", '"3"', '"a,b"']),
)


def outcome(file: Path, *, in_one_go: bool, where: dict[str, str] | None = None) -> object:
    with pytest.MonkeyPatch.context() as patch:
        if not in_one_go:
            patch.setattr(reading, "_all_right", lambda *_: None)
        try:
            return read_table(file, COLUMNS, where=where)
        except InputError as error:
            return str(error)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS), max_size=4), st.sampled_from([None, {"name": "x"}]))
def test_both_ways_give_the_same(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], where: dict[str, str] | None
) -> None:
    file = tmp_path_factory.mktemp("tables") / "table.csv"
    file.write_text("\n".join(["time,size,name,shift", *(",".join(row) for row in rows)]) + "\n")
    assert outcome(file, in_one_go=True, where=where) == outcome(file, in_one_go=False, where=where)


def test_a_good_table_does_not_go_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "table.csv.gz"
    file.write_bytes(gzip.compress(b"time,size,name,shift\n1.5,3,a,-2\n0.1,12.0,,0\n"))
    monkeypatch.setattr(reading, "_rows", None)
    assert read_table(file, COLUMNS) == [(3, "a", 1.5, -2.0), (12, "", 0.1, 0.0)]
