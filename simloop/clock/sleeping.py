"""Reading the clock, and waiting for it: on a virtual loop, and on any other.

On an ordinary asyncio loop the same functions work in real time, counted from the first of them that was called there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any
from weakref import WeakKeyDictionary

from simloop.clock.bare import bare_coroutine
from simloop.clock.base import current
from simloop.clock.loop import VirtualLoop
from simloop.clock.units import to_ns

__all__ = ["alone", "now", "now_ns", "sleep", "sleep_ns", "sleep_until", "sleep_until_ns"]

_origins: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()


def alone() -> bool:
    """Return whether nothing else is ready and no timer is set: what waits then waits for ever.

    Something that comes back from time to time for as long as there are others asks, and stops: it would keep a run
    going that has come to a halt. In real time there may always be others.
    """
    loop = current.loop
    return loop is not None and not loop._ready and len(loop._scheduled) == loop._dead_timers


def now() -> float:
    """Return the time since the start of the run, in seconds."""
    return now_ns() / 1e9


def now_ns() -> int:
    """Return the time since the start of the run, in whole ns.

    Raises:
        RuntimeError: No event loop is running.
    """
    loop = current.loop
    return _real_now_ns() if loop is None else loop.now_ns


@bare_coroutine
def sleep(seconds: float) -> Generator[Any, Any, None]:
    """Wait for ``seconds``: at least 1 ns, unless it is not positive, which gives way once to what is ready.

    Raises:
        ValueError: ``seconds`` is not a number.
    """
    loop = current.loop
    if loop is None:
        yield from asyncio.sleep(seconds).__await__()
        return
    try:
        delay_ns = int(seconds * 1e9 + 0.5) or (seconds > 0)  # to_ns, without the call
    except (OverflowError, ValueError):
        yield from sleep_until(seconds).__await__()
        return
    if delay_ns > 0:
        loop._wake_ns = when_ns = loop.now_ns + delay_ns
        yield
        if loop.now_ns < when_ns:
            yield from _wait_until(loop, when_ns).__await__()
    else:
        yield


async def sleep_ns(delay_ns: int) -> None:
    """Wait for ``delay_ns`` ns."""
    loop = current.loop
    if loop is None:
        await asyncio.sleep(delay_ns / 1e9)
    else:
        await sleep_until_ns(loop.now_ns + delay_ns)


async def sleep_until(seconds: float) -> None:
    """Wait until the time is ``seconds``; a time in the past gives way once to the callbacks that are ready.

    Raises:
        ValueError: ``seconds`` is not a number.
    """
    when_ns = to_ns(seconds)
    if when_ns is None:
        await asyncio.get_running_loop().create_future()
    else:
        # As floats, 1.1 + 0.1 is after 1.2: whoever waits in a loop until now() has reached it must get there.
        now = now_ns()
        await sleep_until_ns(now + 1 if when_ns <= now and seconds > now / 1e9 else when_ns)


@bare_coroutine
def sleep_until_ns(when_ns: int) -> Generator[Any, Any, None]:
    """Wait until the time is ``when_ns`` ns; a time in the past gives way once to the callbacks that are ready."""
    loop = current.loop
    if loop is None:
        yield from asyncio.sleep((when_ns - _real_now_ns()) / 1e9).__await__()
    elif when_ns > loop.now_ns:
        loop._wake_ns = when_ns
        yield
        if loop.now_ns < when_ns:
            yield from _wait_until(loop, when_ns).__await__()
    else:
        yield


async def _wait_until(loop: VirtualLoop, when_ns: int) -> None:
    """Wait with an ordinary timer: the task is of a foreign class, or something else woke it too early."""
    future = loop.create_future()
    timer = loop.call_at_ns(when_ns, _set_done, future)
    try:
        await future
    finally:
        timer.cancel()


def _set_done(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)


def _real_now_ns() -> int:
    loop = asyncio.get_running_loop()
    time = loop.time()
    return int((time - _origins.setdefault(loop, time)) * 1e9)
