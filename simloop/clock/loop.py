"""The event loop on virtual time.

Ready callbacks run first, in the order in which they were scheduled. When none is left, the timer that comes next runs
and the clock stands at its time. The loop never sleeps, and has no selector, no self-pipe and no file descriptors.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from asyncio import base_events, events, format_helpers
from collections import deque
from collections.abc import Callable, Coroutine
from heapq import heapify, heappop, heappush
from typing import Any

from simloop.clock.agens import OrderedWeakSet
from simloop.clock.handles import Handle, Timer
from simloop.clock.report import describe_deadlock, describe_stall
from simloop.clock.task import STEP, Task, TimerEntry
from simloop.clock.units import to_ns
from simloop.clock.unsupported import UnsupportedMethods
from simloop.clock.watch import Watch
from simloop.errors import DeadlockError, StallError, UnsupportedError

__all__ = ["VirtualLoop", "current"]

_SMALL_HEAP = 64
"""Below this many timers a rebuild is not worth its while."""


class _Current(threading.local):
    """The virtual loop that runs in this thread, or None: several times faster to ask than asyncio on Python 3.11."""

    loop: VirtualLoop | None = None


current = _Current()


class VirtualLoop(UnsupportedMethods, base_events.BaseEventLoop):
    """An asyncio event loop whose clock jumps to the next timer as soon as nothing is ready.

    Args:
        seed: The seed of the run, from which every named random stream is derived.

    Attributes:
        now_ns: The virtual time in integer ns, from 0. Read it, do not set it.
        seed: The seed of the run.
        notes: Functions whose lines are added to a deadlock report (see :func:`simloop.clock.add_note`).
        stall_after: How many callbacks may run at one instant before :class:`~simloop.StallError`; 100 more for every
            task that was ever made are free, so that a large burst is no stall.
    """

    _ready: deque[events.Handle]
    _scheduled: list[TimerEntry]
    _stopping: bool
    _closed: bool
    _debug: bool
    _thread_id: int | None

    def __init__(self, *, seed: int = 0) -> None:
        self._watch: Watch | None = None
        super().__init__()
        self.now_ns = 0
        self.seed = seed
        self.notes: list[Callable[[], str]] = []
        self.stall_after = 5_000_000
        self.threads_refused: list[str] = []
        self._clock_resolution = 1e-9
        self._asyncgens = OrderedWeakSet()
        self._wake_ns: int | None = None
        self._serial = 0
        self._task_serial = 0
        self._dead_timers = 0
        self._inline_calls = 0
        self.threads_before = frozenset(threading.enumerate())

    def time(self) -> float:
        """Return the virtual time in seconds, also after the loop is closed."""
        return self.now_ns / 1e9

    # -- tasks

    def next_task_serial(self) -> int:
        """Return the number of the next task of this loop, from 1."""
        self._task_serial += 1
        return self._task_serial

    def create_task(
        self,
        coro: Any,
        *,
        name: object = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        """Schedule a coroutine as a task; see :meth:`asyncio.loop.create_task`.

        Raises:
            UnsupportedError: ``eager_start`` was asked for.
        """
        self._check_closed()  # type: ignore[attr-defined]
        if options.pop("eager_start", None):
            raise UnsupportedError(_EAGER)
        if self._task_factory is not None:  # type: ignore[attr-defined]
            return self._create_task_with_factory(coro, name, context, options)
        task_name = None if name is None else str(name)
        task = Task(coro, loop=self, name=task_name, context=context, **options)
        if task._source_traceback:
            del task._source_traceback[-2:]
        return task

    def _create_task_with_factory(
        self, coro: Any, name: object, context: contextvars.Context | None, options: dict[str, Any]
    ) -> asyncio.Task[Any]:
        if context is not None:
            options["context"] = context
        task: asyncio.Task[Any] = self._task_factory(self, coro, **options)  # type: ignore[attr-defined]
        # A factory may return any Future; the number in the name is this loop's, so that two runs agree.
        set_name = getattr(task, "set_name", None)
        if set_name is not None and not isinstance(task, Task):
            set_name(f"Task-{self.next_task_serial()}" if name is None else name)
        elif set_name is not None and name is not None:
            set_name(name)
        return task

    def set_task_factory(self, factory: Any) -> None:
        """Set what makes tasks; see :meth:`asyncio.loop.set_task_factory`.

        Raises:
            UnsupportedError: The factory starts tasks eagerly.
        """
        eager = getattr(asyncio, "eager_task_factory", None)
        if eager is not None and getattr(factory, "__code__", None) is eager.__code__:
            raise UnsupportedError(_EAGER)
        super().set_task_factory(factory)

    # -- scheduling

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle | None:
        """Schedule a callback for this instant; see :meth:`asyncio.loop.call_soon`."""
        wake_ns = self._wake_ns
        if wake_ns is not None:
            # The running task said in sleep() when it wants to wake, and yielded. Its step goes into the timer heap:
            # no Future, no second callback. Only a task's own step is parked, so that a sleep whose yield was
            # swallowed by a hand-written driver delays nobody else; it finds itself awake too early, and waits again.
            self._wake_ns = None
            if callback.__class__ is STEP and (task := callback.__self__).__class__ is Task:  # type: ignore[attr-defined]
                entry = task._entry
                if entry is None or (entry is False and not task._must_cancel):
                    # No call between the question and the answer: a signal handler that cancels comes after both.
                    self._serial = serial = self._serial + 1
                    task._entry = entry = (wake_ns, serial, task, callback, context)
                    heappush(self._scheduled, entry)
                    return None
        if self._closed:
            self._check_closed()  # type: ignore[attr-defined]
        handle = Handle(callback, args, self, context)
        if self._debug:
            self._check_call(handle, callback, "call_soon")
        self._ready.append(handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Timer:
        """Schedule a callback after ``delay`` seconds; ``inf`` is never, and what is negative is now."""
        if delay is None:
            raise TypeError("delay must not be None")
        delay_ns = to_ns(delay)
        when_ns = None if delay_ns is None else self.now_ns + delay_ns
        return self._add_timer(when_ns, callback, args, context, "call_later")

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Timer:
        """Schedule a callback at ``when`` seconds of virtual time; ``inf`` is never, and the past is now."""
        if when is None:
            raise TypeError("when cannot be None")
        return self._add_timer(to_ns(when), callback, args, context, "call_at")

    def call_at_ns(self, when_ns: int, callback: Callable[..., object], *args: Any) -> Timer:
        """Schedule a callback at ``when_ns`` ns of virtual time; the past is now."""
        return self._add_timer(when_ns, callback, args, None, "call_at_ns")

    def _add_timer(
        self,
        when_ns: int | None,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        method: str,
    ) -> Timer:
        if self._closed:
            self._check_closed()  # type: ignore[attr-defined]
        if when_ns is not None and when_ns < self.now_ns:
            when_ns = self.now_ns
        timer = Timer(when_ns, callback, args, self, context)
        if self._debug:
            self._check_call(timer, callback, method)
        if when_ns is not None:
            self._serial = serial = self._serial + 1
            timer._scheduled = True
            heappush(self._scheduled, (when_ns, serial, None, timer, None))
        return timer

    def _check_call(self, handle: Handle | Timer, callback: Callable[..., object], method: str) -> None:
        """Do what asyncio does in debug mode: check thread and callback, keep the stack."""
        self._check_thread()  # type: ignore[attr-defined]
        self._check_callback(callback, method)  # type: ignore[attr-defined]
        handle._source_traceback = format_helpers.extract_stack(sys._getframe(2 if method == "call_soon" else 3))

    def _timer_handle_cancelled(self, handle: Timer) -> None:
        if handle._scheduled:
            self.count_dead_timer()

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

    # -- running

    def run_forever(self) -> None:
        """Run until :meth:`stop` is called.

        Raises:
            DeadlockError: Nothing is ready and no timer is set; the message says who waits for what.
            StallError: More than ``stall_after`` callbacks ran without the clock moving.
        """
        before = current.loop
        current.loop = self
        try:
            super().run_forever()
        finally:
            current.loop = before
            self._wake_ns = None

    def _run_once(self) -> None:
        """Run callbacks and timers until the loop is stopped: the whole engine, in one place for speed."""
        ready, heap = self._ready, self._scheduled
        calls, limit = 0, self.stall_after
        while ready or not self._stopping:
            if ready:
                calls += len(ready)
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle._cancelled:
                        if self._watch is None:
                            handle._run()
                        else:
                            self._watch.run(handle)
            elif heap:
                when_ns, _, task, call, context = entry = heappop(heap)
                if task is not None:
                    if task._entry is not entry:
                        self._dead_timers -= 1
                        continue
                    task._entry = None
                else:
                    call._scheduled = False
                    if call._cancelled:
                        self._dead_timers -= 1
                        continue
                if when_ns > self.now_ns:
                    self.now_ns, calls = when_ns, 0
                else:
                    calls += 1
                if self._watch is not None:
                    self._watch.run(call if task is None else Handle(call, (), self, context))
                elif task is not None:
                    context.run(call)
                else:
                    call._run()
            elif not ready:  # asked again: a signal handler may just have scheduled something
                raise DeadlockError(describe_deadlock(self))
            if calls > limit:
                limit = self._suspect_stall(calls)
            if self._stopping:
                return

    def _suspect_stall(self, calls: int) -> int:
        """Raise when the callbacks at this instant are too many, or say at which number to ask again."""
        limit = self.stall_after + 100 * self._task_serial
        if calls <= limit:
            return limit
        watch = self._watch = self._watch or Watch(self)
        if watch.trail_ns != self.now_ns:
            watch.start_trail()
            return calls + watch.trail_length
        raise StallError(describe_stall(self, calls, watch.trail))

    def set_debug(self, enabled: bool) -> None:
        """Turn asyncio's debug mode on or off: it watches every callback, by the real clock."""
        super().set_debug(enabled)
        if enabled and self._watch is None:
            self._watch = Watch(self)

    def watch_with(self, tracer: Callable[[int, str], None]) -> None:
        """Call ``tracer`` with the virtual time in ns and a name before every callback: slow, for looking closely."""
        self._watch = self._watch or Watch(self)
        self._watch.tracer = tracer

    # -- threads

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle:
        """Schedule a callback from a signal handler, or from this thread.

        Raises:
            UnsupportedError: Another thread called: when that happens is nothing that virtual time could say.
        """
        if self._closed:
            self._check_closed()  # type: ignore[attr-defined]
        if self._thread_id is not None and threading.get_ident() != self._thread_id:
            self.threads_refused.append(threading.current_thread().name)
            raise UnsupportedError(
                f"call_soon_threadsafe was called by thread {threading.current_thread().name!r}: virtual time does "
                "not wait for threads (asyncio.to_thread and loop.run_in_executor run inline and are fine)"
            )
        if self._inline_calls and getattr(callback, "__module__", None) == asyncio.run_coroutine_threadsafe.__module__:
            raise UnsupportedError(
                "run_coroutine_threadsafe was called by code that runs inline (to_thread, run_in_executor): "
                "it would wait for a loop that waits for it"
            )
        handle = Handle(callback, args, self, context)
        if self._debug:
            self._check_callback(callback, "call_soon_threadsafe")  # type: ignore[attr-defined]
        self._ready.append(handle)
        return handle

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run ``func`` at once, in this thread and at this instant, and return a future that is done.

        Virtual time measures no work that Python does, so a function that would run in a pool takes no time. No loop
        is running as far as ``func`` can tell, which is how it would be in a thread.
        """
        self._check_closed()  # type: ignore[attr-defined]
        if self._debug:
            self._check_callback(func, "run_in_executor")  # type: ignore[attr-defined]
        if executor is None:
            self._check_default_executor()  # type: ignore[attr-defined]
        future = self.create_future()
        running, before = events._get_running_loop(), current.loop
        events._set_running_loop(None)
        current.loop = None
        self._inline_calls += 1
        try:
            future.set_result(func(*args))
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            future.set_exception(error)
        finally:
            self._inline_calls -= 1
            current.loop = before
            events._set_running_loop(running)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109
        """Refuse further calls of :meth:`run_in_executor` without an executor; there are no threads to join."""
        self._executor_shutdown_called = True


def _is_alive(entry: TimerEntry) -> bool:
    _, _, task, call, _ = entry
    if task is not None:
        return task._entry is entry
    return not call._cancelled  # type: ignore[union-attr]


_EAGER = "tasks cannot start eagerly in virtual time: a task's first step waits for its turn, so that order is one rule"
