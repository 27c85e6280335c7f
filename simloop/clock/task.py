"""The loop's own Task: it sleeps in the timer heap without a Future, and hashes by a serial number."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from simloop.clock.handles import Handle

if TYPE_CHECKING:
    from simloop.clock.loop import VirtualLoop

__all__ = ["STEP", "Parked", "Task", "TimerEntry"]

TimerEntry = tuple[int, int, Any, Any, Any]
"""One entry of the timer heap: the time in ns and a serial number, by which the heap is ordered; then a parked
:class:`Task`, its next step and the context to run that in, or None, a :class:`~simloop.clock.handles.Timer`, None."""


class Parked:
    """What ``task._fut_waiter`` shows for a parked task: something that is not done.

    anyio asks whether a task waits for something (``wait_all_tasks_blocked``, cancel scopes), and asyncio prints it.
    """

    __slots__ = ("when_ns",)

    def __init__(self, when_ns: int) -> None:
        self.when_ns = when_ns

    def done(self) -> bool:
        """Return False: the task sleeps."""
        return False

    def cancelled(self) -> bool:
        """Return False: a cancelled task is not parked any more."""
        return False

    def __repr__(self) -> str:
        return f"<sleep until {self.when_ns / 1e9} s>"


class Task(asyncio.Task[Any]):
    """An :class:`asyncio.Task` that the virtual loop can park.

    A task that awaits :func:`simloop.sleep` waits for no Future: its next step lies in the timer heap. The task
    holds on to that entry, and an entry counts only as long as its task holds it.

    Args:
        coro: The coroutine to run.
        loop: The virtual loop that runs it.
        name: Its name; the default counts per loop, so that two runs give the same names.
        options: What :class:`asyncio.Task` takes besides.
    """

    __slots__ = ("_entry", "_serial")

    _cancel_message: Any
    _must_cancel: bool
    _source_traceback: list[Any] | None

    def __init__(
        self, coro: Coroutine[Any, Any, Any], *, loop: VirtualLoop, name: str | None = None, **options: Any
    ) -> None:
        # Before the rest, because the C initialiser hashes the task and schedules its first step.
        # _entry: the heap entry while parked, None when it may be parked, () while it is being made, and a bool when
        # a cancellation may be on its way (the step that brings it must not be parked): True if it found it parked.
        self._serial = serial = loop.next_task_serial()
        self._entry: Any = ()
        super().__init__(coro, loop=loop, name=f"Task-{serial}" if name is None else name, **options)
        self._entry = None

    def __hash__(self) -> int:
        # asyncio and anyio keep tasks in sets and cancel them in the order of those: it must not follow addresses.
        return self._serial

    @property
    def _fut_waiter(self) -> Any:
        entry = self._entry
        if entry.__class__ is tuple and entry:
            return Parked(entry[0])
        return super()._fut_waiter  # type: ignore[misc]

    def cancel(self, msg: Any | None = None) -> bool:
        """Ask the task to cancel itself; one that is parked runs its step at this instant.

        Args:
            msg: Passed to the ``CancelledError``.

        Returns:
            Whether the task was still running.
        """
        if self.done():
            return False
        entry = self._entry
        if entry.__class__ is tuple and entry:
            self._entry = True  # no call since it was read: a signal handler that cancels, too, finds it done
            self._unpark(entry)
        elif entry is True and self._must_cancel:
            msg = self._cancel_message  # of two cancellations in one instant the first counts, as with a Future
        else:
            self._entry = False
        return super().cancel(msg)

    def _unpark(self, entry: TimerEntry) -> None:
        loop: VirtualLoop = self.get_loop()  # type: ignore[assignment]
        _, _, _, step, context = entry
        loop._ready.append(Handle(step, (), loop, context))
        loop.count_dead_timer()


class _StepProbe:
    """Just enough of a loop to be handed the first step of a task."""

    step: object = None

    def get_debug(self) -> bool:
        return False

    def call_soon(self, callback: object, **_: object) -> None:
        self.step = callback


def _find_step_type() -> type:
    """Return the type of a task's step, which C keeps to itself: only a task makes one, and only for itself."""

    async def nothing() -> None:
        pass

    probe, coro = _StepProbe(), nothing()
    task = asyncio.Task(coro, loop=probe)  # type: ignore[arg-type]
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coro.close()
    return type(probe.step)


STEP: type = _find_step_type()
