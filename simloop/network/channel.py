"""A queue whose items take time to get there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from simloop.clock import Event
from simloop.errors import InputError, SimulationError
from simloop.network.flow import Path
from simloop.network.link import Link

__all__ = ["Channel", "ClosedError"]

T = TypeVar("T")


class ClosedError(SimulationError):
    """The channel or stream was closed, and what somebody waits for will not come any more."""


class _Turn(Event):
    """Somebody's place in a line, and whether what they waited for was handed to them before the event was set."""

    __slots__ = ("granted", "item")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.granted = False
        self.item: Any = None

    def grant(self, item: object = None) -> None:
        self.granted, self.item = True, item
        self.set()


class Channel(Generic[T]):
    """Items go in at one end, cross a link, and come out at the other in the order in which they arrive.

    ``capacity`` is a preload buffer: an item holds one place from the start of its transfer until it is taken, so at
    most ``capacity`` items are under way or waiting for a receiver. 0 is no buffer at all: a transfer begins when a
    receiver asks (TokenSim's default, "sequential"); a large one is the ideal overlap of transfers with what the
    receiver does.

    Args:
        over: The link or path that the bytes cross; None takes no time.
        capacity: Places in the buffer; None is any number.
        name: What a deadlock report calls it.

    Raises:
        InputError: ``capacity`` is negative.

    Example:
        >>> channel: Channel[str] = Channel(Link(50, latency_us=5), capacity=2)
        >>> await channel.put("the KV cache of request 7", nbytes=64 << 20)
    """

    def __init__(self, over: Link | Path | None = None, capacity: int | None = None, *, name: str = "channel") -> None:
        if capacity is not None and capacity < 0:
            raise InputError(f"the capacity {capacity} cannot be used: 0 or more, or None, is expected")
        self.over = over
        self.capacity = capacity
        self.name = name
        self._arrived: deque[T] = deque()
        self._held = 0  # places taken: items under way, and arrived
        self._senders: deque[_Turn] = deque()
        self._receivers: deque[_Turn] = deque()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"Channel {self.name!r}: {len(self._arrived)} arrived, {self._held} held, capacity {self.capacity}"

    def __len__(self) -> int:
        """Return how many items have arrived and were not taken."""
        return len(self._arrived)

    async def put(self, item: T, *, nbytes: int = 0) -> None:
        """Wait for a place, send the item, return when its last byte has left; it arrives a latency later.

        A put that is cancelled gives its place back, and the item does not arrive.

        Args:
            item: Anything.
            nbytes: Its size on the wire.

        Raises:
            ClosedError: The channel is closed.
            InputError: ``nbytes`` is not a number of bytes.
        """
        await self._take_place()
        try:
            if self.over is not None:
                await self.over.transmit(nbytes)
        except BaseException:
            self._give_place_back()
            raise
        latency_ns = self.over.latency_ns if self.over is not None else 0
        if latency_ns:
            asyncio.get_running_loop().call_later(latency_ns / 1e9, self._arrive, item)
        else:
            self._arrive(item)

    async def get(self) -> T:
        """Wait for an item and take it; its place is free from now on.

        Raises:
            ClosedError: The channel is closed, and everything that was put was taken.
        """
        if self._arrived:
            item = self._arrived.popleft()
            self._give_place_back()
            return item
        turn = _Turn(self.name)
        self._receivers.append(turn)
        self._admit_senders()  # without a buffer, a receiver is the place
        self._dismiss_receivers()
        try:
            await turn.wait()
        except BaseException:
            if turn.granted:
                self._held += 1
                self._arrive(turn.item, first=True)
            elif turn in self._receivers:
                self._receivers.remove(turn)
            raise
        if not turn.granted:
            raise ClosedError(f"{self.name} is closed")
        received: T = turn.item
        return received

    def close(self) -> None:
        """Let nothing in any more. What is under way still arrives; then iteration ends and :meth:`get` raises."""
        self._is_closed = True
        while self._senders:
            self._senders.popleft().set()
        self._dismiss_receivers()

    async def __aiter__(self) -> AsyncIterator[T]:
        """Yield the items as they arrive, until the channel is closed and empty."""
        while True:
            try:
                item = await self.get()
            except ClosedError:
                return
            yield item

    async def _take_place(self) -> None:
        """Take a place, in line when others wait for one."""
        if self._is_closed:
            raise ClosedError(f"{self.name} is closed")
        if not self._senders and self._has_place():
            self._held += 1
            return
        turn = _Turn(self.name)
        self._senders.append(turn)
        try:
            await turn.wait()
        except BaseException:
            if turn.granted:
                self._give_place_back()
            elif turn in self._senders:
                self._senders.remove(turn)
            raise
        if not turn.granted:
            raise ClosedError(f"{self.name} is closed")

    def _has_place(self) -> bool:
        return self.capacity is None or self._held < (self.capacity or len(self._receivers))

    def _give_place_back(self) -> None:
        self._held -= 1
        self._admit_senders()
        self._dismiss_receivers()

    def _admit_senders(self) -> None:
        while self._senders and self._has_place():
            self._held += 1
            self._senders.popleft().grant()

    def _arrive(self, item: T, *, first: bool = False) -> None:
        """Hand an item to whoever waited longest, or keep it."""
        if self._receivers:
            self._receivers.popleft().grant(item)
            self._give_place_back()
        elif first:
            self._arrived.appendleft(item)
        else:
            self._arrived.append(item)

    def _dismiss_receivers(self) -> None:
        """Once nothing can come any more, tell those who still wait."""
        if self._is_closed and not self._held:
            while self._receivers:
                self._receivers.popleft().set()
