"""Running callbacks under observation: in debug mode, near a stall, and while a run is traced."""

from __future__ import annotations

import time
from asyncio import base_events, events
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from simloop.clock.report import describe_callback

if TYPE_CHECKING:
    from simloop.clock.loop import VirtualLoop

__all__ = ["Watch"]


class Watch:
    """Stands between the loop and a callback while somebody wants to know about each.

    Attributes:
        tracer: Called with the virtual time in ns and the name of every callback that runs, or None.
        trail: The last callbacks at ``trail_ns``, when the loop suspects that it stalls.
        trail_ns: The instant of the trail, or -1.
        trail_length: How many callbacks a trail remembers.
    """

    trail_length = 10

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.tracer: Callable[[int, str], None] | None = None
        self.trail: deque[str] = deque(maxlen=self.trail_length)
        self.trail_ns = -1

    def start_trail(self) -> None:
        """Remember the callbacks of this instant from now on."""
        self.trail.clear()
        self.trail_ns = self._loop.now_ns

    def run(self, handle: events.Handle) -> None:
        """Run one callback, and note what is to be noted."""
        loop = self._loop
        if self.tracer is not None:
            self.tracer(loop.now_ns, describe_callback(handle))
        if self.trail_ns == loop.now_ns:
            self.trail.append(describe_callback(handle))
        else:
            self.trail_ns = -1
        if loop._debug:
            self._run_timed(handle)
        else:
            if self.tracer is None and self.trail_ns < 0:
                loop._watch = None
            handle._run()
        del handle  # the frame may outlive the call, in a traceback: it must not hold on to a task that is done

    def _run_timed(self, handle: events.Handle) -> None:
        """Warn when a callback takes long: by the real clock, which is what the user waits for."""
        loop = self._loop
        loop._current_handle = handle
        started = time.perf_counter()
        try:
            handle._run()
        finally:
            loop._current_handle = None
        seconds = time.perf_counter() - started
        if seconds >= loop.slow_callback_duration:
            name = base_events._format_handle(handle)  # type: ignore[attr-defined]
            base_events.logger.warning("Executing %s took %.3f seconds", name, seconds)  # type: ignore[attr-defined]
        del handle  # as above
