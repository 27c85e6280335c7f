"""Reading traces: every format, exactly."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.workload import Arrival, Columns, TraceSpec, open_workload

Row = tuple[int, int, int]
"""Arrival in units of the format, input tokens, output tokens."""


def read(path: Path, **trace: Any) -> list[Arrival]:
    return list(open_workload({"trace": {"path": str(path), **trace}}, seed=0))


def save(folder: Path, name: str, text: str, *, gz: bool = False) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if gz else text.encode())
    return path


def table(header: str, rows: Sequence[Sequence[Any]], delimiter: str = ",") -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header.split(","))
    writer.writerows(rows)
    return out.getvalue()


def lines(keys: str, rows: Sequence[Sequence[Any]]) -> str:
    return "".join(json.dumps(dict(zip(keys.split(","), row, strict=True))) + "\n" for row in rows)


def azure_time(ticks: int) -> str:
    """Write a number of 100 ns the way Azure does."""
    seconds, fraction = divmod(ticks, 10**7)
    return f"{datetime(2023, 11, 16, 18, 15, 46) + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}.{fraction:07d}"


def decimal(value: int, places: int) -> str:
    whole, fraction = divmod(value, 10**places)
    return f"{whole}.{fraction:0{places}d}"


WRITERS: dict[str, tuple[int, Callable[[list[Row]], str]]] = {
    "azure": (
        100,
        lambda rows: table("TIMESTAMP,ContextTokens,GeneratedTokens", [(azure_time(t), i, o) for t, i, o in rows]),
    ),
    "mooncake": (10**6, lambda rows: lines("timestamp,input_length,output_length", rows)),
    "llmservingsim tsv": (
        1,
        lambda rows: table("input_toks,output_toks,arrival_time_ns", [(i, o, t) for t, i, o in rows], "\t"),
    ),
    "llmservingsim jsonl": (1, lambda rows: lines("arrival_time_ns,input_toks,output_toks", rows)),
    "vidur": (
        1000,
        lambda rows: table(
            "arrived_at,num_prefill_tokens,num_decode_tokens", [(decimal(t, 6), i, o) for t, i, o in rows]
        ),
    ),
    "csv s": (
        1,
        lambda rows: table("arrival_s,input_tokens,output_tokens", [(decimal(t, 9), i, o) for t, i, o in rows]),
    ),
    "csv ms": (
        1,
        lambda rows: table("arrival_ms,input_tokens,output_tokens", [(decimal(t, 6), i, o) for t, i, o in rows]),
    ),
    "csv ns": (1, lambda rows: table("output_tokens,arrival_ns,input_tokens", [(o, t, i) for t, i, o in rows])),
    "jsonl ms": (10**6, lambda rows: lines("arrival_ms,input_tokens,output_tokens", rows)),
    "jsonl ns": (1, lambda rows: lines("arrival_ns,input_tokens,output_tokens", rows)),
}
TRACES = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(1, 10**6)), min_size=1, max_size=20
)


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=25, deadline=None)
@given(trace=TRACES, gz=st.booleans(), named=st.booleans())
def test_what_is_written_is_read_exactly(
    kind: str, trace: list[Row], gz: bool, named: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    unit_ns, write = WRITERS[kind]
    trace.sort()
    origin = trace[0][0] if kind == "azure" else 0
    path = save(tmp_path_factory.mktemp("trace"), "trace", write(trace), gz=gz)
    found = read(path, **({"format": kind.split()[0]} if named else {}))
    assert [arrival[:3] for arrival in found] == [((t - origin) * unit_ns, *lengths) for t, *lengths in trace]


def test_azure_times_are_exact_to_100_ns(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 23:59:59.9999999,374,44\r\n"
        "2023-11-17 00:00:00.0000001,396,109\r\n"
        "2023-11-17 00:00:01,879,55\r\n"
    )
    assert [arrival.arrival_ns for arrival in read(save(tmp_path, "azure.csv", text))] == [0, 200, 1_000_000_100]


def test_azure_2024_writes_its_time_zone(tmp_path: Path) -> None:
    rows = "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:00.017335+00:00,2399,6\n"
    path = save(tmp_path, "azure.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)
    assert [arrival.arrival_ns for arrival in read(path)] == [0, 7_405_000]


def test_mooncake_keeps_block_hashes(tmp_path: Path) -> None:
    text = '{"timestamp": 3000, "input_length": 1024, "output_length": 5, "hash_ids": [0, 14]}\n'
    assert read(save(tmp_path, "m.jsonl", text)) == [
        Arrival(3_000_000_000, 1024, 5, hash_ids=(0, 14), hash_block_size=512)
    ]


def test_llmservingsim_csv_with_more_columns_and_sessions(tmp_path: Path) -> None:
    path = save(tmp_path, "w.csv", "index,arrival_time_ns,input_toks,output_toks,session_id\n0,46926808,94,443,a\n")
    assert read(path) == [Arrival(46_926_808, 94, 443, session="a")]


def test_columns_are_mapped(tmp_path: Path) -> None:
    path = save(tmp_path, "requests.csv", "user,t,prompt_len,output_len,prio\nann,0.5,10,20,-1\n,0.75,11,21,\n")
    columns = {
        "arrival_s": "t",
        "input_tokens": "prompt_len",
        "output_tokens": "output_len",
        "session": "user",
        "priority": "prio",
    }
    expected = [Arrival(500_000_000, 10, 20, "ann", -1), Arrival(750_000_000, 11, 21)]
    assert read(path, format="csv", columns=columns) == expected
    assert read(path, columns=columns) == expected


def test_specs_may_be_structs_and_paths_relative(tmp_path: Path) -> None:
    from simloop.workload import WorkloadSpec

    save(tmp_path, "requests.jsonl", '{"t": 250, "a": 1, "b": 2, "h": [7]}\n')
    columns = Columns(arrival_ms="t", input_tokens="a", output_tokens="b", hash_ids="h")
    spec = WorkloadSpec(trace=TraceSpec(path="requests.jsonl", columns=columns))
    assert list(open_workload(spec, seed=0, base_dir=tmp_path)) == [Arrival(250_000_000, 1, 2, None, 0, (7,))]


def test_parquet(tmp_path: Path) -> None:
    count = 70_000  # more than one slice
    frame = pl.DataFrame({"t": [number * 10 for number in range(count)], "i": [5] * count, "o": [6] * count})
    frame.write_parquet(tmp_path / "requests.parquet")
    columns = {"arrival_ns": "t", "input_tokens": "i", "output_tokens": "o"}
    assert read(tmp_path / "requests.parquet", columns=columns) == [Arrival(n * 10, 5, 6) for n in range(count)]


@pytest.mark.parametrize("text", ["512.0,64.0", " 512 , 64 ", "5.12e2,64", '"512","64"'])
def test_ways_to_write_a_whole_number(text: str, tmp_path: Path) -> None:
    path = save(tmp_path, "t.csv", f"arrival_s,input_tokens,output_tokens\n0,{text}\n")
    assert read(path) == [Arrival(0, 512, 64)]


def test_seconds_keep_their_nanoseconds_where_a_float_would_not(tmp_path: Path) -> None:
    path = save(tmp_path, "t.csv", "arrival_s,input_tokens,output_tokens\n99999999.123456789,1,1\n")
    assert read(path)[0].arrival_ns == 99_999_999_123_456_789


def test_times_of_day_count_from_the_first_request(tmp_path: Path) -> None:
    rows = "1777142838.338653,1,1\n1777142838.6237123,1,1\n"
    path = save(tmp_path, "t.csv", "arrival_s,input_tokens,output_tokens\n" + rows)
    assert [arrival.arrival_ns for arrival in read(path)] == [0, 285_059_300]


def trace_of(folder: Path, count: int = 10) -> Path:
    rows = [(number + 1, number + 1, 1) for number in range(count)]
    return save(folder, "t.csv", table("arrival_s,input_tokens,output_tokens", rows))


def test_other_times_are_kept(tmp_path: Path) -> None:
    assert [arrival.arrival_ns for arrival in read(trace_of(tmp_path, 2))] == [10**9, 2 * 10**9]


def test_limit_and_offset(tmp_path: Path) -> None:
    found = read(trace_of(tmp_path), limit=3, offset=4)
    assert [arrival.prompt_tokens for arrival in found] == [5, 6, 7]
    assert [arrival.arrival_ns for arrival in found] == [0, 10**9, 2 * 10**9]


def test_rate_scale(tmp_path: Path) -> None:
    assert [arrival.arrival_ns for arrival in read(trace_of(tmp_path, 2), rate_scale=4)] == [250_000_000, 500_000_000]


@pytest.mark.parametrize(
    ("requests", "limit", "offset", "expected"),
    [(None, None, 0, 10), (3, None, 0, 3), (3, 2, 0, 2), (100, None, 0, 10), (None, 100, 4, 6), (5, None, 8, 2)],
)
def test_total_is_what_will_come(
    requests: int | None, limit: int | None, offset: int, expected: int, tmp_path: Path
) -> None:
    trace = {"path": str(trace_of(tmp_path)), "limit": limit, "offset": offset}
    workload = open_workload({"requests": requests, "trace": trace}, seed=0)
    assert workload.total == len(list(workload)) == expected


def test_a_large_trace_is_not_counted(tmp_path: Path) -> None:
    path = save(tmp_path, "t.csv", "arrival_s,input_tokens,output_tokens\n" + "0,1,1\n" * 800_000)
    workload = open_workload({"trace": {"path": str(path)}}, seed=0)
    assert workload.total is None
    assert next(iter(workload)) == Arrival(0, 1, 1)


def test_blank_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    path = save(tmp_path, "t.csv", "\ufeff\narrival_s,input_tokens,output_tokens\n\n1,2,3\n\n")
    assert read(path) == [Arrival(10**9, 2, 3)]
    path = save(tmp_path, "t.jsonl", '\n{"arrival_s": 1, "input_tokens": 2, "output_tokens": 3}\n \n')
    assert read(path) == [Arrival(10**9, 2, 3)]
