"""Cancelling a task that sleeps: with asyncio's tools, with anyio's, and in every state it can be in."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from anyio.abc import TaskStatus

from simloop import clock

SLEEPS = [clock.sleep, asyncio.sleep]


@pytest.mark.parametrize("sleep", SLEEPS)
def test_a_cancelled_sleeper_stops_at_once_with_the_message(sleep: Callable[[float], Awaitable[None]]) -> None:
    log: list[object] = []

    async def sleeper() -> None:
        try:
            await sleep(100)
        except asyncio.CancelledError as error:
            log.append((clock.now(), error.args))
            await sleep(2)
            log.append(clock.now())

    async def main() -> float:
        task = asyncio.create_task(sleeper())
        await sleep(1)
        assert task.cancel("enough")
        assert task.cancelling() == 1
        await task
        assert not task.cancel()
        return clock.now()

    assert clock.run(main) == 3
    assert log == [(1, ("enough",)), 3]


@pytest.mark.parametrize("sleep", SLEEPS)
def test_a_task_that_cancels_itself_does_not_sleep(sleep: Callable[[float], Awaitable[None]]) -> None:
    async def main() -> float:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await sleep(100)
        except asyncio.CancelledError:
            task.uncancel()
        at = clock.now()
        await sleep(1)
        return at

    assert clock.run(main) == 0


def test_a_task_cancelled_before_its_first_step_never_runs() -> None:
    async def main() -> float:
        task = asyncio.create_task(clock.sleep(100))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return clock.now()

    assert clock.run(main) == 0


def test_a_sleeper_cancelled_twice_in_one_instant_wakes_once() -> None:
    async def sleeper() -> int:
        caught = 0
        while True:
            try:
                await clock.sleep(10)
            except asyncio.CancelledError:
                caught += 1
            else:
                return caught

    async def main() -> tuple[int, float]:
        task = asyncio.create_task(sleeper())
        await clock.sleep(1)
        task.cancel()
        task.cancel()
        return await task, clock.now()

    assert clock.run(main) == (1, 11)


def test_a_sleeper_whose_time_has_come_can_still_be_cancelled_before_its_step() -> None:
    async def main() -> list[str]:
        log: list[str] = []

        async def sleeper() -> None:
            try:
                await clock.sleep(1)
                log.append("woke")
            except asyncio.CancelledError:
                log.append("cancelled")

        def cancel() -> None:
            task.cancel()

        asyncio.get_running_loop().call_at(1, cancel)
        task = asyncio.create_task(sleeper())
        await task
        return log

    assert clock.run(main) == ["cancelled"]


def test_a_cancellation_that_is_taken_back_keeps_what_asyncio_says_of_it() -> None:
    async def main() -> tuple[str, float]:
        task = asyncio.create_task(clock.sleep(5))
        await clock.sleep(1)
        task.cancel()
        task.uncancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled", clock.now()
        return "slept", clock.now()

    # Before Python 3.13 a cancellation cannot be taken back; from then on the sleep has its full length.
    assert clock.run(main) in {("cancelled", 1.0), ("slept", 5.0)}


@pytest.mark.parametrize("sleep", [*SLEEPS, anyio.sleep])
def test_anyio_scopes_end_a_sleep_at_their_deadline(sleep: Callable[[float], Awaitable[None]]) -> None:
    async def main() -> list[object]:
        log: list[object] = []
        with anyio.move_on_after(5) as outer:
            with anyio.move_on_after(2) as inner:
                await sleep(50)
            log.append((clock.now(), inner.cancelled_caught))
            with anyio.CancelScope(shield=True):
                await sleep(4)
            log.append((clock.now(), outer.cancel_called))
            await sleep(50)
        log.append((clock.now(), outer.cancelled_caught))
        with pytest.raises(TimeoutError), anyio.fail_after(1):
            await sleep(50)
        return [*log, clock.now()]

    assert clock.run(main) == [(2, True), (6, True), (6, True), 7]


def test_an_anyio_task_group_cancels_sleepers_that_resist_for_a_while() -> None:
    log: list[tuple[str, float]] = []

    async def stubborn(name: str, *, task_status: TaskStatus[None]) -> None:
        task_status.started()
        try:
            await clock.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await clock.sleep(3)
            log.append((name, clock.now()))

    async def main() -> float:
        async with anyio.create_task_group() as group:
            await group.start(stubborn, "a")
            await group.start(stubborn, "b")
            group.start_soon(clock.sleep, 50)
            await clock.sleep(1)
            group.cancel_scope.cancel()
        return clock.now()

    assert clock.run(main) == 4
    assert sorted(log) == [("a", 4), ("b", 4)]


def test_anyio_sees_that_a_sleeping_task_is_blocked() -> None:
    async def main() -> float:
        async with anyio.create_task_group() as group:
            group.start_soon(clock.sleep, 50)
            await anyio.wait_all_tasks_blocked()
            at = clock.now()
            names = [info.has_pending_cancellation() for info in anyio.get_running_tasks()]
            assert not any(names)
            group.cancel_scope.cancel()
        return at

    assert clock.run(main) == 0


def test_wait_for_and_timeout_and_gather_and_wait() -> None:
    async def main() -> list[float]:
        times = []
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(clock.sleep(10), 1)
        times.append(clock.now())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await clock.sleep(10)
        times.append(clock.now())
        await asyncio.gather(clock.sleep(1), clock.sleep(2), clock.sleep_until(3))
        times.append(clock.now())
        tasks = [asyncio.create_task(clock.sleep(n)) for n in (1, 5)]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        pending.pop().cancel()
        times.append(clock.now())
        return times

    assert clock.run(main) == [1, 2, 4, 5]


def test_a_tie_of_timeout_and_sleep_goes_to_the_one_set_first() -> None:
    async def main() -> list[str]:
        log = []
        try:
            async with asyncio.timeout(1):
                await clock.sleep(1)
        except TimeoutError:
            log.append("timeout was set first")
        task = asyncio.create_task(clock.sleep(1))
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await task
        return [*log, "sleep was set first"]

    assert clock.run(main) == ["timeout was set first", "sleep was set first"]


@pytest.mark.parametrize("name", ["Task", "_PyTask"])
def test_tasks_of_a_foreign_class_sleep_and_are_cancelled_just_as_well(name: str) -> None:
    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = getattr(asyncio.tasks, name)(coro, loop=loop, **options)
        return task

    async def cancelled_at(coro: Coroutine[Any, Any, None]) -> float:
        task = asyncio.create_task(coro)
        await clock.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return clock.now()

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        task = asyncio.create_task(clock.sleep(2))
        assert type(task) is not type(asyncio.current_task())
        await task
        names = [task.get_name(), asyncio.create_task(clock.sleep(0), name="mine").get_name()]
        return [clock.now(), await cancelled_at(clock.sleep(9)), clock.now(), *names]

    assert clock.run(main) == [2, 3, 3, "Task-2", "mine"]


def test_a_hand_written_driver_that_swallows_yields_corrupts_nothing() -> None:
    """Poll two sleeps by hand, as a naive ``select`` might; other tasks keep their times all the while."""
    woken: list[tuple[str, float]] = []

    async def other(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    async def main() -> None:
        loop = asyncio.get_running_loop()
        swallowed = clock.sleep(100)
        swallowed.send(None)  # the loop now believes that this task will yield
        tasks = [asyncio.create_task(other("a", 1))]
        swallowed_too = clock.sleep(100)
        swallowed_too.send(None)
        loop.call_soon(woken.append, ("soon", 0.0))
        clock.sleep(100).send(None)
        loop.call_later(2, woken.append, ("later", 2.0))
        tasks.append(asyncio.create_task(other("b", 3)))
        swallowed.close()
        swallowed_too.close()
        await asyncio.gather(*tasks)
        assert clock.now() == 3

    clock.run(main)
    assert woken == [("soon", 0), ("a", 1), ("later", 2), ("b", 3)]


def test_a_sleep_that_is_woken_too_early_sleeps_on() -> None:
    async def main() -> float:
        sleep = clock.sleep(10)
        assert sleep.send(None) is None
        asyncio.get_running_loop().call_soon(int)  # takes the wake time that the swallowed yield left
        await sleep_on(sleep)
        return clock.now()

    async def sleep_on(sleep: Coroutine[Any, Any, None]) -> None:
        await _Rest(sleep)

    assert clock.run(main) == 10


class _Rest:
    """Awaits what is left of a coroutine that was started by hand."""

    def __init__(self, coro: Coroutine[Any, Any, None]) -> None:
        self._coro = coro

    def __await__(self) -> Generator[Any, Any, None]:
        try:
            while True:
                future = self._coro.send(None)
                future._asyncio_future_blocking = True
                yield future
        except StopIteration:
            return


def test_cancelled_timers_do_not_pile_up() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, clock.VirtualLoop)
        largest = 0
        for number in range(20_000):
            loop.call_later(3600 + number, print).cancel()
            largest = max(largest, len(loop._scheduled))
        sleepers = [asyncio.create_task(clock.sleep(3600)) for _ in range(5_000)]
        await clock.sleep(1)
        for sleeper in sleepers:
            sleeper.cancel()
        await asyncio.gather(*sleepers, return_exceptions=True)
        return max(largest, len(loop._scheduled))

    assert clock.run(main) < 200


def test_the_heap_keeps_its_order_when_it_is_rebuilt() -> None:
    ran: list[int] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(1 + (number * 7919 % 1000), ran.append, number) for number in range(1000)]
        for number, timer in enumerate(timers):
            if number % 5:
                timer.cancel()
        await clock.sleep(2000)

    clock.run(main)
    assert ran == sorted(range(0, 1000, 5), key=lambda number: number * 7919 % 1000)


def test_repr_shows_what_a_sleeping_task_waits_for() -> None:
    async def main() -> str:
        task = asyncio.create_task(clock.sleep(2), name="sleeper")
        await clock.sleep(1)
        text = repr(task)
        task.cancel()
        return text

    text = clock.run(main)
    assert "name='sleeper'" in text
    assert "wait_for=<sleep until 2.0 s>" in text


def test_event_wakes_in_order_and_forgets_who_was_cancelled() -> None:
    woken: list[int] = []

    async def waiter(event: clock.Event, number: int) -> None:
        await event.wait()
        woken.append(number)

    async def main() -> None:
        event = clock.Event("go")
        tasks = [asyncio.create_task(waiter(event, number)) for number in range(5)]
        await clock.sleep(1)
        tasks[2].cancel()
        await clock.sleep(1)
        event.set()
        tasks[3].cancel()
        await clock.sleep(0)
        assert event.is_set()
        await event.wait()
        event.clear()
        assert not event.is_set()
        assert repr(event) == "Event 'go'"
        await asyncio.gather(*tasks, return_exceptions=True)

    clock.run(main)
    assert woken == [0, 1, 4]


def test_tasks_are_cancelled_in_the_order_in_which_they_were_made() -> None:
    order: list[int] = []

    async def sleeper(number: int) -> None:
        try:
            await clock.sleep(100)
        finally:
            order.append(number)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(sleeper(number))
            await clock.sleep(1)
            raise ValueError

    for _ in itertools.repeat(None, 2):
        order.clear()
        with pytest.raises(ExceptionGroup):
            clock.run(main)
        assert order == list(range(100))
