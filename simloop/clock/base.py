"""CPython's event loop without I/O, and every private name of it that the clock uses, with its type.

Nothing else in the clock may lean on CPython's insides; ``tests/clock/test_private_names.py`` says whether a new
version of Python still has them.
"""

from __future__ import annotations

import threading
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

__all__ = ["LoopBase", "current"]

if TYPE_CHECKING:
    from simloop.clock.loop import VirtualLoop


class LoopBase(base_events.BaseEventLoop):
    """:class:`asyncio.base_events.BaseEventLoop` as the clock sees it."""

    # What is read on every callback lies in slots: an instance dictionary of this size is slower to look into.
    __slots__ = ("_closed", "_debug", "_ready", "_scheduled", "_stopping")

    _ready: deque[events.Handle]
    _scheduled: list[Any]
    _asyncgens: Any
    _clock_resolution: float
    _closed: bool
    _current_handle: events.Handle | None
    _debug: bool
    _executor_shutdown_called: bool
    _stopping: bool
    _task_factory: Callable[..., Any] | None
    _thread_id: int | None

    if TYPE_CHECKING:

        def _check_closed(self) -> None: ...
        def _check_thread(self) -> None: ...
        def _check_callback(self, callback: object, method: str) -> None: ...
        def _check_default_executor(self) -> None: ...


class _Current(threading.local):
    loop: VirtualLoop | None = None


current = _Current()
"""``current.loop`` is the virtual loop that runs in this thread, or None: on Python 3.11 five times faster to ask than
asyncio, which makes a system call each time."""
