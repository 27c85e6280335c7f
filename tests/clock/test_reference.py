"""Random programs give the same order and the same times on the fast loop as on the plain one."""

from __future__ import annotations

import asyncio
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from simloop import clock
from tests.clock.programs import Interpreter, Log, ReferenceLoop, Sleep, make_program

ROUNDS = 1000


def run_on(loop: asyncio.AbstractEventLoop, seed: int, sleep: Sleep) -> Log:
    """Run one random program; a task that is cancelled from within ends it early, which is as good as any end."""
    interpreter = Interpreter(sleep)
    program = make_program(random.Random(seed))
    try:
        loop.run_until_complete(interpreter.run(program))
    finally:
        loop.close()
    return interpreter.log


def run_fast(seed: int) -> Log:
    return run_on(clock.new_event_loop(), seed, clock.sleep)


def run_plain(seed: int) -> Log:
    return run_on(ReferenceLoop(), seed, asyncio.sleep)


def test_a_thousand_programs_run_as_on_the_reference_loop_and_twice_the_same() -> None:
    kinds = set()
    for seed in range(ROUNDS):
        log = run_fast(seed)
        assert log == run_fast(seed), f"seed {seed} differs from itself"
        assert log == run_plain(seed), f"seed {seed} differs from the reference"
        kinds |= {what.split()[0] for _, _, what in log}
    assert {"sleep", "scope", "timed", "left,", "resists", "cancels", "cancelled", "group", "queue"} <= kinds


@hypothesis.given(st.integers(min_value=ROUNDS))
@hypothesis.settings(max_examples=100, deadline=None)
def test_any_program_runs_as_on_the_reference_loop(seed: int) -> None:
    assert run_fast(seed) == run_plain(seed)


@hypothesis.given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), max_size=40))
@hypothesis.settings(max_examples=100, deadline=None)
def test_timers_run_sorted_by_time_and_then_as_they_were_set(timers: list[tuple[int, bool, bool]]) -> None:
    """A prediction that needs no loop at all: sort."""
    ran: list[int] = []

    async def sleeper(number: int, seconds: int) -> None:
        await clock.sleep_until(seconds)
        ran.append(number)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tasks = []
        for number, (seconds, in_task, cancel) in enumerate(timers):
            if in_task:
                tasks.append(task := asyncio.create_task(sleeper(number, seconds + 1)))
                await asyncio.sleep(0)
                if cancel:
                    task.cancel()
            else:
                timer = loop.call_at(seconds + 1, ran.append, number)
                if cancel:
                    timer.cancel()
        await clock.sleep(10)
        await asyncio.gather(*tasks, return_exceptions=True)

    clock.run(main)
    alive = [(seconds, number) for number, (seconds, _, cancel) in enumerate(timers) if not cancel]
    assert ran == [number for _, number in sorted(alive)]


@pytest.mark.parametrize("seed", [3])
def test_the_reference_can_tell_a_difference(seed: int) -> None:
    """A sleep that is a nanosecond too long does not go unnoticed."""

    async def late(seconds: float) -> None:
        await clock.sleep(seconds + 1e-9)

    assert any(run_on(clock.new_event_loop(), number, late) != run_plain(number) for number in range(seed, seed + 20))
