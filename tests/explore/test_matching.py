from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simloop.explore import RunLog
from simloop.explore.matching import Matching


def log(ids: list[str] | None, sizes: list[tuple[int, int]]) -> RunLog:
    columns: dict[str, Any] = {
        "arrival_s": [float(place) for place in range(len(sizes))],
        "prompt_tokens": [size[0] for size in sizes],
        "output_tokens": [size[1] for size in sizes],
    }
    return RunLog.of_columns("log", columns if ids is None else {"id": ids, **columns})


def pairs(run: RunLog, real: RunLog) -> tuple[str, list[tuple[int, int]]]:
    matching = Matching.of(run.requests, real.requests)
    return matching.by, list(zip(matching.run.tolist(), matching.real.tolist(), strict=True))


SIZES = [(10, 1), (20, 2), (30, 3)]
ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(1, 2), st.integers(1, 2)), max_size=8, unique_by=lambda row: row[0]
)


def test_ids_match_in_any_order() -> None:
    assert pairs(log(["a", "b", "c"], SIZES), log(["c", "a", "x"], [SIZES[2], SIZES[0], (9, 9)])) == (
        "id",
        [(0, 1), (2, 0)],
    )


def test_order_matches_where_ids_have_other_names_or_none() -> None:
    by_order = ("order", [(0, 0), (1, 1), (2, 2)])
    assert pairs(log(["0", "1", "2"], SIZES), log(["bench-0", "bench-1", "bench-2"], SIZES)) == by_order
    assert pairs(log(["0", "1", "2"], SIZES), log(None, SIZES)) == by_order


def test_ids_that_count_from_another_number_do_not_win_over_order() -> None:
    assert pairs(log(["0", "1", "2"], SIZES), log(["1", "2", "3"], SIZES))[0] == "order"


def test_requests_of_other_sizes_are_not_the_same() -> None:
    assert pairs(log(None, SIZES), log(None, [(10, 1), (20, 7), (30, 3)])) == ("order", [(0, 0), (2, 2)])


def test_the_shorter_run_decides_how_many() -> None:
    assert pairs(log(None, SIZES), log(None, SIZES[:2]))[1] == [(0, 0), (1, 1)]
    assert pairs(log(None, []), log(None, SIZES))[1] == []


def test_unknown_sizes_match_any() -> None:
    real = RunLog.of_columns("real", {"arrival_s": [5.0, 6.0, 7.0], "ttft_s": [1.0, 1.0, 1.0]})
    assert pairs(log(None, SIZES), real)[1] == [(0, 0), (1, 1), (2, 2)]


@given(ROWS, ROWS)
def test_against_an_obvious_loop(ours: list[tuple[int, int, int]], theirs: list[tuple[int, int, int]]) -> None:
    run = log([str(row[0]) for row in ours], [row[1:] for row in ours])
    real = log([str(row[0]) for row in theirs], [row[1:] for row in theirs])
    by_id = [(i, k) for i, mine in enumerate(ours) for k, other in enumerate(theirs) if mine == other]
    by_order = [(i, i) for i, (mine, other) in enumerate(zip(ours, theirs, strict=False)) if mine[1:] == other[1:]]
    expected = ("id", by_id) if len(by_id) >= max(len(by_order), 1) else ("order", by_order)
    assert pairs(run, real) == expected


@pytest.mark.parametrize("ids", [["a", "a", "b"], ["a", "b", "b"]])
def test_an_id_that_occurs_twice_is_matched_once(ids: list[str]) -> None:
    same = [(10, 1)] * 3
    matching = Matching.of(log(ids, same).requests, log(["a", "b", "c"], same).requests)
    assert len(matching) == 3
    assert matching.by == "order"
