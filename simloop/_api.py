"""The two ways in: run a scenario to its end, or step inside one."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import msgspec

from simloop._stop import Interrupted, Stop
from simloop.clock import now_ns, run
from simloop.errors import InputError, SimulationError
from simloop.metrics import Records, Result, check_conservation
from simloop.scenario import Scenario, load_scenario
from simloop.scenario.build import build_cluster
from simloop.serving import Cluster
from simloop.workload import Workload, open_workload

__all__ = ["Interrupted", "Progress", "cluster", "simulate", "simulate_until_stopped"]


@attrs.frozen
class Progress:
    """How far a run is.

    Attributes:
        virtual_s: Time on the virtual clock, seconds.
        finished: Requests that have ended.
        total: Requests that there will be, if that is known.
        running: Requests that run now.
        waiting: Requests that wait now.
    """

    virtual_s: float
    finished: int
    total: int | None
    running: int
    waiting: int


def simulate(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    *,
    seed: int | None = None,
    requests: int | None = None,
    overrides: Sequence[str] = (),
    progress: Callable[[Progress], None] | None = None,
    check: bool = False,
) -> Result:
    """Run a scenario to its end on a virtual clock.

    Args:
        scenario: A file (YAML, JSON or TOML), the name of a bundled one, a mapping of the same shape, or a
            :class:`simloop.scenario.Scenario`.
        seed: In place of the scenario's.
        requests: How many requests, in place of the scenario's.
        overrides: ``path=value`` for any key of the scenario, as ``--set`` of the command takes them.
        progress: Called about ten times a second of real time.
        check: Check the invariants of every worker after every iteration; much slower.

    Where an event loop runs in this thread already, as in a notebook, the simulation has a thread of its own, and this
    one waits for it.

    Returns:
        What happened. ``result.complete`` is False where ``until_s`` ended the run early.

    Raises:
        InputError: The scenario cannot be used.
        SimulationError: The run could not go on: a deadlock, a policy that raised.
        Interrupted: Ctrl-C or SIGTERM came, a kind of KeyboardInterrupt; its ``result`` is what there is. A second
            signal interrupts a policy that never awaits, too.
    """
    spec = _load(scenario, seed, requests, overrides)
    with Stop() as stop:
        result = simulate_until_stopped(spec, stop, progress=progress, check=check)
    if stop.signal is not None:
        raise Interrupted(result)
    return result


def simulate_until_stopped(
    scenario: Scenario, stop: Stop, *, progress: Callable[[Progress], None] | None = None, check: bool = False
) -> Result:
    """Run a scenario to its end, or until ``stop`` ends it; for the command, which delivers what there is.

    Args:
        scenario: What to run.
        stop: Takes the signals, also after the run: from the first request on, one signal is only noted.
        progress: As in :func:`simulate`.
        check: As in :func:`simulate`.
    """
    workload = open_workload(scenario.workload, seed=scenario.seed)
    session = _Session(scenario, workload, progress, check, stop)
    return session.run() if asyncio._get_running_loop() is None else _in_a_thread(session)


def _in_a_thread(session: _Session) -> Result:
    """Run in a thread of its own, since no second loop can run in this one."""
    outcome: list[Result | BaseException] = []

    def work() -> None:
        session.stop.thread = threading.get_ident()
        try:
            outcome.append(session.run())
        except BaseException as error:  # raised again in the thread that waits
            outcome.append(error)
        finally:
            session.stop.thread = None

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True)
    thread.start()
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]


def cluster(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    *,
    overrides: Sequence[str] = (),
    records: Records | None = None,
) -> Cluster:
    """Return the cluster of a scenario, to be used with ``async with`` on whatever clock the running loop has.

    The scenario's own workload is not started: send requests with :meth:`Cluster.generate` and :meth:`Cluster.submit`.

    Args:
        scenario: As in :func:`simulate`.
        overrides: As in :func:`simulate`.
        records: Where to keep what happens; new ones if not given.

    Raises:
        InputError: The scenario cannot be used.
    """
    spec = _load(scenario, None, None, overrides)
    return build_cluster(spec, Records() if records is None else records)


def _load(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    seed: int | None,
    requests: int | None,
    overrides: Sequence[str],
) -> Scenario:
    if isinstance(overrides, str):
        raise InputError(f"found {overrides!r}, expected a list: [{overrides!r}]", file="overrides")
    for name, value, least in (("seed", seed, 0), ("requests", requests, 1)):
        if value is not None and (type(value) is not int or not least <= value < 2**63):
            raise InputError(f"found {value!r}, expected a whole number >= {least}", file=name)
    changes = list(overrides)
    if seed is not None:
        changes.append(f"seed={seed}")
    if requests is not None:
        changes.append(f"workload.requests={requests}")
    given = msgspec.to_builtins(scenario) if isinstance(scenario, Scenario) else scenario
    return load_scenario(given, overrides=changes)


@attrs.define
class _Session:
    """One run of one scenario, from the first request to the result."""

    scenario: Scenario
    workload: Workload
    progress: Callable[[Progress], None] | None
    check: bool
    stop: Stop
    records: Records = attrs.Factory(Records)
    complete: bool = False
    reason: str | None = None
    end_ns: int = 0
    _task: asyncio.Task[Any] | None = None
    _told_s: float = 0.0

    def run(self) -> Result:
        """Run it, and return what happened, also when it was cut short."""
        started_s = time.perf_counter()
        world = build_cluster(self.scenario, self.records, check=self.check)
        if self.progress is not None or self.stop.thread is not None:
            world.on_end = lambda: self._report(world)
        try:
            run(self._serve(world), seed=self.scenario.seed, until=self.scenario.until_s)
        except (asyncio.CancelledError, KeyboardInterrupt):
            if self._task is None or self.stop.signal is None:
                raise
        if not self.complete and self.stop.signal is not None:
            self.reason = f"interrupted by {self.stop.signal.name}"
        elif not self.complete:
            self.reason = f"stopped at until_s = {self.scenario.until_s:g}"
        result = Result(
            self.records,
            step_ends=world.step_ends,
            worker_names=[worker.name for worker in world.workers],
            scenario=msgspec.to_builtins(self.scenario),
            seed=self.scenario.seed,
            end_ns=self.end_ns,
            wall_s=time.perf_counter() - started_s,
            complete=self.complete,
            reason=self.reason,
            slo=self.scenario.slo,
            iterations=sum(worker.iterations for worker in world.workers),
            stage_busy_ns=[worker.stages.busy_ns if worker.stages else [] for worker in world.workers],
        )
        broken = check_conservation(result) if self.check else []
        if broken:
            raise SimulationError(f"{len(broken)} invariants are broken, the first: {broken[0]}")
        return result

    async def _serve(self, world: Cluster) -> None:
        self._task = asyncio.current_task()
        self.stop.gently = self._cancel if self.stop.thread is None else lambda: None
        try:
            await world.serve(self.workload, concurrency=self.workload.concurrency)
            self.complete = True
        finally:
            self.end_ns = now_ns()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _report(self, world: Cluster) -> None:
        if self.stop.thread is not None and self.stop.signal is not None:
            self._cancel()  # the loop's own thread is the one that may
        wall_s = time.monotonic()
        if self.progress is None or wall_s - self._told_s < 0.1:
            return
        self._told_s = wall_s
        running = sum(len(worker.running) for worker in world.workers)
        waiting = sum(len(worker.waiting) for worker in world.workers)
        self.progress(Progress(now_ns() / 1e9, world.finished, self.workload.total, running, waiting))
