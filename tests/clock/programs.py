"""Random concurrent programs, and a loop so plain that its order needs no proof, to run them on for comparison."""

from __future__ import annotations

import asyncio
import random
from asyncio import base_events, events
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs

Log = list[tuple[int, str, str]]
"""What happened: when in ns, in which task, and what."""

Sleep = Callable[[float], Awaitable[None]]

DELAYS = (0.0, 0.0, 0.5, 1.0, 1.0, 1.5, 2.0, 3.0, 0.1, 1e-9)
"""Few and round, so that many timers fall on one instant."""


@attrs.frozen
class Op:
    """One step of a task; ``body`` belongs to a timeout, ``children`` to a task group."""

    kind: str
    delay: float = 0.0
    queue: int = 0
    body: tuple[Op, ...] = ()
    children: tuple[tuple[Op, ...], ...] = ()


def make_program(rng: random.Random, depth: int = 0) -> tuple[Op, ...]:
    """Return the steps of a random task; the deeper it is nested, the fewer."""
    return tuple(_make_op(rng, depth) for _ in range(rng.randint(1, 5 - depth)))


def _make_op(rng: random.Random, depth: int) -> Op:
    simple = ["sleep", "sleep", "sleep", "asyncio_sleep", "put", "get", "cancel", "resist"]
    kind = rng.choice(simple + ["timeout", "scope", "group", "group"] * (depth < 2))
    op = Op(kind, delay=rng.choice(DELAYS), queue=rng.randrange(2))
    if kind in ("timeout", "scope"):
        # An anyio scope cancels again and again, which asyncio's task groups do not survive: no groups inside.
        return attrs.evolve(op, body=make_program(rng, 2 if kind == "scope" else depth + 1))
    if kind == "group":
        return attrs.evolve(op, children=tuple(make_program(rng, depth + 1) for _ in range(rng.randint(1, 4))))
    return op


class Interpreter:
    """Runs a program on whatever loop is running, and writes down what happens.

    Args:
        sleep: What the op ``sleep`` awaits; the reference loop is given asyncio's.
    """

    def __init__(self, sleep: Sleep) -> None:
        self.log: Log = []
        self._sleep_with = sleep
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._queues = [asyncio.Queue[str](maxsize=1) for _ in range(2)]

    async def run(self, ops: tuple[Op, ...], name: str = "main") -> Log:
        """Run the ops of one task, one after the other, and return the log of all."""
        for number, op in enumerate(ops):
            step = f"{name}.{number}"
            self._note(step, op.kind)
            await getattr(self, f"_{op.kind}")(op, step)
        self._note(name, "done")
        return self.log

    def _note(self, name: str, what: str) -> None:
        self.log.append((round(asyncio.get_running_loop().time() * 1e9), name, what))

    async def _sleep(self, op: Op, name: str) -> None:
        await self._sleep_with(op.delay)

    async def _asyncio_sleep(self, op: Op, name: str) -> None:
        await asyncio.sleep(op.delay)

    async def _resist(self, op: Op, name: str) -> None:
        try:
            await self._sleep_with(op.delay)
        except asyncio.CancelledError as error:
            self._note(name, f"resists {_reason(error)}")
            await self._sleep_with(op.delay)
            raise

    async def _put(self, op: Op, name: str) -> None:
        try:
            await asyncio.wait_for(self._queues[op.queue].put(name), op.delay)
        except TimeoutError:
            self._note(name, "queue is full")

    async def _get(self, op: Op, name: str) -> None:
        try:
            async with asyncio.timeout(op.delay):
                self._note(name, await self._queues[op.queue].get())
        except TimeoutError:
            self._note(name, "queue is empty")

    async def _cancel(self, op: Op, name: str) -> None:
        alive = sorted(self._tasks)
        if alive:
            victim = alive[int(op.delay * 10) % len(alive)]
            self._note(name, f"cancels {victim}: {self._tasks[victim].cancel(name)}")

    async def _timeout(self, op: Op, name: str) -> None:
        try:
            async with asyncio.timeout(op.delay):
                await self.run(op.body, name)
        except TimeoutError:
            self._note(name, "timed out")

    async def _scope(self, op: Op, name: str) -> None:
        with anyio.move_on_after(op.delay) as scope:
            await self.run(op.body, name)
        self._note(name, f"left, cancelled {scope.cancelled_caught}")

    async def _group(self, op: Op, name: str) -> None:
        async with asyncio.TaskGroup() as group:
            for number, child in enumerate(op.children):
                group.create_task(self._child(child, f"{name}/{number}"))
        self._note(name, "group is done")

    async def _child(self, ops: tuple[Op, ...], name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks[name] = task
        try:
            await self.run(ops, name)
        except asyncio.CancelledError as error:
            self._note(name, f"cancelled {_reason(error)}")
            raise
        finally:
            del self._tasks[name]


def _reason(error: asyncio.CancelledError) -> str:
    text = str(error)
    return "scope" if text.startswith("Cancelled via cancel scope") else text  # anyio's message holds an address


class NumberedTask(asyncio.Task[Any]):
    """A task that sets hold in the order of creation: one group cancels its tasks in that order."""

    def __init__(self, number: int, coro: Any, **options: Any) -> None:
        self._number = number
        super().__init__(coro, **options)

    def __hash__(self) -> int:
        return self._number


class ReferenceLoop(base_events.BaseEventLoop):
    """The rules of virtual time, written to be read: slow, with asyncio's own tasks and sleeps, and a plain list."""

    _ready: Any
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self._now_ns = 0
        self._timers: list[tuple[int, int, events.TimerHandle]] = []
        self._reached = 0.0
        self._made = 0
        self._tasks_made = 0

    def time(self) -> float:
        return max(self._now_ns / 1e9, self._reached)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        self._tasks_made += 1
        return NumberedTask(self._tasks_made, coro, loop=self, **options)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> events.TimerHandle:
        timer = events.TimerHandle(when, callback, args, self, context)
        self._made += 1
        self._timers.append((max(round(when * 1e9), self._now_ns), self._made, timer))
        return timer

    def _timer_handle_cancelled(self, handle: object) -> None:
        pass

    def _run_once(self) -> None:
        if self._ready:
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
        elif not self._stopping:
            first = min(timer for timer in self._timers if not timer[2].cancelled())
            self._timers.remove(first)
            self._now_ns = first[0]
            self._reached = max(self._reached, first[2].when())
            first[2]._run()
