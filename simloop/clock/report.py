"""Who waits for what, in words: the messages of DeadlockError and StallError."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib.util
import linecache
import re
import threading
from asyncio import events
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simloop.clock.loop import VirtualLoop

__all__ = ["describe_callback", "describe_deadlock", "describe_stall"]

_MOST_TASKS = 50
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def describe_deadlock(loop: VirtualLoop) -> str:
    """Return what a run is told when nothing is ready and no timer is set.

    One line for each pending task: its name, the innermost await that is the user's, the innermost of all, and what
    it waits for; then the notes, and the threads that may be what somebody waits for.
    """
    tasks = _pending_tasks(loop)
    head = f"nothing is ready and no timer is set at {loop.now_ns / 1e9} s of virtual time"
    who = f"; {len(tasks)} task{'s wait' if len(tasks) != 1 else ' waits'} for ever:" if tasks else "; no task is left"
    return "\n".join([head + who, *_task_lines(tasks), *_notes(loop), *_thread_lines(loop)])


def describe_stall(loop: VirtualLoop, calls: int, trail: Iterable[str]) -> str:
    """Return what a run is told when ``calls`` callbacks ran and the clock did not move."""
    head = (
        f"{calls:,} callbacks ran at {loop.now_ns / 1e9} s of virtual time and the clock does not move "
        "(loop.stall_after is the limit); the last ones:"
    )
    tasks = _pending_tasks(loop)
    return "\n".join([head, *(f"  {name}" for name in trail), "pending tasks:", *_task_lines(tasks), *_notes(loop)])


def describe_callback(handle: events.Handle) -> str:
    """Return a name for a callback that is the same on every run: no addresses."""
    callback: Any = handle._callback  # type: ignore[attr-defined]
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return _describe_task(owner)
    function = getattr(callback, "func", callback)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    code = getattr(function, "__code__", None)
    place = f" at {_place(code.co_filename, code.co_firstlineno)}" if code else ""
    return f"{getattr(function, '__module__', None) or 'builtins'}.{name}(){place}"


def _pending_tasks(loop: VirtualLoop) -> list[asyncio.Task[Any]]:
    """Return the tasks that are not done in the order in which they were made; a foreign class comes last."""
    return sorted(asyncio.all_tasks(loop), key=lambda task: (getattr(task, "_serial", 1 << 62), task.get_name()))


def _task_lines(tasks: list[asyncio.Task[Any]]) -> Iterator[str]:
    for task in tasks[:_MOST_TASKS]:
        yield f"  {_describe_task(task)}"
    if len(tasks) > _MOST_TASKS:
        yield f"  and {len(tasks) - _MOST_TASKS} more"


def _describe_task(task: asyncio.Task[Any]) -> str:
    frames = list(_await_frames(task.get_coro()))
    parts = [f"task {task.get_name()!r}"]
    own = _last_own_frame(frames)
    if own >= 0:
        frame = frames[own]
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        parts.append(f" at {_frame_place(frame)}" + (f": {line}" if line else ""))
    if frames and own != len(frames) - 1:
        parts.append(f"{',' if own >= 0 else ''} in {_frame_place(frames[-1])}")
    awaited = _awaited(task, frames[own + 1 :])
    return "".join(parts) + (f", waits for {awaited}" if awaited else "")


def _await_frames(coro: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, outermost first, along ``cr_await``."""
    while coro is not None:
        for frame, awaited in (("cr_frame", "cr_await"), ("gi_frame", "gi_yieldfrom"), ("ag_frame", "ag_await")):
            if hasattr(coro, awaited):
                if getattr(coro, frame) is not None:
                    yield getattr(coro, frame)
                coro = getattr(coro, awaited)
                break
        else:
            return


@functools.cache
def _libraries() -> tuple[str, ...]:
    """Return the folders whose frames are not the user's: asyncio, anyio, and the clock itself."""
    spec = importlib.util.find_spec("anyio")  # found, not imported: reports are rare and the import is slow
    files = (asyncio.__file__, __file__, spec.origin if spec is not None else None)
    return tuple(str(Path(file).parent) for file in files if file is not None)


def _last_own_frame(frames: list[FrameType]) -> int:
    """Return the index of the innermost frame outside asyncio, anyio and the clock, or -1."""
    own = (i for i, frame in enumerate(frames) if not frame.f_code.co_filename.startswith(_libraries()))
    return max(own, default=-1)


def _awaited(task: asyncio.Task[Any], inner: list[FrameType]) -> str:
    """Name the thing whose method the task is in, or the task that it awaits."""
    waiter = getattr(task, "_fut_waiter", None)
    if isinstance(waiter, asyncio.Task):
        return f"task {waiter.get_name()!r}"
    for frame in inner:
        owner = frame.f_locals.get("self")
        if owner is not None:
            return _short_repr(owner)
    return _short_repr(waiter) if waiter is not None and not isinstance(waiter, asyncio.Future) else ""


def _short_repr(thing: object) -> str:
    try:
        text = _ADDRESS.sub("", repr(thing))
    except Exception:  # a report must not fail because a repr does
        text = f"<{type(thing).__qualname__}>"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _frame_place(frame: FrameType) -> str:
    return f"{_place(frame.f_code.co_filename, frame.f_lineno)} in {frame.f_code.co_qualname}"


def _place(file: str, line: int) -> str:
    """Return ``file:line``, from the working folder or, in a library, from the folder that holds its package."""
    path = Path(file)
    for library in _libraries():
        if file.startswith(library):
            return f"{path.relative_to(Path(library).parent)}:{line}"
    with contextlib.suppress(ValueError, OSError):
        return f"{path.relative_to(Path.cwd())}:{line}"
    return f"{path}:{line}"


def _notes(loop: VirtualLoop) -> Iterator[str]:
    for note in loop.notes:
        try:
            yield note()
        except Exception as error:  # as above
            yield f"(a note failed: {error!r})"


def _thread_lines(loop: VirtualLoop) -> Iterator[str]:
    started = [thread.name for thread in threading.enumerate() if thread not in loop.threads_before]
    names = sorted(set(started) | set(loop.threads_refused))
    if names:
        yield (
            f"threads were started meanwhile ({', '.join(names)}): virtual time does not wait for threads; "
            "asyncio.to_thread and loop.run_in_executor run inline and are fine, anyio.to_thread is not supported"
        )
