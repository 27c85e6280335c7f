"""Every private name of CPython and anyio that the clock leans on: a new version that lacks one fails here first."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import base_events, events, format_helpers
from typing import Any

import pytest

from simloop import clock
from simloop.clock.bare import bare_coroutine
from simloop.clock.base import LoopBase
from simloop.clock.task import STEP, Task


@pytest.mark.parametrize(
    "name",
    sorted(name for name in LoopBase.__annotations__ if name != "_callback"),
)
def test_attributes_of_the_base_loop(name: str) -> None:
    """What the clock reads or replaces is what BaseEventLoop sets."""
    loop = base_events.BaseEventLoop()
    assert hasattr(loop, name)
    loop._closed = True  # type: ignore[attr-defined]  # it has no selector to close


@pytest.mark.parametrize(
    "name", ["_check_closed", "_check_thread", "_check_callback", "_check_default_executor", "_run_once"]
)
def test_methods_of_the_base_loop(name: str) -> None:
    assert inspect.isfunction(getattr(base_events.BaseEventLoop, name))


def test_run_forever_calls_run_once_until_the_loop_is_stopping() -> None:
    source = inspect.getsource(base_events.BaseEventLoop.run_forever)
    assert "self._run_once()" in source
    assert "self._stopping" in source


@pytest.mark.parametrize(
    "name", ["_callback", "_args", "_context", "_loop", "_cancelled", "_repr", "_source_traceback"]
)
def test_slots_of_handles(name: str) -> None:
    assert name in events.Handle.__slots__


def test_slots_of_timers() -> None:
    assert {"_scheduled", "_when"} <= set(events.TimerHandle.__slots__)


@pytest.mark.parametrize("name", ["_fut_waiter", "_must_cancel", "_cancel_message", "_source_traceback"])
def test_attributes_of_tasks(name: str) -> None:
    assert hasattr(asyncio.Task, name)


def test_functions() -> None:
    assert callable(base_events._format_handle)  # type: ignore[attr-defined]
    assert callable(format_helpers.extract_stack)
    assert callable(asyncio._get_running_loop)
    assert callable(asyncio._set_running_loop)
    assert base_events.logger.name == "asyncio"  # type: ignore[attr-defined]


def test_a_task_yields_none_to_call_soon_with_its_step() -> None:
    """The fused sleep in one test: a task that yields None hands its step, which knows the task, to call_soon."""
    calls: list[Any] = []

    class Loop(clock.VirtualLoop):
        def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
            calls.append((callback, args, context))
            return super().call_soon(callback, *args, context=context)

    loop = Loop()
    task = loop.create_task(clock.sleep(1))
    loop.run_until_complete(task)
    steps = [call for call in calls if type(call[0]) is STEP]
    assert len(steps) == 2  # the first step, and the one that was parked
    for callback, args, context in steps:
        assert callback.__self__ is task
        assert args == ()
        assert context is not None
    assert type(task) is Task
    loop.close()


def test_a_bare_coroutine_is_a_coroutine() -> None:
    @bare_coroutine
    def two(value: int = 3) -> Any:
        """Doc."""
        got = yield value
        return got

    assert inspect.iscoroutinefunction(two)
    assert two.__doc__ == "Doc."
    coro = two()
    assert inspect.iscoroutine(coro)
    assert coro.send(None) == 3
    with pytest.raises(StopIteration, match="7"):
        coro.send(7)
    assert inspect.iscoroutinefunction(clock.sleep)
    assert inspect.iscoroutinefunction(clock.sleep_until_ns)
