"""Pipeline stages of one engine: as many micro-batches under way as there are stages.

Each stage is a coroutine that takes a micro-batch from a channel, works on it, hands it to the next stage and takes the
next one. The scheduler works as vLLM's V1 engine core with a batch queue: while there is a free place it schedules
whoever is at hand (in no micro-batch) and starts them; where there is no place, or nothing to do, it waits for the
oldest micro-batch, books it, and goes on. So requests that were scheduled together stay together, prompts that exceed
the token budget spread over the micro-batches, and stages that find their channel empty stand idle: bubbles are what
happens, not a factor.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, Protocol

import attrs

from simloop.clock import now_ns, sleep_ns
from simloop.hardware import IterationShape
from simloop.network import Channel
from simloop.serving.batch import Batch
from simloop.serving.books import commit
from simloop.serving.cohort import Cohort
from simloop.serving.hand_over import begin_departures, wait_for_layers
from simloop.serving.walk import Walk
from simloop.serving.worker import Worker

__all__ = ["StageTiming", "Stages"]


class StageTiming(Protocol):
    """What prices the stages; :class:`~simloop.hardware.Pipeline` does."""

    def stage_ns(self, shape: IterationShape, stage: int) -> int:
        """Return how long one stage works on a micro-batch, nanoseconds."""
        ...

    def send_ns(self, shape: IterationShape, stage: int) -> int:
        """Return how long it then hands it to the next one, nanoseconds."""
        ...


@attrs.frozen
class _Flight:
    """A micro-batch under way: what it is, when it started, and how long each stage works on it and hands it over."""

    batch: Batch
    start_ns: int
    work_ns: list[int]
    send_ns: list[int]


@attrs.define(eq=False)
class Stages:
    """The stages of one worker.

    A stage is busy while it works and while it sends: the next stage takes what is sent when it is free.

    Attributes:
        worker: The worker; its scheduler, queue and KV memory serve all stages.
        timing: What prices them.
        busy_ns: How long each stage has worked and sent.
        walks: Takes each stage from operator to operator, where its operators have hooks.
        in_flight: Micro-batches under way.
    """

    worker: Worker
    timing: StageTiming
    busy_ns: list[int]
    walks: list[Walk | None]
    in_flight: int = 0
    _channels: list[Channel[_Flight]] = attrs.Factory(list)
    _since_ns: int = 0

    @classmethod
    def of(cls, worker: Worker, timing: StageTiming, stages: int) -> Stages:
        """Spread a worker over stages; its decoding requests get a cohort for each micro-batch."""
        worker.cohorts += [Cohort(worker.kv.block_size) for _ in range(stages - 1)]
        worker.stages = made = cls(worker, timing, [0] * stages, [None] * stages)
        made._channels = [Channel(name=f"stage {stage} of {worker.name}") for stage in range(stages)]
        made._channels.append(Channel(name=f"the last stage of {worker.name}"))
        return made

    def services(self) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        """Return the coroutines that make up the engine, by name."""
        yield f"worker {self.worker.name}", self._schedule()
        for stage in range(len(self.busy_ns)):
            yield f"stage {stage} of {self.worker.name}", self._run_stage(stage)

    async def _schedule(self) -> None:
        worker, free = self.worker, list(self.worker.cohorts)
        while True:
            worker.wake.clear()
            if free:
                worker.decoding = max(free, key=len)  # whoever has just come back, before a new micro-batch
                batch = await worker.next_batch()
                worker.stand_down()
                if batch:
                    free.remove(batch.cohort)
                    await self._start(batch)
                    continue
            if self.in_flight:
                free.append(await self._book_oldest())
            else:
                await worker.idle()

    async def _start(self, batch: Batch) -> None:
        stages = range(len(self.busy_ns))
        work = [self.timing.stage_ns(batch, stage) for stage in stages]
        work[0] += self.worker.warm_up_ns
        self.worker.warm_up_ns = 0
        if not self.in_flight:
            self._since_ns = now_ns()
        self.in_flight += 1
        batch.store()
        sends = [self.timing.send_ns(batch, stage) for stage in stages]
        if self.worker.departing:  # as if no other micro-batch were in the way
            begin_departures(self.worker, now_ns(), now_ns() + sum(work) + sum(sends))
        await self._channels[0].put(_Flight(batch, now_ns(), work, sends))

    async def _book_oldest(self) -> Cohort:
        """Wait for the oldest micro-batch, book it, and return the cohort whose place is free again."""
        worker, flight = self.worker, await self._channels[-1].get()
        batch = flight.batch
        if worker.incoming:
            await wait_for_layers(worker, batch, flight.start_ns, now_ns())
        self.in_flight -= 1
        worker.decoding = batch.cohort
        commit(worker, batch, self._since_ns)
        self._since_ns = now_ns()
        if worker.news.moments:
            await worker.news.tell()
        return batch.cohort

    async def _run_stage(self, stage: int) -> None:
        inlet, outlet = self._channels[stage : stage + 2]
        async for flight in inlet:
            start_ns, walk = now_ns(), self.walks[stage]
            if walk is None:
                await sleep_ns(flight.work_ns[stage] + flight.send_ns[stage])
            else:
                await walk.run([flight.batch], flight.batch, flight.work_ns[stage])
                if flight.send_ns[stage]:
                    await sleep_ns(flight.send_ns[stage])
            self.busy_ns[stage] += now_ns() - start_ns
            await outlet.put(flight)
