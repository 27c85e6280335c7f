"""Breakpoints: async functions that are called at moments of a request's life, and at operators of the model."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import attrs

from simloop.clock import now_ns
from simloop.errors import InputError, PolicyError, did_you_mean
from simloop.serving.policy import where_raised
from simloop.serving.request import Request

if TYPE_CHECKING:
    from simloop.serving.batch import Batch
    from simloop.serving.cluster import Cluster
    from simloop.serving.worker import Worker

__all__ = ["MOMENTS", "Hook", "Hooks", "Listener", "Moment", "MomentName", "OperatorHook", "OperatorMoment"]

MomentName: TypeAlias = Literal[
    "arrival",
    "routed",
    "rejected",
    "admitted",
    "first_token",
    "token",
    "preempted",
    "paused",
    "resumed",
    "handed_back",
    "kv_sent",
    "kv_received",
    "finished",
    "failed",
]

MOMENTS: tuple[str, ...] = get_args(MomentName)


@attrs.frozen
class Moment:
    """Something that has just happened to a request.

    Attributes:
        name: One of :data:`MOMENTS`.
        request: Whom it happened to.
        worker: The worker that it happened on, or that the request goes to; None before there is one.
        cluster: The cluster.
        time_ns: When, in nanoseconds of virtual time.
    """

    name: str
    request: Request
    worker: Worker | None
    cluster: Cluster
    time_ns: int

    def __str__(self) -> str:
        return f"at {self.name!r} of request {self.request.id}"


@attrs.frozen
class OperatorMoment:
    """An operator that is about to begin, or has just ended.

    Attributes:
        name: ``before`` or ``after``.
        operator: Its path in the model, ``layers.3.o_proj``; ``layers.3`` is the whole decoder block.
        layer: The decoder block that it is in, from 0; None before the first and after the last.
        worker: Who computes.
        batch: The iteration's work.
        cluster: The cluster.
        time_ns: When, in nanoseconds of virtual time.
    """

    name: str
    operator: str
    layer: int | None
    worker: Worker
    batch: Batch
    cluster: Cluster
    time_ns: int

    def __str__(self) -> str:
        return f"{self.name} {self.operator} on {self.worker.name}"


Hook: TypeAlias = Callable[[Moment], Awaitable[None]]
OperatorHook: TypeAlias = Callable[[OperatorMoment], Awaitable[None]]


@attrs.frozen(eq=False)
class Listener:
    """A hook as it was registered.

    Attributes:
        call: The async function.
        name: What messages call it.
        background: Whether what it was called from goes on meanwhile.
        group: Call it only for workers of this group.
    """

    call: Callable[[Any], Awaitable[None]]
    name: str
    background: bool = False
    group: str | None = None

    @classmethod
    def of(
        cls, call: Callable[[Any], Awaitable[None]], background: bool, group: str | None, name: str | None
    ) -> Listener:
        """Register a hook.

        Raises:
            InputError: It is not async.
        """
        function = call.func if isinstance(call, functools.partial) else call
        method = function if inspect.isfunction(function) else type(function).__call__
        if not inspect.iscoroutinefunction(function) and not inspect.iscoroutinefunction(method):
            raise InputError(f"hook {_name_of(function)!r} is not async: write 'async def'")
        return cls(call, name or _name_of(function), background, group)

    def wants(self, worker: Worker | None) -> bool:
        """Return whether it is to be called for what happens on a worker."""
        return self.group is None or (worker is not None and worker.group == self.group)


@attrs.frozen(eq=False)
class _Call:
    """A hook that has been called and has not returned."""

    listener: Listener
    moment: Moment | OperatorMoment
    since_ns: int

    def __str__(self) -> str:
        return f"hook {self.listener.name} {self.moment}"


@attrs.define
class Hooks:
    """The breakpoints of a cluster, called in the order in which they were added.

    What a hook was called from waits until it returns, unless it is a background one.

    Attributes:
        by_moment: The hooks of each moment.
        pending: Moments and background hooks that are not over.
        on_told: Called when there are none left.
        cluster: Whose they are.
        tasks: The background hooks that run.
    """

    by_moment: dict[str, list[Listener]] = attrs.Factory(lambda: {name: [] for name in MOMENTS})
    pending: int = 0
    on_told: Callable[[], None] | None = None
    cluster: Cluster = attrs.field(init=False, repr=False)
    tasks: dict[asyncio.Task[None], None] = attrs.Factory(dict)
    _group: asyncio.TaskGroup | None = None
    _calls: dict[_Call, None] = attrs.Factory(dict)

    def add(self, moment: str, listener: Listener) -> None:
        """Call ``listener`` at every ``moment``.

        Raises:
            InputError: There is no such moment, or none on a worker of some group.
        """
        if moment == "arrival" and listener.group is not None:
            raise InputError("'arrival' is before there is a worker: it goes without a group")
        if moment not in self.by_moment:
            raise InputError(
                f"no moment is called {moment!r}{did_you_mean(moment, MOMENTS)} (there are: {', '.join(MOMENTS)})"
            )
        self.by_moment[moment].append(listener)

    def run_in(self, group: asyncio.TaskGroup) -> None:
        """Say where background hooks run."""
        self._group = group

    async def fire(self, moment: Moment) -> None:
        """Call the hooks of a moment that counts as pending, one after the other.

        Raises:
            PolicyError: One of them raised; it names the hook, the request and the time.
        """
        try:
            await self.tell(self.by_moment[moment.name], moment)
        finally:
            self._over()

    async def tell(self, listeners: Sequence[Listener], moment: Moment | OperatorMoment) -> None:
        """Call some hooks, one after the other.

        Raises:
            PolicyError: One of them raised; it names the hook, the request or the operator, and the time.
        """
        for listener in listeners:
            if not listener.wants(moment.worker):
                continue
            if not listener.background:
                await self._call(listener, moment)
            elif self._group is not None:
                self.pending += 1
                task = self._group.create_task(self._call(listener, moment), name=f"hook {listener.name} {moment}")
                self.tasks[task] = None
                task.add_done_callback(self._ended)

    async def _call(self, listener: Listener, moment: Moment | OperatorMoment) -> None:
        call = _Call(listener, moment, now_ns())
        self._calls[call] = None
        try:
            await listener.call(moment)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise _raised(call, error) from error
        except Exception as error:
            raise _raised(call, error) from error
        finally:
            del self._calls[call]

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self.tasks[task]
        self._over()

    def _over(self) -> None:
        self.pending -= 1
        if not self.pending and self.on_told is not None:
            self.on_told()

    def describe(self) -> list[str]:
        """Return a line for each hook that was called and has not returned, for reports."""
        return [f"{call} has not returned since t = {call.since_ns / 1e9:.9f} s" for call in self._calls]


def _name_of(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _raised(call: _Call, error: BaseException) -> PolicyError:
    return PolicyError(
        f"{call} raised {type(error).__name__}: {error}{where_raised(error)} (t = {now_ns() / 1e9:.9f} s)"
    )
