from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from simloop.errors import InputError
from simloop.explore import real_run
from simloop.explore.columns import parse_columns

CSV = "who,t,first,total,in,out,bad\na,1000,200,1200,10,6,False\nb,3500,,,20,4,True\nc,3000,100,100,30,1,\n"
MAPPED = {
    "id": "who",
    "arrival_ms": "t",
    "ttft_ms": "first",
    "e2e_ms": "total",
    "input_tokens": "in",
    "output_tokens": "out",
    "failed": "bad",
}
ROWS = [
    ("a", 0.0, 10, 6, 0.2, 0.2, 1.2, True),
    ("c", 2.0, 30, 1, 0.1, None, 0.1, True),
    ("b", 2.5, 20, 4, None, None, None, False),
]


def rows(path: Path, columns: dict[str, str] | None = MAPPED) -> list[tuple[object, ...]]:
    return real_run(path, columns=columns).requests.drop("hash_ids").rows()


def test_a_table_in_any_form_says_the_same(tmp_path: Path) -> None:
    table = tmp_path / "log.csv"
    table.write_text(CSV)
    packed = tmp_path / "log.csv.gz"
    packed.write_bytes(gzip.compress(CSV.encode()))
    frame = pl.read_csv(table)
    parquet, lines = tmp_path / "log.parquet", tmp_path / "log.jsonl"
    frame.write_parquet(parquet)
    lines.write_text("".join(f"{json.dumps(row)}\n" for row in frame.iter_rows(named=True)))
    for path in (table, packed, parquet, lines):
        assert rows(path) == ROWS, path


def test_columns_called_like_keys_need_no_mapping(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("arrival_us,ttft_ms,e2e_s,other\n5000000,250,1.5,x\n")
    assert real_run(path).requests.select("arrival_s", "ttft_s", "e2e_s").rows() == [(0.0, 0.25, 1.5)]


def test_times_of_day_become_durations(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("sent,first,last,n\n100.5,101.0,103.0,5\n90.5,90.75,,3\n")
    columns = {"arrival_s": "sent", "first_token_s": "first", "finish_s": "last", "output_tokens": "n"}
    frame = real_run(path, columns=columns).requests
    assert frame.select("arrival_s", "ttft_s", "e2e_s", "tpot_s").rows() == [
        (0.0, 0.25, None, None),
        (10.0, 0.5, 2.5, 0.5),
    ]


def test_latency_follows_from_tpot(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("ttft_s,tpot_s,output_tokens\n1.0,0.25,5\n1.0,,1\n")
    assert real_run(path).requests["e2e_s"].to_list() == [2.0, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ttft_s", "--columns: found 'ttft_s', expected KEY=COLUMN, as in ttft_ms=first_token"),
        ("ttft_s=a,ttft_s=b", "--columns: ttft_s: given twice"),
        ("ttft_s=a,ttft_ms=b", "--columns: ttft is given in two units, expected one"),
        ("arrival_s=a", "--columns: no column of durations, expected at least one of ttft, tpot, e2e; or arrival"),
        ("finish_s=a", "--columns: no column of durations"),
        ("ttft_sec=a", "--columns: ttft_sec: expected one of id, input_tokens, output_tokens, failed, and arrival"),
        ("tftt_s=a", "did you mean 'ttft_s'?"),
    ],
)
def test_mappings_that_say_nothing(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_columns(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("a,b\n1,2\n", {"ttft_s": "c"}, "no column 'c' for ttft_s (there are: a, b)"),
        ("first,b\n1,2\n", {"ttft_s": "frist"}, "no column 'frist' for ttft_s; did you mean 'first'?"),
        ("a,b\n1,2\n", None, "cannot tell its columns (a, b); name them: --columns"),
        ("a\n1\nx\n", {"ttft_s": "a"}, "line 3: a: found 'x', expected a number >= 0"),
        ("a\n-1\n", {"ttft_s": "a"}, "line 2: a: found '-1', expected a number >= 0"),
        ("a\ninf\n", {"ttft_s": "a"}, "line 2: a: found 'inf', expected a number >= 0"),
        ("a,b\n1,2.5\n", {"ttft_s": "a", "output_tokens": "b"}, "line 2: b: found '2.5', expected a whole number >= 0"),
        ("a,b\n1\n", {"ttft_s": "a"}, "line 2: found 1 fields, expected 2 as in the first line"),
        ("a\n", {"ttft_s": "a"}, "no request in it, expected at least one"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, text: str, columns: dict[str, str], message: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        real_run(path, columns=columns)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
