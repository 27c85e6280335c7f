"""Reading the clock, and waiting for it: on a virtual loop, and on any other.

On an ordinary asyncio loop the same functions work in real time, counted from the first of them that was called there.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from typing import Any
from weakref import WeakKeyDictionary

from simloop.clock.base import current
from simloop.clock.loop import VirtualLoop
from simloop.clock.units import to_ns

__all__ = ["now", "now_ns", "sleep", "sleep_ns", "sleep_until", "sleep_until_ns"]

_origins: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()


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


async def sleep(seconds: float) -> None:
    """Wait for ``seconds``; what is not positive gives way once to the callbacks that are ready.

    Raises:
        ValueError: ``seconds`` is not a number.
    """
    loop = current.loop
    delay_ns = to_ns(seconds)
    if loop is None:
        await asyncio.sleep(seconds)
    elif delay_ns is None:
        await loop.create_future()
    elif delay_ns <= 0:
        await _yield_once()
    else:
        when_ns = loop.now_ns + delay_ns
        loop._wake_ns = when_ns
        await _yield_once()
        if loop.now_ns < when_ns:
            await _wait_until(loop, when_ns)


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
        await sleep_until_ns(when_ns)


async def sleep_until_ns(when_ns: int) -> None:
    """Wait until the time is ``when_ns`` ns; a time in the past gives way once to the callbacks that are ready."""
    loop = current.loop
    if loop is None:
        await asyncio.sleep((when_ns - _real_now_ns()) / 1e9)
    elif when_ns <= loop.now_ns:
        await _yield_once()
    else:
        loop._wake_ns = when_ns
        await _yield_once()
        if loop.now_ns < when_ns:
            await _wait_until(loop, when_ns)


@types.coroutine
def _yield_once() -> Generator[None, None, None]:
    """Give control back to the task, and it to the loop; ``loop._wake_ns`` says when to come back."""
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
