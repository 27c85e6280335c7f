"""What Ctrl-C and SIGTERM do to a run: the first asks it to stop, the second insists."""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from simloop.metrics import Result

__all__ = ["Interrupted", "Stop"]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM ended a simulation, and the program around it unless it catches this.

    Args:
        result: What happened until then; partial, unless the signal came just after the end.
    """

    def __init__(self, result: Result) -> None:
        super().__init__(result.reason or "interrupted after the run")
        self.result = result


class Stop:
    """Takes SIGINT and SIGTERM while its block runs; in threads that get no signals it does nothing.

    Attributes:
        signal: The last signal that came, if any.
        gently: What the first signal does. While it is None, the first already raises KeyboardInterrupt, as every
            later one does.
        thread: The thread that a KeyboardInterrupt is for, where it is not the main one.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.gently: Callable[[], object] | None = None
        self.thread: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._take) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        del frame
        first = self.signal is None
        self.signal = signal.Signals(number)
        if first and self.gently is not None:
            self.gently()
        elif self.thread is not None:
            ident, error = ctypes.c_ulong(self.thread), ctypes.py_object(KeyboardInterrupt)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error)
        else:
            raise KeyboardInterrupt
