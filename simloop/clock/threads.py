"""Threads: virtual time does not wait for them, so foreign ones are refused and executors run inline."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from asyncio import events, format_helpers
from collections.abc import Callable
from typing import Any

from simloop.clock.base import LoopBase, current
from simloop.clock.handles import Handle
from simloop.errors import UnsupportedError

__all__ = ["InlineThreads"]


class InlineThreads(LoopBase):
    """The part of the loop that other loops use threads for.

    Attributes:
        threads_before: The threads that were there before the loop.
        threads_refused: The names of the threads that called :meth:`call_soon_threadsafe`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.threads_before = frozenset(threading.enumerate())
        self.threads_refused: list[str] = []
        self._inline_calls = 0

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle:
        """Schedule a callback from a signal handler, or from this thread.

        Raises:
            UnsupportedError: Another thread called; virtual time cannot say when that would be.
        """
        self._check_closed()
        self._check_caller(callback)
        handle = Handle(callback, args, self, context)
        if self._debug:
            self._check_callback(callback, "call_soon_threadsafe")
            handle._source_traceback = format_helpers.extract_stack(sys._getframe(1))
        self._ready.append(handle)
        return handle

    def _check_caller(self, callback: Callable[..., object]) -> None:
        if self._thread_id is not None and threading.get_ident() != self._thread_id:
            name = threading.current_thread().name
            self.threads_refused.append(name)
            raise UnsupportedError(
                f"call_soon_threadsafe was called by thread {name!r}: virtual time does not wait for threads "
                "(asyncio.to_thread and loop.run_in_executor run inline and are fine)"
            )
        if self._inline_calls and getattr(callback, "__module__", None) == asyncio.run_coroutine_threadsafe.__module__:
            raise UnsupportedError(
                "run_coroutine_threadsafe was called by code that runs inline (to_thread, run_in_executor): "
                "it would wait for a loop that waits for it"
            )

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run ``func`` at once, in this thread and at this instant, and return a future that is done.

        Virtual time measures no work that Python does, so what would run in a pool takes no time. As in a thread,
        no event loop is running as far as ``func`` can tell.
        """
        self._check_closed()
        if self._debug:
            self._check_callback(func, "run_in_executor")
        if executor is None:
            self._check_default_executor()
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

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Refuse :meth:`run_in_executor` without an executor from now on; there are no threads to join."""
        self._executor_shutdown_called = True
