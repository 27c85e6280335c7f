"""Starting a run."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar, overload

from simloop.clock.base import current
from simloop.clock.loop import VirtualLoop

__all__ = ["add_note", "new_event_loop", "run"]

T = TypeVar("T")


def new_event_loop(*, seed: int = 0) -> VirtualLoop:
    """Return a new event loop on virtual time, for whatever takes a loop factory.

    Args:
        seed: The seed of the named random streams (:func:`rng`).
    """
    return VirtualLoop(seed=seed)


@overload
def run(main: Coroutine[Any, Any, T] | Callable[[], Awaitable[T]], *, seed: int = 0, until: None = None) -> T: ...
@overload
def run(main: Coroutine[Any, Any, T] | Callable[[], Awaitable[T]], *, seed: int = 0, until: float) -> T | None: ...
def run(
    main: Coroutine[Any, Any, T] | Callable[[], Awaitable[T]], *, seed: int = 0, until: float | None = None
) -> T | None:
    """Run ``main`` on a new virtual clock and return what it returns.

    Args:
        main: A coroutine, or an async function without arguments.
        seed: The seed of the named random streams (:func:`rng`).
        until: Virtual seconds at which ``main`` is cancelled; the run then returns None.

    Raises:
        DeadlockError: Everybody waits, and nothing will ever happen.
        StallError: The clock does not move any more.
        RuntimeError: An event loop is running in this thread already.
        KeyboardInterrupt: Ctrl-C was pressed; ``main`` was cancelled first.
    """
    if asyncio._get_running_loop() is not None:
        if inspect.iscoroutine(main):
            main.close()
        raise RuntimeError("simloop.run cannot be called from a running event loop")
    with asyncio.Runner(loop_factory=functools.partial(new_event_loop, seed=seed)) as runner:
        return runner.run(_run_main(main, until))


async def _run_main(main: Coroutine[Any, Any, T] | Callable[[], Awaitable[T]], until: float | None) -> T | None:
    awaitable = main() if callable(main) else main
    if not inspect.isawaitable(awaitable):
        raise TypeError(f"simloop.run needs a coroutine or an async function, not {main!r}")
    if until is None:
        return await awaitable
    try:
        async with asyncio.timeout_at(until) as scope:
            return await awaitable
    except TimeoutError:
        if not scope.expired():
            raise
        return None


def add_note(note: Callable[[], str]) -> None:
    """Add lines to the deadlock report of the running loop: a cluster says who waits for what.

    On a loop that is not simloop's, which makes no such reports, this has no effect.

    Args:
        note: Called when a report is written; it returns one or more lines.
    """
    loop = current.loop
    if loop is not None:
        loop.notes.append(note)
