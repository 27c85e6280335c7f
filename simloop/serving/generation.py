"""The client's side of one request: await it, or read its tokens as they come."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from simloop.clock import Event
from simloop.errors import RejectedError
from simloop.serving.request import Phase, Request, Status

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from simloop.serving.cluster import Cluster

__all__ = ["Generation", "Token"]


@attrs.frozen
class Token:
    """One output token.

    Attributes:
        index: Its place in the output, from 0.
        time_ns: When it was there, in nanoseconds of virtual time.
    """

    index: int
    time_ns: int


@attrs.define(eq=False)
class Generation:
    """A request that somebody waits for.

    ``await generation`` returns the finished :class:`Request`; ``async for token in generation`` gives each
    :class:`Token` at its time. Cancelling either aborts the request, as a client that hangs up does.

    Attributes:
        cluster: Where it is served.
        request: The request itself.
    """

    cluster: Cluster
    request: Request = attrs.field(init=False)
    _done: Event = attrs.field(init=False)
    _send: MemoryObjectSendStream[Token] | None = None
    _receive: MemoryObjectReceiveStream[Token] | None = None
    _sent: int = 0

    def attach(self, request: Request) -> None:
        """Listen to a request that has not been routed yet."""
        self.request = request
        self._done = Event(f"request {request.id} to end")
        request.listeners = [self._listen]

    def _listen(self, request: Request, time_ns: int) -> None:
        if self._send is not None and request.generated > self._sent:
            self._sent = request.generated
            self._send.send_nowait(Token(request.generated - 1, time_ns))
        if request.phase is Phase.DONE:
            self._done.set()
            if self._send is not None:
                self._send.close()

    async def _wait(self) -> Request:
        try:
            await self._done.wait()
        except BaseException:
            self.cluster.abort(self.request)
            raise
        return self._outcome()

    def _outcome(self) -> Request:
        if self.request.status != Status.FINISHED:
            raise RejectedError(f"request {self.request.id}: {self.request.reason}")
        return self.request

    def __await__(self) -> Generator[Any, None, Request]:
        return self._wait().__await__()

    async def __aiter__(self) -> AsyncIterator[Token]:
        self._send, self._receive = anyio.create_memory_object_stream[Token](math.inf)
        if self.request.phase is Phase.DONE:
            self._send.close()
        try:
            async with self._receive:
                async for token in self._receive:
                    yield token
        except BaseException:
            self.cluster.abort(self.request)
            raise
        finally:
            if self._send is not None:
                self._send.close()
            self._send = None
        self._outcome()
