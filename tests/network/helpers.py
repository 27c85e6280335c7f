"""What the tests of the network share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

from simloop.clock import now_ns, run

T = TypeVar("T")


async def together(*awaitables: Awaitable[Any]) -> None:
    """Await all at once; the first error cancels the others."""

    async def one(awaitable: Awaitable[Any]) -> None:
        await awaitable

    async with asyncio.TaskGroup() as group:
        for awaitable in awaitables:
            group.create_task(one(awaitable))


async def ends(awaitables: Iterable[Awaitable[Any]]) -> list[int]:
    """Await all at once, and return when each was done, in ns."""
    times: dict[int, int] = {}

    async def one(index: int, awaitable: Awaitable[Any]) -> None:
        await awaitable
        times[index] = now_ns()

    await together(*(one(index, awaitable) for index, awaitable in enumerate(awaitables)))
    return [times[index] for index in range(len(times))]


def simulated(main: Callable[[], Awaitable[T]]) -> T:
    """Run ``main`` in virtual time and return what it returns."""
    result = run(main)
    assert result is not None
    return result


def duration_ns(main: Callable[[], Awaitable[Any]]) -> int:
    """Run ``main`` in virtual time and return how long it took, in ns."""

    async def timed() -> int:
        await main()
        return now_ns()

    return simulated(timed)
