"""Breakpoints at the moments of a request's life."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable

import attrs

from simloop.errors import InputError, PolicyError, did_you_mean
from simloop.serving.policy import where_raised
from simloop.serving.request import Request

__all__ = ["MOMENTS", "Hook", "Hooks", "Moment"]

MOMENTS = (
    *("arrival", "routed", "rejected", "admitted", "first_token", "token", "preempted"),
    *("handed_back", "kv_sent", "kv_received", "finished", "failed"),
)


@attrs.frozen
class Moment:
    """Something that has just happened to a request.

    Attributes:
        name: One of :data:`MOMENTS`.
        request: Whom it happened to.
        time_ns: When, in nanoseconds of virtual time.
    """

    name: str
    request: Request
    time_ns: int


Hook = Callable[[Moment], Awaitable[None]]


@attrs.define
class Hooks:
    """The breakpoints of a cluster: async functions, called in the order in which they were added.

    A hook may await: the worker (or the arrival) it was called from goes on when it returns.

    Attributes:
        by_moment: The hooks of each moment.
        pending: Moments whose hooks have not all returned.
        on_told: Called when there are none left.
    """

    by_moment: dict[str, list[Hook]] = attrs.Factory(lambda: {name: [] for name in MOMENTS})
    pending: int = 0
    on_told: Callable[[], None] | None = None

    def add(self, moment: str, hook: Hook) -> None:
        """Call ``hook`` at every ``moment``.

        Raises:
            InputError: There is no such moment, or the hook is not async.
        """
        call = hook if inspect.isfunction(hook) or isinstance(hook, functools.partial) else type(hook).__call__
        if not inspect.iscoroutinefunction(hook) and not inspect.iscoroutinefunction(call):
            raise InputError(f"hook {getattr(hook, '__qualname__', hook)!r} is not async: write 'async def'")
        if moment not in self.by_moment:
            raise InputError(
                f"no moment is called {moment!r}{did_you_mean(moment, MOMENTS)} (there are: {', '.join(MOMENTS)})"
            )
        self.by_moment[moment].append(hook)

    async def fire(self, moment: Moment) -> None:
        """Call the hooks of a moment that counts as pending, one after the other.

        Raises:
            PolicyError: One of them raised; it names the hook, the request and the time.
        """
        for hook in self.by_moment[moment.name]:
            try:
                await hook(moment)
            except Exception as error:
                name = getattr(hook, "__qualname__", repr(hook))
                raise PolicyError(
                    f"hook {name} at {moment.name!r} raised {type(error).__name__}: {error}{where_raised(error)} "
                    f"(t = {moment.time_ns / 1e9:.9f} s, request {moment.request.id})"
                ) from error
        self.pending -= 1
        if not self.pending and self.on_told is not None:
            self.on_told()
