"""Handles: what ``call_soon`` and ``call_at`` return, made as cheaply as Python allows.

The standard classes ask the loop for its debug flag, and may take a stack trace, on every creation. A simulation
makes one for nearly everything that happens, so these fill the same slots and leave that to the loop.
"""

from __future__ import annotations

import contextvars
from asyncio import events
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simloop.clock.base import LoopBase
    from simloop.clock.scheduling import Scheduling

__all__ = ["Handle", "Timer"]


class Handle(events.Handle):
    """A callback in the ready queue."""

    __slots__ = ()

    _callback: Callable[..., object]
    _source_traceback: Any

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: LoopBase,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


class Timer(events.TimerHandle):
    """A callback in the timer heap; one for ``inf`` is in no queue at all.

    Args:
        when_ns: The virtual time at which it runs, in ns, or None for never.
        callback: What runs.
        args: Its arguments.
        loop: The loop that runs it.
        context: The context it runs in, or None for a copy of the current one.

    Attributes:
        time_floor: What ``loop.time()`` is at least once it has run, in seconds.
    """

    __slots__ = ("time_floor", "when_ns")

    _args: Any
    _callback: Any
    _loop: Scheduling
    _repr: str | None
    _source_traceback: Any

    def __init__(
        self,
        when_ns: int | None,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: Scheduling,
        context: contextvars.Context | None,
    ) -> None:
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None
        self._scheduled = False
        self.when_ns = when_ns
        self.time_floor = 0.0

    @property
    def _when(self) -> float:
        """Seconds: what the standard class compares, hashes and shows."""
        return float("inf") if self.when_ns is None else self.when_ns / 1e9

    def cancel(self) -> None:
        """Cancel the timer; its entry in the heap is dropped later."""
        if not self._cancelled:
            loop = self._loop
            if self._scheduled:
                loop.count_dead_timer()
            if loop._debug:
                self._repr = repr(self)
            self._cancelled = True
            self._callback = self._args = None

    def when(self) -> float:
        """Return the virtual time at which the callback runs, in seconds."""
        return self._when
