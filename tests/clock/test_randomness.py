"""Named random streams, names that do not change from run to run, and the check that runs twice."""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
from collections.abc import Callable, Coroutine

import pytest

from simloop import clock
from simloop.errors import SimulationError


def test_seed_for_is_pinned() -> None:
    """Every result ever published depends on this: it must not change."""
    assert clock.seed_for(0, "workload.arrivals") == 9076216089716232481
    assert clock.seed_for(1, "workload.arrivals") != clock.seed_for(0, "workload.arrivals")
    assert clock.seed_for(1, "1/a") != clock.seed_for(11, "/a")
    assert all(0 <= clock.seed_for(seed, "x") < 2**64 for seed in range(100))


def test_seed_for_is_the_same_in_another_process() -> None:
    code = "from simloop.clock import seed_for; print(seed_for(7, 'a'), hash('a'))"
    lines = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[0]
        for _ in range(2)
    }
    assert lines == {str(clock.seed_for(7, "a"))}


def test_streams_depend_on_the_seed_and_the_name_alone() -> None:
    async def draw(*names: str) -> list[float]:
        return [clock.rng(name).random() for name in names]

    async def same() -> bool:
        return clock.rng("a") is clock.rng("a")

    assert clock.run(same)
    assert clock.run(draw("a", "b"))[1] == clock.run(draw("b"))[0]
    assert clock.run(draw("a"), seed=1) != clock.run(draw("a"), seed=2)
    assert clock.run(draw("a"), seed=1) == clock.run(draw("a"), seed=1)

    async def seed() -> int:
        return clock.run_seed()

    assert clock.run(seed, seed=42) == 42


def test_task_names_start_anew_in_every_run() -> None:
    async def main() -> list[str]:
        tasks = [asyncio.create_task(clock.sleep(1)) for _ in range(2)]
        tasks.append(asyncio.create_task(clock.sleep(1), name="own"))
        current = asyncio.current_task()
        assert current is not None
        await asyncio.gather(*tasks)
        return [current.get_name(), *(task.get_name() for task in tasks)]

    assert clock.run(main) == clock.run(main) == ["Task-1", "Task-2", "Task-3", "own"]


async def orderly() -> float:
    async with asyncio.TaskGroup() as group:
        for name in "abc":
            group.create_task(clock.sleep(clock.rng(name).random()))
    await asyncio.sleep(clock.rng("a").random())
    return clock.now()


def test_check_determinism_returns_the_result_of_a_run() -> None:
    assert clock.check_determinism(orderly, seed=5) == clock.run(orderly, seed=5)


def unseeded_time() -> Callable[[], Coroutine[None, None, None]]:
    delays = itertools.count(1)

    async def main() -> None:
        await clock.sleep(1)
        await clock.sleep(next(delays))

    return main


def other_callback() -> Callable[[], Coroutine[None, None, None]]:
    names = iter(["first", "second"])

    async def main() -> None:
        await asyncio.create_task(clock.sleep(1), name=next(names))

    return main


def other_draws() -> Callable[[], Coroutine[None, None, None]]:
    draws = itertools.count(1)

    async def main() -> None:
        clock.rng("quiet")
        clock.rng("loud").randbytes(8 * next(draws))

    return main


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            unseeded_time,
            r"differ from callback 3 on:\n  first run:  at 2\.0 s: task 'Task-1'.*\n  second run: at 3\.0 s",
        ),
        (
            other_callback,
            r"differ from callback 2 on:\n  first run:  at 0\.0 s: task 'first'.*\n  second run: .*'second'",
        ),
        (other_draws, r"drew different numbers from the random streams loud$"),
    ],
)
def test_check_determinism_shows_the_first_difference(
    make: Callable[[], Callable[[], Coroutine[None, None, None]]], message: str
) -> None:
    with pytest.raises(SimulationError, match=message):
        clock.check_determinism(make())


def test_check_determinism_sees_a_run_that_goes_on_longer() -> None:
    runs = itertools.count(1)

    async def main() -> None:
        for _ in range(next(runs)):
            await clock.sleep(0)

    with pytest.raises(SimulationError, match=r"only the second run goes on with|differ from callback"):
        clock.check_determinism(main)


def test_check_determinism_does_not_touch_the_global_generator() -> None:
    random.seed(3)
    before = random.getstate()
    clock.check_determinism(orderly)
    assert random.getstate() == before
