"""When callbacks run: the ready queue and the heap of timers."""

from __future__ import annotations

import contextvars
import sys
from asyncio import events, format_helpers
from collections.abc import Callable
from heapq import heapify, heappush
from typing import Any

from simloop.clock.handles import Handle, Timer
from simloop.clock.task import STEP, Task, TimerEntry
from simloop.clock.threads import InlineThreads
from simloop.clock.units import to_ns

__all__ = ["Scheduling"]

_SMALL_HEAP = 64
"""Below this many timers a rebuild is not worth its while."""


class Scheduling(InlineThreads):
    """The part of the loop that puts callbacks where they will be found.

    Ready callbacks lie in ``_ready``, in order; timers in the heap ``_scheduled``, by time and then by the order in
    which they were set. A cancelled timer stays there until it comes up, or until half of the heap is like that.

    Attributes:
        now_ns: The virtual time in integer ns, from 0. Read it, do not set it.
    """

    __slots__ = ("_dead_timers", "_serial", "_wake_ns", "now_ns")

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self._clock_resolution = 1e-9
        self._time_floor = 0.0
        self._wake_ns: int | None = None
        self._serial = 0
        self._dead_timers = 0

    def time(self) -> float:
        """Return the virtual time in seconds, also after the loop is closed.

        Once a timer has run, this is not before the time that it was set for: ``1.1 + 0.1`` is a little more than
        1.2 as a float, and whoever compares the two (as anyio does) must not wait for what has come already.
        """
        now = self.now_ns / 1e9
        return now if now >= self._time_floor else self._time_floor

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle | None:
        """Schedule a callback for this instant; see :meth:`asyncio.loop.call_soon`."""
        wake_ns = self._wake_ns
        if wake_ns is not None:
            # The running task said in sleep() when it wants to wake, and yielded. Its step goes into the timer heap:
            # no Future, no second callback. Only a task's own step is parked, so that a sleep whose yield was
            # swallowed by a hand-written driver delays nobody else; it finds itself awake too early, and waits again.
            self._wake_ns = None
            if callback.__class__ is STEP:
                task = callback.__self__  # type: ignore[attr-defined]  # STEP has it
                if task.__class__ is Task:
                    entry = task._entry
                    if entry is None or (entry.__class__ is bool and not task._must_cancel):
                        # No call between question and answer: a signal handler that cancels comes after both.
                        self._serial = serial = self._serial + 1
                        task._entry = entry = (wake_ns, serial, task, callback, context)
                        heappush(self._scheduled, entry)
                        return None
                    if entry is False:  # it is cancelled already: as if it had been while it slept
                        task._entry = True
        if self._closed:
            self._check_closed()
        handle = Handle(callback, args, self, context)
        if self._debug:
            self._check_call(handle, callback, "call_soon")
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Timer:
        """Schedule a callback after ``delay`` seconds: at least 1 ns, unless it is not positive, which is now.

        ``inf`` is never.
        """
        if delay is None:
            raise TypeError("delay must not be None")
        try:
            delay_ns = int(delay * 1e9 + 0.5) or (delay > 0)  # to_ns, without the call
        except (OverflowError, ValueError):
            return self.call_at(delay, callback, *args, context=context)
        return self._add_timer(Timer(self.now_ns + delay_ns, callback, args, self, context), "call_later")

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Timer:
        """Schedule a callback at ``when`` seconds of virtual time; the past is now, and ``inf`` is never."""
        if when is None:
            raise TypeError("when cannot be None")
        when_ns = to_ns(when)
        timer = Timer(when_ns, callback, args, self, context)
        if when_ns is not None and when_ns / 1e9 < when:
            timer.time_floor = when
        return self._add_timer(timer, "call_at")

    def call_at_ns(self, when_ns: int, callback: Callable[..., object], *args: Any) -> Timer:
        """Schedule a callback at ``when_ns`` ns of virtual time; the past is now."""
        return self._add_timer(Timer(when_ns, callback, args, self, None), "call_at_ns")

    def _add_timer(self, timer: Timer, method: str) -> Timer:
        if self._closed:
            self._check_closed()
        if self._debug:
            self._check_call(timer, timer._callback, method)
        when_ns = timer.when_ns
        if when_ns is not None:
            if when_ns < self.now_ns:
                when_ns = timer.when_ns = self.now_ns
            self._serial = serial = self._serial + 1
            timer._scheduled = True
            heappush(self._scheduled, (when_ns, serial, None, timer, None))
        return timer

    def _check_call(self, handle: Handle | Timer, callback: Callable[..., object], method: str) -> None:
        """Do what asyncio does in debug mode: check thread and callback, keep the stack."""
        self._check_thread()
        self._check_callback(callback, method)
        handle._source_traceback = format_helpers.extract_stack(sys._getframe(2 if method == "call_soon" else 3))

    def count_dead_timer(self) -> None:
        """Note that one heap entry is void; when over half of them are, rebuild the heap in place."""
        self._dead_timers += 1
        if self._dead_timers * 2 > len(self._scheduled) > _SMALL_HEAP:
            self._drop_dead_timers()

    def _drop_dead_timers(self) -> None:
        heap = self._scheduled
        while True:
            serial = self._serial
            alive = [entry for entry in heap if _is_alive(entry)]
            # A signal handler may have set a timer meanwhile; between this question and the answer none can run.
            if serial == self._serial:
                heap[:] = alive
                self._dead_timers = 0
                heapify(heap)
                return


def _is_alive(entry: TimerEntry) -> bool:
    _, _, task, call, _ = entry
    if task is not None:
        return task._entry is entry
    return not call._cancelled
