"""Each law can be broken, and then says so; Little's law on queues that are known."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from simloop.metrics import Status, check_conservation, littles_law
from tests.metrics.reference import Ended, Run, small_run


def lawful() -> Run:
    """The small run; requests 0 to 2 stand at 2, 0 and 1."""
    return small_run()


def test_the_small_run_breaks_no_law() -> None:
    assert check_conservation(lawful().result()) == []


def _twice(run: Run) -> None:
    run.requests.append(run.requests[1])


def _too_few(run: Run) -> None:
    run.requests[2].output_tokens = 7


def _too_many(run: Run) -> None:
    run.requests[2].output_tokens = 5


def _lost_stay(run: Run) -> None:
    del run.stays[1]


def _stray_stay(run: Run) -> None:
    run.stays.append((9, 0, 1, 0, 0))


def _stays_swapped(run: Run) -> None:
    run.stays[1:] = reversed(run.stays[1:])


def _scheduled_early(run: Run) -> None:
    run.requests[0].scheduled_ns = 0


def _never_scheduled(run: Run) -> None:
    run.requests[0].scheduled_ns = -1


def _finished_late(run: Run) -> None:
    run.requests[2].finish_ns += 5


def _other_first_token(run: Run) -> None:
    run.requests[2].first_token_ns += 5


def _rejected_with_tokens(run: Run) -> None:
    run.requests[0].status = Status.REJECTED


def _left_over(run: Run) -> None:
    run.requests[1].status = Status.UNFINISHED


def _steps_fall(run: Run) -> None:
    run.step_ends[0] = [*run.step_ends[0][:2], 1, 2]


def _counter_falls(run: Run) -> None:
    run.samples[2] = (*run.samples[2][:6], 1, *run.samples[2][7:])


def _too_much_kv(run: Run) -> None:
    run.samples[2] = (*run.samples[2][:4], 11, *run.samples[2][5:])


def _too_busy(run: Run) -> None:
    run.samples[2] = (*run.samples[2][:9], 3 * 10**9, 3)


@pytest.mark.parametrize(
    ("spoil", "law"),
    [
        (_twice, "1 request (2): recorded more than once"),
        (_too_few, "1 request (0): finished with more or fewer tokens than asked for"),
        (_too_many, "1 request (0): got more tokens than asked for"),
        (_lost_stay, "1 request (0): its stays hold another number of tokens than it got"),
        (_stray_stay, "1 stays belong to requests that were not recorded"),
        (_stays_swapped, "1 request (0): its tokens are not in the order of time"),
        (_scheduled_early, "1 request (1): scheduled_ns lies before an earlier stage"),
        (_never_scheduled, "1 request (1): finished without scheduled_ns"),
        (_finished_late, "1 request (0): last token and finish_ns differ"),
        (_other_first_token, "1 request (0): first token and first_token_ns differ"),
        (_rejected_with_tokens, "1 request (1): rejected, and yet got tokens"),
        (_left_over, "1 request (2): unfinished in a complete run"),
        (_steps_fall, "worker gpu-0: its step ends do not ascend"),
        (_counter_falls, "the cumulative counter generated of a worker falls"),
        (_too_much_kv, "a worker uses more KV blocks than it has"),
        (_too_busy, "a worker was busy for longer than time passed"),
    ],
)
def test_a_broken_law_is_named(spoil: Callable[[Run], None], law: str) -> None:
    run = lawful()
    spoil(run)
    assert law in check_conservation(run.result())


def test_a_request_that_ends_after_the_run() -> None:
    assert "1 request (0): ended after the run" in check_conservation(lawful().result(end_ns=5 * 10**9))


def test_many_culprits_are_not_all_listed() -> None:
    requests = [Ended(id=number, arrival_ns=0, finish_ns=0, status=Status.UNFINISHED) for number in range(9)]
    violations = check_conservation(Run(requests, [], []).result())
    assert violations == ["9 requests (0, 1, 2, ...): unfinished in a complete run"]


def test_littles_law_where_queue_and_times_agree() -> None:
    """Two requests a second, each there for three: six at any time, seen by a sample every second."""
    second = 10**9
    starts = [number * second // 2 for number in range(2000)]
    requests = [
        Ended(id=number, arrival_ns=start, finish_ns=start + 3 * second, generated=1)
        for number, start in enumerate(starts)
    ]
    samples: list[tuple[int, ...]] = [(0, t * second, 4, 2, 0, 1, t, t, 0, t * second, t) for t in range(1, 1003)]
    law = littles_law(Run(requests, [], [[]], samples).result())
    assert law.mean_time_s == 3.0
    assert law.arrival_rate == pytest.approx(2, rel=0.01)
    assert law.mean_in_system == pytest.approx(6, rel=0.01)
    assert abs(law.relative_error) < 0.01


def test_littles_law_sees_a_queue_that_is_not_in_the_times() -> None:
    requests = [Ended(id=0, arrival_ns=0, finish_ns=10**9)]
    law = littles_law(Run(requests, [], [[]], [(0, 10**9, 8, 0, 0, 1, 0, 0, 0, 10**9, 1)]).result())
    assert law.expected_in_system == 1.0
    assert law.relative_error == 3.0


def test_littles_law_of_nothing() -> None:
    assert littles_law(Run([], [], [[]]).result()).relative_error == 0.0


ROWS: list[tuple[int, ...]] = [
    (0, 0, 1, 0, 10, 5, 2),
    (0, 1, 1, 0, 10, 7, 0),
    (0, 0, 2, 12, 20, 0, 3),
    (0, 1, 2, 12, 20, 3, 0),
]


@pytest.mark.parametrize(
    ("place", "row", "law"),
    [
        (0, (0, 0, 1, 1, 10, 5, 2), "do not iterate together"),
        (1, (0, 1, 2, 0, 10, 7, 0), "do not iterate together"),
        (0, (0, 0, 1, 0, 10, 5, 1), "are not padded to the one that has the most tokens"),
        (3, (0, 1, 2, 12, 20, 2, 1), "are not padded to the one that has the most tokens"),
    ],
)
def test_ranks_that_share_experts_keep_step(place: int, row: tuple[int, ...], law: str) -> None:
    """Rows are engine, worker, wave, start, end, tokens, padding."""

    def check(rows: list[tuple[int, ...]]) -> list[str]:
        result = lawful().result()
        for engine, worker, wave, start, end, tokens, padding in rows:
            result.records.lockstep(engine, worker, wave, start, end, tokens, padding, 0, 0)
        name = f"the ranks of {result.worker_names[0]}"
        assert all(line.startswith(name) for line in check_conservation(result))
        return [line.removeprefix(name).strip(": ") for line in check_conservation(result)]

    assert check(ROWS) == []
    assert check([*ROWS[:place], row, *ROWS[place + 1 :]]) == [law]
    assert check([*ROWS, ROWS[0]]) == ["one of them has more iterations than another"]
    assert check([*ROWS[2:], *ROWS[:2]]) == ["start an iteration before the last one is over"]
