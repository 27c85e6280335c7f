"""The event loop on virtual time.

Ready callbacks run first, in the order in which they were scheduled. When none is left, the timer that comes next runs
and the clock stands at its time. The loop never sleeps, and has no selector, no self-pipe and no file descriptors.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from heapq import heappop
from typing import Any

from simloop.clock.agens import OrderedWeakSet
from simloop.clock.base import current
from simloop.clock.handles import Handle
from simloop.clock.report import describe_deadlock, describe_stall
from simloop.clock.scheduling import Scheduling
from simloop.clock.task import Task
from simloop.clock.unsupported import UnsupportedMethods
from simloop.clock.watch import Watch
from simloop.errors import DeadlockError, StallError, UnsupportedError

__all__ = ["VirtualLoop"]


class VirtualLoop(UnsupportedMethods, Scheduling):
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

    __slots__ = ("_watch",)

    def __init__(self, *, seed: int = 0) -> None:
        self._watch: Watch | None = None  # before the rest, which asks for debug mode
        super().__init__()
        self.seed = seed
        self.notes: list[Callable[[], str]] = []
        self.stall_after = 5_000_000
        self._asyncgens = OrderedWeakSet()
        self._task_serial = 0
        self._once = True

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
        self._check_closed()
        if options.pop("eager_start", None):
            raise UnsupportedError(_EAGER)
        if self._task_factory is not None:
            return self._call_task_factory(self._task_factory, coro, name, context, options)
        task_name = None if name is None else str(name)
        task = Task(coro, loop=self, name=task_name, context=context, **options)
        if task._source_traceback:
            del task._source_traceback[-2:]
        return task

    def _call_task_factory(
        self,
        factory: Callable[..., Any],
        coro: Any,
        name: object,
        context: contextvars.Context | None,
        options: dict[str, Any],
    ) -> asyncio.Task[Any]:
        if context is not None:
            options["context"] = context
        task: asyncio.Task[Any] = factory(self, coro, **options)
        if name is None and not isinstance(task, Task):
            name = f"Task-{self.next_task_serial()}"  # asyncio's own default counts through all loops of a process
        if name is not None and hasattr(task, "set_name"):  # a factory may return any Future
            task.set_name(name)
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

    def run_forever(self) -> None:
        """Run until :meth:`stop` is called.

        Raises:
            DeadlockError: Nothing is ready and no timer is set; the message says who waits for what.
            StallError: More than ``stall_after`` callbacks ran without the clock moving.
        """
        before = current.loop
        current.loop = self
        self._once = False
        try:
            super().run_forever()
        finally:
            self._once = True
            self._wake_ns = None
            current.loop = before

    def _run_once(self) -> None:
        """Run callbacks and timers until the loop is stopped: the whole engine, in one place for speed.

        Called by itself, and not by :meth:`run_forever`, it runs what is ready, or else one timer.
        """
        ready, heap, once = self._ready, self._scheduled, self._once
        calls, limit = 0, self.stall_after
        if not ready and (self._stopping or (once and not heap)):
            return
        while True:
            if ready:
                calls += len(ready)
                for _ in range(len(ready)):
                    handle = ready.popleft()
                    if not handle._cancelled:
                        if self._watch is None:
                            handle._run()
                        else:
                            self._watch.run(handle)
                del handle  # a task that is done must not live on in here
                entry = task = call = None
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
                    if call.time_floor > self._time_floor:
                        self._time_floor = call.time_floor
                if when_ns > self.now_ns:
                    self.now_ns = when_ns
                    calls = 0
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
            if self._stopping or once:
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


_EAGER = "tasks cannot start eagerly in virtual time: a task's first step waits for its turn, so that order is one rule"
