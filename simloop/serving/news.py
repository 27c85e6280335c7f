"""What has happened on a worker and has not been told yet: to hooks, and to clients that read tokens."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from simloop.clock import now_ns
from simloop.serving.cohort import Cohort
from simloop.serving.hooks import Hooks, Moment
from simloop.serving.request import Phase, Request

__all__ = ["News"]


@attrs.define(eq=False)
class News:
    """The moments of a worker's requests, collected while an iteration is booked, told after it.

    Attributes:
        hooks: Who wants to know.
        moments: What has not been told.
        listened: Decoding requests whose tokens somebody reads.
    """

    hooks: Hooks
    moments: list[Moment] = attrs.Factory(list)
    listened: dict[Request, None] = attrs.Factory(dict)

    def add(self, moment: str, request: Request, time_ns: int | None = None) -> None:
        """Note a moment, if a hook wants to know of it."""
        if self.hooks.by_moment[moment]:
            self._note(moment, request, now_ns() if time_ns is None else time_ns)

    def add_turn(self, moment: str, undoes: str, request: Request) -> None:
        """Note that a request was paused or resumed; both within one scheduling decision never happened."""
        if not (self.hooks.by_moment[moment] or self.hooks.by_moment[undoes]):
            return
        for index, told in enumerate(self.moments):
            if told.request is request and told.name == undoes:
                del self.moments[index]
                self.hooks.pending -= 1
                return
        self._note(moment, request, now_ns())

    def _note(self, moment: str, request: Request, time_ns: int) -> None:
        self.moments.append(Moment(moment, request, request.worker, self.hooks.cluster, time_ns))
        self.hooks.pending += 1

    def add_token(self, request: Request, end_ns: int) -> None:
        """Note one request's token."""
        self.add("token", request, end_ns)
        for listener in request.listeners or ():
            listener(request, end_ns)

    def add_tokens(self, running: Iterable[Request], cohort: Cohort, end_ns: int) -> None:
        """Note a token for everybody in a cohort; walks them only where a hook wants every token."""
        if self.hooks.by_moment["token"]:
            for request in running:
                # Who has just got the last token is in no cohort any more.
                if request.phase is Phase.DECODING and request._cohort in (cohort, None):
                    self.add("token", request, end_ns)
        for request in self.listened:
            for listener in request.listeners or ():
                listener(request, end_ns)

    async def tell(self) -> None:
        """Call the hooks of what has happened, in order."""
        moments, self.moments = self.moments, []
        for moment in moments:
            await self.hooks.fire(moment)
