"""Sending something in parts while it is still being made."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from simloop.clock import Event, now_ns
from simloop.errors import InputError
from simloop.network.channel import ClosedError
from simloop.network.flow import Path
from simloop.network.link import Link

__all__ = ["Stream", "split"]


def split(nbytes: int, parts: int) -> list[int]:
    """Return the sizes of ``parts`` parts of ``nbytes``, as equal as whole bytes can be; they add up to ``nbytes``.

    Raises:
        InputError: There is not at least one part.
    """
    if parts < 1:
        raise InputError(f"{nbytes} bytes cannot be split in {parts} parts: 1 or more is expected")
    return [nbytes * (i + 1) // parts - nbytes * i // parts for i in range(parts)]


class Stream:
    """A known number of parts that cross a link one after another, in order, beside what the sender does.

    The sender says when parts exist, and goes on; the receiver waits for the first ``k``. One part is a transfer in one
    piece; a part for each layer, or for each block, lets it begin before everything is computed::

        stream = Stream(link, split(kv_bytes, num_layers))
        for layer in range(num_layers):
            await compute(layer)
            stream.ready()               # this layer may go; does not wait
        await stream.arrived()           # elsewhere: the receiver waits for all, or for the first k

    Parts follow each other without a gap: latency is paid once, not once a part.

    Args:
        over: The link or path that the parts cross.
        parts: Size of each part in bytes.
        name: What a deadlock report calls it.

    Raises:
        InputError: A size is negative.

    Attributes:
        arrival_ns: When each part that has arrived did so, in ns.
    """

    def __init__(self, over: Link | Path, parts: Sequence[int], *, name: str = "stream") -> None:
        if any(nbytes < 0 for nbytes in parts):
            raise InputError(f"a part of {min(parts)} bytes cannot be sent: 0 or more is expected")
        self.over = over
        self.parts = tuple(parts)
        self.name = name
        self.arrival_ns: list[int] = []
        self._num_ready = 0
        self._num_sent = 0
        self._is_closed = False
        self._sender: asyncio.Task[None] | None = None
        self._waiting: list[tuple[int, Event]] = []

    def __repr__(self) -> str:
        return f"Stream {self.name!r}: {len(self.arrival_ns)} of {len(self.parts)} parts arrived"

    def ready(self, count: int = 1) -> None:
        """Let the next ``count`` parts go as soon as those before them have left. Does not wait.

        Raises:
            InputError: There are not so many parts left.
            ClosedError: The stream was cancelled.
        """
        if self._is_closed:
            raise ClosedError(f"{self.name} is cancelled")
        if not 0 <= count <= len(self.parts) - self._num_ready:
            left = len(self.parts) - self._num_ready
            raise InputError(f"{count} parts of {self.name} cannot be made ready: {left} of {len(self.parts)} are left")
        self._num_ready += count
        if count and (self._sender is None or self._sender.done()):
            self._sender = asyncio.get_running_loop().create_task(self._send(), name=self.name)

    def ready_all(self) -> None:
        """Let all parts that are left go."""
        self.ready(len(self.parts) - self._num_ready)

    async def arrived(self, count: int | None = None) -> None:
        """Wait until the first ``count`` parts have arrived; all, when it is not given.

        Raises:
            InputError: There are fewer parts.
            ClosedError: The stream was cancelled before.
        """
        wanted = len(self.parts) if count is None else count
        if wanted > len(self.parts):
            raise InputError(f"{wanted} parts of {self.name} will never arrive: it has {len(self.parts)}")
        if len(self.arrival_ns) >= wanted:
            return
        waiter = (wanted, Event(self.name))
        self._waiting.append(waiter)
        try:
            if not self._is_closed:
                await waiter[1].wait()
        finally:
            self._waiting.remove(waiter)
        here = len(self.arrival_ns)
        if here < wanted:
            raise ClosedError(f"{self.name} was cancelled when {here} of {len(self.parts)} parts were there")

    def cancel(self) -> None:
        """Send no more: the part under way gives its share of the bandwidth back, and those who wait are told."""
        self._is_closed = True
        if self._sender is not None:
            self._sender.cancel()
        for _, arrival in self._waiting:
            arrival.set()

    async def _send(self) -> None:
        """Send what is ready, one part after another."""
        loop = asyncio.get_running_loop()
        while self._num_sent < self._num_ready:
            await self.over.transmit(self.parts[self._num_sent])
            self._num_sent += 1
            if self.over.latency_ns:
                loop.call_later(self.over.latency_ns / 1e9, self._arrive)
            else:
                self._arrive()

    def _arrive(self) -> None:
        if self._is_closed:
            return
        self.arrival_ns.append(now_ns())
        for wanted, arrival in self._waiting:
            if len(self.arrival_ns) >= wanted:
                arrival.set()
