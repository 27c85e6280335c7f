"""An iteration operator by operator, for workers with breakpoints at operators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from simloop.clock import now_ns, sleep_until_ns
from simloop.errors import InputError
from simloop.hardware import Timeline, TimingModel
from simloop.model import Model
from simloop.serving.batch import Batch
from simloop.serving.hooks import Hooks, Listener, OperatorMoment
from simloop.serving.patterns import find_operators

if TYPE_CHECKING:
    from simloop.serving.worker import Worker

__all__ = ["Walk", "hook_operators"]


@attrs.frozen
class _Stop:
    """A place where hooks are called.

    Attributes:
        over: How many calls of operators are over there.
        turn: What comes first at one instant: ends before beginnings, inner before outer ends, outer before inner
            beginnings.
        name: ``before`` or ``after``.
        path: The operator's.
        layer: The decoder block.
        listeners: The hooks.
    """

    over: int
    turn: int
    name: str
    path: str
    layer: int | None
    listeners: list[Listener]


class Walk:
    """Takes iterations from operator to operator, as far as somebody wants to know of them.

    Workers that share a timing model share it. Without hooks there is none, and an iteration is one sleep.

    Args:
        timing: What prices the iterations.
        hooks: Who is told.

    Raises:
        InputError: The timing model does not know its operators.
    """

    def __init__(self, timing: TimingModel, hooks: Hooks) -> None:
        self._timeline = Timeline(timing)
        self._hooks = hooks
        self._stops: tuple[_Stop, ...] = ()
        self._overs: tuple[int, ...] = ()

    def add(self, name: str, pattern: str, listener: Listener, model: Model) -> None:
        """Call a hook ``before`` or ``after`` the operators that a pattern fits.

        Raises:
            InputError: It fits none.
        """
        stops = {(stop.name, stop.path): stop for stop in self._stops}
        for place in find_operators(pattern, self._timeline.calls, model):
            stop = stops.get((name, place.path))
            if stop is None:
                whole = place.last - place.first > 1 or place.path == f"layers.{place.layer}"
                over, turn = (place.last, 0 + whole) if name == "after" else (place.first, 3 - whole)
                stop = stops[name, place.path] = _Stop(over, turn, name, place.path, place.layer, [])
            stop.listeners.append(listener)
        self._stops = tuple(sorted(stops.values(), key=lambda stop: (stop.over, stop.turn)))
        self._overs = tuple(stop.over for stop in self._stops)

    async def run(self, batches: Sequence[Batch], slowest: Batch, duration_ns: int) -> None:
        """Let an iteration pass; a hook that waits makes it so much longer.

        Args:
            batches: The work of all ranks that iterate together, of each worker one.
            slowest: The one that sets the times.
            duration_ns: What the iteration takes without hooks that wait.

        Raises:
            PolicyError: A hook raised.
        """
        start_ns, hooks = now_ns(), self._hooks
        marks = self._timeline.marks_ns(slowest, duration_ns, self._overs)
        for stop, mark_ns in zip(self._stops, marks, strict=True):
            if start_ns + mark_ns > now_ns():
                await sleep_until_ns(start_ns + mark_ns)
            stopped_ns = now_ns()
            for batch in batches:
                moment = OperatorMoment(stop.name, stop.path, stop.layer, batch.worker, batch, hooks.cluster, now_ns())
                await hooks.tell(stop.listeners, moment)
            start_ns += now_ns() - stopped_ns
        if start_ns + duration_ns > now_ns():
            await sleep_until_ns(start_ns + duration_ns)


def hook_operators(
    walks: dict[int, Walk], workers: Iterable[Worker], hooks: Hooks, when: str, pattern: str, listener: Listener
) -> None:
    """Have a walk for each timing model that has such operators, and give it to its workers.

    Args:
        walks: The walks that there are, by the identity of their timing models.
        workers: All workers; the listener says which of them it is for.
        hooks: Who is told.
        when: ``before`` or ``after``.
        pattern: Which operators.
        listener: The hook.

    Raises:
        InputError: None has, or a timing model does not know its operators.
    """
    refused: dict[int, InputError] = {}
    fitting: dict[int, Walk] = {}
    for worker in filter(listener.wants, workers):
        key = id(worker.timing)
        if key not in fitting and key not in refused:
            try:
                walk = walks.get(key) or Walk(worker.timing, hooks)
                walk.add(when, pattern, listener, worker.model)
                walks[key] = fitting[key] = walk
            except InputError as error:
                refused[key] = error
        worker.walk = fitting.get(key, worker.walk)
    if not fitting:
        raise next(iter(refused.values()))
