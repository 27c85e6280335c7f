"""The clock itself: what time it is, and who wakes when."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

import anyio
import pytest

import simloop
from simloop import clock

SLEEPS: dict[str, Callable[[float], Awaitable[object]]] = {
    "simloop": clock.sleep,
    "asyncio": asyncio.sleep,
    "anyio": anyio.sleep,
}


@pytest.mark.parametrize("name", SLEEPS)
def test_a_day_and_an_hour_take_no_time(name: str) -> None:
    async def main() -> float:
        await SLEEPS[name](25 * 3600)
        return clock.now()

    assert clock.run(main) == 25 * 3600


@pytest.mark.parametrize("name", SLEEPS)
def test_short_sleeps_are_exact(name: str) -> None:
    async def main() -> int:
        for _ in range(1000):
            await SLEEPS[name](0.3e-6)
        return clock.now_ns()

    assert clock.run(main) == 300_000


def test_sleeps_of_every_kind_wake_in_the_order_in_which_they_were_set() -> None:
    woken: list[int] = []

    async def sleeper(number: int, sleep: Callable[[float], Awaitable[object]]) -> None:
        await sleep(1)
        woken.append(number)

    async def main() -> None:
        kinds = [*SLEEPS.values(), lambda seconds: clock.sleep_until(seconds), lambda s: clock.sleep_ns(int(s * 1e9))]
        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(sleeper(number, kinds[number * 7 % len(kinds)]))

    clock.run(main)
    assert woken == list(range(50))


def test_what_a_timer_causes_comes_before_the_next_timer_of_the_instant() -> None:
    order: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()

        def first() -> None:
            order.append("first timer")
            loop.call_soon(order.append, "its callback")
            loop.call_later(0, order.append, "its timer")

        loop.call_later(1, first)
        loop.call_later(1, order.append, "second timer")
        await clock.sleep(2)

    clock.run(main)
    assert order == ["first timer", "its callback", "second timer", "its timer"]


def test_the_past_means_now_and_keeps_the_order() -> None:
    order: list[str] = []

    async def main() -> int:
        await clock.sleep(5)
        loop = asyncio.get_running_loop()
        loop.call_at(3, order.append, "a")
        loop.call_at(1, order.append, "b")
        loop.call_later(-9, order.append, "c")
        await clock.sleep_until(2)
        await clock.sleep_until_ns(2)
        await clock.sleep(-1)
        await clock.sleep_ns(-1)
        await asyncio.sleep(0.1)
        return clock.now_ns()

    assert clock.run(main) == 5_100_000_000
    assert order == ["a", "b", "c"]


def test_sleeping_no_time_gives_way_once() -> None:
    order: list[str] = []

    async def other() -> None:
        for _ in range(3):
            order.append("other")
            await clock.sleep(0)

    async def main() -> None:
        task = asyncio.create_task(other())
        for _ in range(3):
            order.append("main")
            await clock.sleep(0)
        await task

    clock.run(main)
    assert order == ["main", "other"] * 3


@pytest.mark.parametrize("wait", [clock.sleep, clock.sleep_until, asyncio.sleep])
def test_nan_is_refused(wait: Callable[[float], Awaitable[object]]) -> None:
    async def main() -> None:
        await wait(math.nan)

    with pytest.raises(ValueError, match=r"NaN|nan"):
        clock.run(main)


@pytest.mark.parametrize("wait", [clock.sleep, clock.sleep_until, asyncio.sleep])
def test_for_ever_is_never_queued(wait: Callable[[float], Awaitable[object]]) -> None:
    async def main() -> float:
        with anyio.move_on_after(7):
            await wait(math.inf)
        return clock.now()

    assert clock.run(main) == 7


def test_a_timer_for_ever_is_a_handle_that_can_be_cancelled() -> None:
    loop = clock.new_event_loop()
    timer = loop.call_later(math.inf, print)
    assert timer.when() == math.inf
    assert not loop._scheduled
    timer.cancel()
    assert timer.cancelled()
    loop.close()


def test_until_cancels_main_and_returns_none() -> None:
    seen: list[float] = []

    async def main() -> str:
        try:
            await clock.sleep(100)
        finally:
            seen.append(clock.now())
        return "done"

    assert clock.run(main, until=12.5) is None
    assert clock.run(main, until=200) == "done"
    assert seen == [12.5, 100]


def test_a_timeout_of_main_itself_is_not_mistaken_for_until() -> None:
    async def main() -> None:
        async with asyncio.timeout(1):
            await clock.sleep(5)

    with pytest.raises(TimeoutError):
        clock.run(main, until=100)


def test_run_takes_a_coroutine_or_a_function_and_nothing_else() -> None:
    async def main() -> float:
        await clock.sleep(1)
        return clock.now()

    assert clock.run(main) == clock.run(main()) == 1
    with pytest.raises(TypeError, match="needs a coroutine or an async function, not 3"):
        clock.run(3)  # type: ignore[call-overload]


def test_time_can_be_read_after_the_loop_is_closed() -> None:
    loop = clock.new_event_loop()
    loop.run_until_complete(clock.sleep(1.5))
    loop.close()
    assert loop.time() == 1.5
    assert loop.now_ns == 1_500_000_000


def test_a_stopped_loop_does_not_move_the_clock() -> None:
    loop = clock.new_event_loop()
    ran: list[float] = []
    loop.call_later(1, ran.append, 1)
    loop.stop()
    loop.run_forever()
    assert (ran, loop.time()) == ([], 0)
    loop.call_later(1, loop.stop)
    loop.run_forever()
    assert (ran, loop.time()) == ([1], 1)
    loop.close()


def test_every_function_works_in_real_time_too() -> None:
    async def main() -> float:
        start = clock.now()
        await clock.sleep(0.01)
        await clock.sleep_ns(10_000_000)
        await clock.sleep_until(0.03)
        await clock.sleep_until_ns(40_000_000)
        with anyio.move_on_after(0.001):
            await clock.sleep_until(math.inf)
        clock.add_note(lambda: "never seen")
        assert clock.run_seed() == 0
        assert clock.rng("a") is clock.rng("a")
        assert start == 0
        return clock.now()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert 0.04 <= runner.run(main()) < 5


def test_the_clock_needs_a_loop() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        clock.now()
    with pytest.raises(RuntimeError, match="no running event loop"):
        clock.run_seed()


def test_the_surface_is_exact() -> None:
    assert set(clock.__all__) == {
        "Event",
        "VirtualLoop",
        "add_note",
        "alone",
        "check_determinism",
        "new_event_loop",
        "now",
        "now_ns",
        "rng",
        "run",
        "run_seed",
        "seed_for",
        "sleep",
        "sleep_ns",
        "sleep_until",
        "sleep_until_ns",
    }
    assert [name for name in clock.__all__ if not getattr(clock, name).__doc__] == []
    assert simloop.sleep is clock.sleep


@pytest.mark.parametrize("sleep", [clock.sleep, asyncio.sleep])
def test_waiting_in_a_loop_for_a_float_that_no_nanosecond_equals_ends(
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    async def main() -> int:
        await sleep(1.1)
        deadline = clock.now() + 0.1  # 1.2000000000000002
        while clock.now() < deadline:
            await sleep(deadline - clock.now())
        while clock.now() < deadline + 0.1:
            await clock.sleep_until(deadline + 0.1)
        return clock.now_ns()

    assert clock.run(main) in range(1_300_000_000, 1_300_000_003)


def test_deadlines_that_no_nanosecond_equals_are_met_by_asyncio_and_anyio_alike() -> None:
    async def main() -> list[int]:
        await clock.sleep(1.1)
        times = []
        for _ in range(3):
            with anyio.move_on_after(0.1):
                await anyio.sleep_forever()
            times.append(clock.now_ns())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await anyio.sleep_forever()
            times.append(clock.now_ns())
        return times

    assert clock.run(main) == [round(1.2e9 + 0.1e9 * number) for number in range(6)]


def test_loop_time_never_runs_backwards_and_reaches_every_deadline() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        last = 0.0
        for number in range(2000):
            deadline = loop.time() + 0.1 * (number % 7) + 1e-10 * number
            done = asyncio.Event()
            loop.call_at(deadline, done.set)
            await done.wait()
            assert loop.time() >= deadline
            assert loop.time() >= last
            assert abs(loop.time() - clock.now()) <= 1e-9
            last = loop.time()
            await clock.sleep(1e6 if number % 500 == 499 else 0.3e-9)

    clock.run(main)
