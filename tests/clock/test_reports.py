"""Deadlocks and stalls: found at once, and told with names, lines and times."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import anyio
import anyio.to_thread
import pytest

from simloop import clock
from simloop.errors import DeadlockError, StallError


def deadlock_of(main: Callable[[], Coroutine[Any, Any, object]]) -> list[str]:
    with pytest.raises(DeadlockError) as caught:
        clock.run(main)
    return str(caught.value).splitlines()


def test_the_report_names_task_line_and_what_is_awaited() -> None:
    async def get(queue: asyncio.Queue[int]) -> int:
        return await queue.get()  # line of get

    async def blocked_by_event(event: clock.Event) -> None:
        await event.wait()  # line of event

    async def blocked_by_lock(lock: asyncio.Lock) -> None:
        async with lock:  # line of lock
            raise AssertionError

    async def main() -> None:
        await clock.sleep(1.5)
        clock.add_note(lambda: "router: 3 requests wait for a worker\nworker 0: idle")
        lock = asyncio.Lock()
        await lock.acquire()
        async with asyncio.TaskGroup() as group:
            group.create_task(get(asyncio.Queue()), name="getter")
            group.create_task(blocked_by_event(clock.Event("kv blocks")))
            group.create_task(blocked_by_lock(lock))

    head, *lines = deadlock_of(main)
    assert head == "nothing is ready and no timer is set at 1.5 s of virtual time; 4 tasks wait for ever:"
    assert [line.split(" at ")[0].strip() for line in lines[:4]] == [
        "task 'Task-1'",
        "task 'getter'",
        "task 'Task-3'",
        "task 'Task-4'",
    ]
    assert re.search(r"test_reports.py:\d+ in .*main: async with asyncio.TaskGroup\(\) as group:", lines[0])
    assert "waits for <TaskGroup tasks=3 entered>" in lines[0]
    assert re.search(r"test_reports.py:\d+ in .*get: return await queue.get\(\)  # line of get", lines[1])
    assert re.search(r"in asyncio/queues.py:\d+ in Queue.get, waits for <Queue maxsize=0 _getters\[1\]>", lines[1])
    assert "# line of event" in lines[2]
    assert lines[2].endswith("waits for Event 'kv blocks'")
    assert "# line of lock" in lines[3]
    assert "[locked, waiters:1]" in lines[3]
    assert "0x" not in "".join(lines)
    assert lines[4:] == ["router: 3 requests wait for a worker", "worker 0: idle"]


def test_sleeping_for_ever_alone_is_a_deadlock() -> None:
    _, line = deadlock_of(anyio.sleep_forever)
    assert "task 'Task-1'" in line
    assert "in sleep" in line


def test_a_future_that_nobody_sets() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()  # nobody

    _, line = deadlock_of(main)
    assert line.endswith("# nobody")


def test_a_task_that_waits_for_a_task() -> None:
    async def main() -> None:
        await asyncio.create_task(clock.Event().wait(), name="never")

    _, line, _ = deadlock_of(main)
    assert line.endswith("waits for task 'never'")


def test_the_innermost_line_is_found_through_generators_and_streams() -> None:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        await clock.Event("two").wait()

    async def main() -> None:
        async for _ in numbers():
            await asyncio.sleep(0)

    send, receive = anyio.create_memory_object_stream[int]()

    async def from_stream() -> None:
        await receive.receive()  # a stream

    with send, receive:
        _, line = deadlock_of(from_stream)
    assert "# a stream" in line
    assert "MemoryObjectReceiveStream" in line
    assert "async for _ in numbers()" in deadlock_of(main)[1]


def test_a_note_or_a_repr_that_fails_does_not_hide_the_deadlock() -> None:
    class Odd(asyncio.Event):
        def __repr__(self) -> str:
            raise ZeroDivisionError

    async def main() -> None:
        clock.add_note(lambda: str(1 // 0))
        await Odd().wait()

    _, line, note = deadlock_of(main)
    assert line.endswith("waits for <test_a_note_or_a_repr_that_fails_does_not_hide_the_deadlock.<locals>.Odd>")
    assert note == "(a note failed: ZeroDivisionError('integer division or modulo by zero'))"


def test_many_tasks_are_not_all_listed() -> None:
    async def main() -> None:
        await asyncio.gather(*(clock.Event().wait() for _ in range(80)))

    lines = deadlock_of(main)
    assert lines[0].endswith("81 tasks wait for ever:")
    assert len(lines) == 52
    assert lines[-1] == "  and 31 more"


def test_a_loop_that_runs_for_ever_with_nothing_to_do_is_a_deadlock() -> None:
    loop = clock.new_event_loop()
    with pytest.raises(DeadlockError, match="no task is left"):
        loop.run_forever()
    loop.close()


def test_a_thread_is_named_as_what_a_deadlock_may_be_about() -> None:
    before = threading.active_count()
    with warnings.catch_warnings():
        # The worker thread may or may not come to report before the loop is closed.
        warnings.simplefilter("ignore", pytest.PytestUnhandledThreadExceptionWarning)
        lines = deadlock_of(lambda: anyio.to_thread.run_sync(time.sleep, 0.01))
        while threading.active_count() > before:
            time.sleep(0.001)
    assert "anyio.to_thread is not supported" in lines[-1]
    assert "AnyIO worker thread" in lines[-1]


def test_a_stall_shows_the_last_callbacks() -> None:
    async def ping(mine: asyncio.Event, other: asyncio.Event) -> None:
        while True:
            await mine.wait()
            mine.clear()
            other.set()

    async def main() -> None:
        await clock.sleep(3)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, clock.VirtualLoop)
        loop.stall_after = 1000
        a, b = asyncio.Event(), asyncio.Event()
        a.set()
        async with asyncio.TaskGroup() as group:
            group.create_task(ping(a, b), name="ping")
            group.create_task(ping(b, a), name="pong")

    with pytest.raises(StallError) as caught:
        run_with_stall_after(1000, main)
    text = str(caught.value)
    assert "callbacks ran at 3.0 s of virtual time and the clock does not move" in text
    assert "task 'ping' at" in text
    assert "await mine.wait()" in text


def run_with_stall_after(calls: int, main: Callable[[], Coroutine[Any, Any, object]]) -> object:
    def factory() -> clock.VirtualLoop:
        loop = clock.new_event_loop()
        loop.stall_after = calls
        return loop

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def test_timers_of_one_instant_can_stall_too() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_later(0, again)

        again()
        await clock.sleep(1)

    with pytest.raises(StallError, match=r"main.<locals>.again\(\) at .*test_reports.py:\d+"):
        run_with_stall_after(1000, main)


def test_a_task_group_inside_a_cancelled_anyio_scope_stalls_with_a_report() -> None:
    async def slow_to_go() -> None:
        try:
            await clock.sleep(100)
        finally:
            await asyncio.shield(asyncio.create_task(clock.sleep(10), name="clean-up"))

    async def main() -> None:
        with anyio.move_on_after(1):
            async with asyncio.TaskGroup() as group:
                group.create_task(slow_to_go())

    with pytest.raises(StallError, match="_deliver_cancellation"):
        run_with_stall_after(10_000, main)


def test_a_large_burst_is_no_stall() -> None:
    async def main() -> int:
        async with asyncio.TaskGroup() as group:
            for _ in range(1000):
                group.create_task(asyncio.sleep(0))
        return 7

    assert run_with_stall_after(1000, main) == 7


def test_what_looked_like_a_stall_and_was_none_goes_on() -> None:
    async def main() -> float:
        for _ in range(3):
            for _ in range(1205):  # just past the limit: the trail is being kept when the clock moves
                await asyncio.sleep(0)
            await clock.sleep(1)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, clock.VirtualLoop)
        return clock.now()

    assert run_with_stall_after(1098, main) == 3


def test_debug_mode_warns_of_slow_callbacks_by_the_real_clock(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.01
        await clock.sleep(3600)
        await asyncio.sleep(3600)
        loop.call_soon(time.sleep, 0.02)
        time.sleep(0.02)
        await clock.sleep(1)
        loop.set_debug(False)

    with (
        caplog.at_level(logging.WARNING, logger="asyncio"),
        asyncio.Runner(loop_factory=clock.new_event_loop, debug=True) as runner,
    ):
        runner.run(main())
    assert len(caplog.records) == 2
    assert all("took 0.02" in record.getMessage() or "took 0.0" in record.getMessage() for record in caplog.records)


def test_debug_mode_changes_no_order() -> None:
    def order_with(debug: bool) -> list[int]:
        order: list[int] = []

        async def sleeper(number: int) -> None:
            await (clock.sleep if number % 2 else asyncio.sleep)(1 + number % 3)
            order.append(number)

        async def main() -> None:
            await asyncio.gather(*(sleeper(number) for number in range(30)))

        with asyncio.Runner(loop_factory=clock.new_event_loop, debug=debug) as runner:
            runner.run(main())
        return order

    assert order_with(debug=True) == order_with(debug=False)


def test_an_error_in_a_callback_goes_to_the_exception_handler() -> None:
    seen: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: seen.append(repr(context["exception"])))
        loop.call_soon(lambda: 1 // 0)
        loop.call_later(1, lambda: [][1])
        await clock.sleep(2)

    clock.run(main)
    assert seen == [
        "ZeroDivisionError('integer division or modulo by zero')",
        "IndexError('list index out of range')",
    ]
