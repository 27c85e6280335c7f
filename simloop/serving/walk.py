"""An iteration operator by operator, for workers with breakpoints at operators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import attrs

from simloop.clock import now_ns, sleep_until_ns
from simloop.errors import InputError
from simloop.hardware import OperatorCall, Pipeline, Timeline, TimingModel
from simloop.serving.batch import Batch
from simloop.serving.hooks import Hooks, Listener, OperatorMoment
from simloop.serving.patterns import Place, find_operators

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

    Attributes:
        stops: Where somebody is told, in order of execution.

    Raises:
        InputError: The timing model does not know its operators.
    """

    def __init__(self, timing: TimingModel, hooks: Hooks) -> None:
        self._timeline = Timeline(timing)
        self._hooks = hooks
        self._overs: tuple[int, ...] = ()
        self.stops: tuple[_Stop, ...] = ()

    @property
    def calls(self) -> tuple[OperatorCall, ...]:
        """The calls of operators that are walked, in order."""
        return self._timeline.calls

    def add(self, when: str, places: Iterable[Place], begin: int, listener: Listener) -> None:
        """Call a hook ``before`` or ``after`` operators.

        Args:
            when: ``before`` or ``after``.
            places: Where they are in all stages of the worker.
            begin: How many calls the stages before this one have.
            listener: The hook.
        """
        stops = {(stop.name, stop.path): stop for stop in self.stops}
        for place in places:
            stop = stops.get((when, place.path))
            if stop is None:
                whole = place.path == f"layers.{place.layer}"
                over, turn = (place.last, int(whole)) if when == "after" else (place.first, 3 - whole)
                stop = stops[when, place.path] = _Stop(over - begin, turn, when, place.path, place.layer, [])
            stop.listeners.append(listener)
        self.stops = tuple(sorted(stops.values(), key=lambda stop: (stop.over, stop.turn)))
        self._overs = tuple(stop.over for stop in self.stops)

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
        for stop, mark_ns in zip(self.stops, marks, strict=True):
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
    """Have walks for the timing models that have such operators, and give them to their workers and stages.

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
    fitting: dict[int, list[Walk]] = {}
    for worker in filter(listener.wants, workers):
        key = id(worker.timing)
        if key not in fitting and key not in refused:
            try:
                fitting[key] = _add(walks, worker, hooks, when, pattern, listener)
            except InputError as error:
                refused[key] = error
        if key in fitting:
            _give(worker, fitting[key])
    if not fitting:
        raise next(iter(refused.values()))


def _add(
    walks: dict[int, Walk], worker: Worker, hooks: Hooks, when: str, pattern: str, listener: Listener
) -> list[Walk]:
    """Add a hook to the walks of a worker, one for each of its stages, and return them."""
    timings = [worker.timing] if worker.stages is None else _stages_of(worker.timing)
    mine = [walks.get(id(timing)) or Walk(timing, hooks) for timing in timings]
    places = find_operators(pattern, [call for walk in mine for call in walk.calls], worker.model)
    begin = 0
    for timing, walk in zip(timings, mine, strict=True):
        end = begin + len(walk.calls)
        walk.add(when, [place for place in places if begin <= place.first < end], begin, listener)
        walks[id(timing)] = walk
        begin = end
    return mine


def _stages_of(timing: TimingModel) -> Sequence[TimingModel]:
    if isinstance(timing, Pipeline):
        return timing.stages
    raise InputError(
        f"timing model {type(timing).__name__} is no simloop.hardware.Pipeline: breakpoints at operators of a worker "
        "with stages take one"
    )


def _give(worker: Worker, mine: Sequence[Walk]) -> None:
    hooked = [walk if walk.stops else None for walk in mine]
    if worker.stages is None:
        worker.walk = hooked[0]
        worker.beside = True
    else:
        worker.stages.walks = hooked
