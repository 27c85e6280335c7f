"""An event with a name."""

from __future__ import annotations

import asyncio

__all__ = ["Event"]


class Event:
    """Like :class:`asyncio.Event`: many wait, one call wakes them in the order in which they came.

    Args:
        name: What a deadlock report calls it.
    """

    __slots__ = ("_is_set", "_waiters", "name")

    def __init__(self, name: str = "event") -> None:
        self.name = name
        self._is_set = False
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"Event {self.name!r}"

    def is_set(self) -> bool:
        """Return whether the event is set."""
        return self._is_set

    def set(self) -> None:
        """Set the event and wake everybody who waits."""
        self._is_set = True
        if self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def clear(self) -> None:
        """Clear the event: whoever waits from now on waits for the next :meth:`set`."""
        self._is_set = False

    async def wait(self) -> None:
        """Wait until the event is set; return at once, without giving way, when it is."""
        if self._is_set:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise
