"""The client's side of one request: await it, or read its tokens as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from typing import TYPE_CHECKING, Any

import attrs

from simloop.clock import Event
from simloop.errors import RejectedError
from simloop.serving.request import Phase, Request, Status

if TYPE_CHECKING:
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
    :class:`Token` at its time, or at once where it was there before. Cancelling either aborts the request, as a client
    that hangs up does.

    Attributes:
        cluster: Where it is served.
        request: The request itself.
    """

    cluster: Cluster
    request: Request
    _tokens: list[Token] = attrs.Factory(list)
    _news: Event = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._news = Event(f"a token of request {self.request.id}")
        self.request.listeners = [self._listen]

    def _listen(self, request: Request, time_ns: int) -> None:
        if request.generated > len(self._tokens):
            self._tokens.append(Token(request.generated - 1, time_ns))
        self._news.set()
        self._news.clear()

    async def _wait(self) -> Request:
        try:
            while self.request.phase is not Phase.DONE:
                await self._news.wait()
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
        seen = 0
        try:
            while seen < len(self._tokens) or self.request.phase is not Phase.DONE:
                if seen == len(self._tokens):
                    await self._news.wait()
                else:
                    seen += 1
                    yield self._tokens[seen - 1]
        except BaseException:
            self.cluster.abort(self.request)
            raise
        self._outcome()
