"""One engine on one device: a queue, the running requests, KV memory, and a loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import attrs

from simloop.clock import Event, now_ns, sleep_ns, sleep_until_ns
from simloop.errors import PolicyError
from simloop.hardware import Device, TimingModel
from simloop.model import Model
from simloop.serving.batch import Batch
from simloop.serving.books import commit, end, join, leave, state
from simloop.serving.cohort import Cohort
from simloop.serving.engine import Engine
from simloop.serving.execution import pass_iteration
from simloop.serving.hand_over import go_on, hand_back
from simloop.serving.hooks import Hooks
from simloop.serving.intake import put_in_queue, read_inbox
from simloop.serving.kv import KVBlocks
from simloop.serving.kv_transfer import Departure, Preload
from simloop.serving.news import News
from simloop.serving.policy import where_raised
from simloop.serving.recorder import Recorder
from simloop.serving.request import Phase, Request, Status
from simloop.serving.swap import SwapSpace, drop, swap_in, swap_out
from simloop.serving.walk import Walk

if TYPE_CHECKING:
    from simloop.network import Stream
    from simloop.serving.loads import LoadIndex
    from simloop.serving.stages import Stages

__all__ = ["SchedulePolicy", "Worker"]


SchedulePolicy = Callable[["Worker"], Awaitable[Batch | None]]


@attrs.define(eq=False, repr=False)
class Worker:
    """An engine that serves a model on a device.

    A scheduling policy reads everything here, and acts through :meth:`batch`, :meth:`admit`, :meth:`preempt`,
    :meth:`swap_out` and :meth:`swap_in`, :meth:`pause` and :meth:`resume`.

    Attributes:
        name: Its name, ``gpu-0``.
        index: Its place in ``cluster.workers``.
        group: Name of the group in the scenario.
        device: What it runs on.
        model: What it serves.
        engine: The engine's arguments.
        timing: What prices an iteration.
        kv: Its KV memory.
        schedule: Its scheduling policy.
        waiting: Requests in the queue, the next one first.
        inbox: Requests that the scheduler has not seen yet: with ``async_scheduling`` it reads its input only when it
            has scheduled, so what arrives during an iteration takes part in the second one after it.
        arriving: Requests on their way to the queue, for ``request_ns``.
        running: Requests admitted and not done, in order of admission (the values mean nothing).
        prefilling: Those of them whose prompt is not all read.
        decoding: Those that decode; with pipeline stages, those of the micro-batch that is scheduled now.
        stages: Its pipeline stages, if it has more than one.
        cohorts: The decoding requests of every micro-batch; one cohort without pipeline stages.
        leaving: Requests that were handed back and whose KV blocks are still here.
        swapped: Requests whose keys and values wait in host memory, in the order in which they were swapped out.
        swap: The host memory that they wait in; None where the device's card states no link to the host.
        departing: Requests that were handed back and leave after the iteration that is being scheduled.
        coming: Requests whose keys and values are on their way here.
        incoming: Requests that were given to this worker although not all of their layers have arrived.
        preload: How many requests may be sent here at once; None is any number.
        load: Requests it holds: waiting, running and swapped out, and those whose keys and values are on their way.
        admissions: How often a request was admitted.
        iterations: Iterations done.
        generated: Output tokens made.
        prefilled: Prompt tokens read (again, after a preemption).
        preemptions: How often a request lost its blocks here.
        async_scheduling: Whether an iteration is scheduled while the one before it runs.
        warm_up_ns: Time that the next iteration takes longer: the first of an engine does, and one before which KV
            blocks are swapped.
        request_ns: Time from a request's arrival to the queue: HTTP, tokeniser, message to the engine.
        busy_ns: Time spent in iterations.
        news: What has happened here and has not been told to hooks and clients.
        walk: Takes iterations from operator to operator, where operators have hooks.
        beside: Whether something may go on beside the next iteration: a walk, or KV that leaves or is still to come.
        wake: Set when something changes that a sleeping worker may want to know.
        busy: Whether an iteration is being scheduled or runs.
        executing: Whether an iteration runs.
    """

    name: str
    index: int
    group: str
    device: Device
    model: Model
    engine: Engine
    timing: TimingModel
    kv: KVBlocks
    schedule: SchedulePolicy
    records: Recorder
    hooks: Hooks
    policy_name: str = "schedule"
    sample_interval_ns: int = 1_000_000_000
    check: Callable[[Worker, Batch], None] | None = None
    on_end: Callable[[Request], None] | None = None
    on_hand_back: Callable[[Request], None] | None = None
    async_scheduling: bool = False
    warm_up_ns: int = 0
    request_ns: int = 0
    waiting: deque[Request] = attrs.Factory(deque)
    inbox: deque[Request] = attrs.Factory(deque)
    arriving: deque[Request] = attrs.Factory(deque)
    running: dict[Request, None] = attrs.Factory(dict)
    prefilling: dict[Request, None] = attrs.Factory(dict)
    paused: dict[Request, None] = attrs.Factory(dict)
    leaving: dict[Request, None] = attrs.Factory(dict)
    swapped: dict[Request, None] = attrs.Factory(dict)
    swap: SwapSpace | None = None
    departing: list[Departure] = attrs.Factory(list)
    coming: dict[Request, None] = attrs.Factory(dict)
    incoming: dict[Request, Stream] = attrs.Factory(dict)
    preload: Preload | None = None
    decoding: Cohort = attrs.field(init=False)
    cohorts: list[Cohort] = attrs.field(init=False)
    max_model_len: int = attrs.field(init=False)
    load: int = 0
    admissions: int = 0
    iterations: int = 0
    generated: int = 0
    prefilled: int = 0
    preemptions: int = 0
    busy_ns: int = 0
    loads: tuple[LoadIndex[Worker], ...] = ()
    stages: Stages | None = None
    wake: Event = attrs.field(init=False)
    busy: bool = False
    executing: bool = False
    news: News = attrs.field(init=False)
    walk: Walk | None = None
    beside: bool = False
    _returned: list[Request] = attrs.Factory(list)
    _aborted: list[tuple[Request, str]] = attrs.Factory(list)
    _next_sample_ns: int = 0

    def __attrs_post_init__(self) -> None:
        self.decoding = Cohort(self.kv.block_size, self.index)
        self.cohorts = [self.decoding]
        self.max_model_len = self.engine.max_model_len or self.model.max_model_len
        self.wake = Event(f"work for {self.name}")
        self.news = News(self.hooks)

    # -- what runs ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve for ever: schedule, execute, commit."""
        while True:
            self.wake.clear()
            batch = await self.next_batch()
            if batch.num_tokens == 0:
                self.stand_down()
                await self.idle()
                continue
            start_ns = now_ns()
            self.executing = True
            end_ns = start_ns + self.timing.iteration_ns(batch) + self.warm_up_ns
            if self.beside:
                await pass_iteration([batch], batch, start_ns, end_ns)
                self.beside = self.walk is not None or bool(self.incoming or self.departing)
            else:
                await sleep_until_ns(end_ns)
            self.executing = False
            self.warm_up_ns = 0
            commit(self, batch, start_ns)
            if self.news.moments:
                await self.news.tell()

    async def next_batch(self) -> Batch:
        """Ask the scheduling policy what to do; an empty batch is nothing.

        From here to ``commit`` or :meth:`stand_down` the worker is busy, and nobody is taken away from it.

        Raises:
            PolicyError: It raised, or what it returned cannot be run; the message names it, the time and the worker.
        """
        self.busy = True
        if self._returned:
            go_on(self)
        try:
            batch = await self.schedule(self)
            if self.news.moments:
                await self.news.tell()
            if self.inbox:
                read_inbox(self)
            if batch is None:
                batch = self.batch()
            if batch.worker is not self or batch.spent:
                batch.refuse(self)
            batch.spent = True
        except asyncio.CancelledError as error:
            if cancelling():
                raise
            raise self._policy_error(error) from error
        except Exception as error:
            raise self._policy_error(error) from error
        return batch

    def _policy_error(self, error: BaseException) -> PolicyError:
        raised = f"{error}" if isinstance(error, PolicyError) else f"{type(error).__name__}: {error}"
        return PolicyError(
            f"scheduling policy {self.policy_name} raised {raised}{where_raised(error)} "
            f"(t = {now_ns() / 1e9:.9f} s, {self.describe()})"
        )

    def stand_down(self) -> None:
        """Let go of what a busy worker is protected from: there is no iteration after all, or it is over."""
        self.busy = False
        if self._aborted:
            self.drop_aborted(now_ns())

    async def idle(self) -> None:
        """Wait until there may be something to do."""
        if self.wake.is_set():  # something changed while the policy ran: ask it again, but let the others run
            await sleep_ns(0)
            return
        before = state(self, now_ns())
        await self.wake.wait()
        if now_ns() >= self._next_sample_ns:  # what it was while nothing happened
            self.records.sample(*before)

    # -- what a router calls -----------------------------------------------------------------------------------

    @property
    def turn(self) -> int:
        """Iterations that have begun: the number of the one that is being scheduled."""
        return self.iterations + (self.stages.in_flight if self.stages is not None else 0)

    def load_changed(self, by: int) -> None:
        """Count more or fewer requests, and tell the indices that find the least loaded worker."""
        self.load += by
        for index in self.loads:
            index.changed(self)

    def refusal(self, request: Request) -> str | None:
        """Return why the request can never be served here, or None if it can."""
        total = request.prompt_tokens + request.output_tokens
        if total > self.max_model_len:
            return f"longer than max_model_len ({self.max_model_len} tokens)"
        if self.kv.blocks_for(total - 1) > self.kv.total:
            return f"larger than the KV memory of {self.group} ({self.kv.total * self.kv.block_size} tokens)"
        return None

    def abort(self, request: Request, reason: str) -> None:
        """End a request before its time: at once, or when the iteration is over that is being scheduled or runs."""
        if request.phase is Phase.DONE:
            return
        if request.in_flight or (self.busy and not (self.executing and request.phase is Phase.WAITING)):
            self._aborted.append((request, reason))
        else:
            self._drop(request, reason, now_ns())

    # -- what a scheduling policy calls ------------------------------------------------------------------------

    def batch(self) -> Batch:
        """Return an empty batch to fill."""
        return Batch(self, self.decoding)

    def admit(self, request: Request, *, reserve_tokens: int = 0) -> None:
        """Move a request from the queue to the running ones, with blocks for the keys and values that were sent here.

        Args:
            request: One of :attr:`waiting`.
            reserve_tokens: Take the KV blocks for so many tokens now, and none later.

        Raises:
            PolicyError: It is not waiting here, or fewer blocks are free.
        """
        self._check_between("admitted")
        if request.phase is not Phase.WAITING or request.worker is not self:
            raise PolicyError(f"{request!r} was admitted on {self.name}, where it does not wait")
        request._rank = self.admissions
        self.admissions += 1
        known = self.kv.admit(request)
        request._blocks = known
        if request._computed:  # its keys and values have been sent here
            self.kv.take(self.kv.blocks_for(request._computed))
            request._blocks = known = self.kv.blocks_for(request._computed)
        else:
            request._computed = known * self.kv.block_size
        if reserve_tokens:
            more = self.kv.blocks_for(reserve_tokens) - known
            self.kv.take(more)
            request._blocks += more
            request._reserved = True
        if self.waiting[0] is request:
            self.waiting.popleft()
        else:
            self.waiting.remove(request)
        request.phase = Phase.PREFILLING
        self.running[request] = None
        self.prefilling[request] = None
        if request.scheduled_ns < 0:
            request.scheduled_ns = now_ns()
        if self.preload is not None:
            self.preload.admitted(request)
        self.news.add("resumed" if request._preempted else "admitted", request)
        request._preempted = False

    def preempt(self, request: Request) -> None:
        """Take a running request's KV blocks; it goes to the front of the queue and will be computed again.

        Raises:
            PolicyError: It does not run here.
        """
        self._stop(request, "preempted")
        self._free_blocks(request)
        self.incoming.pop(request, None)
        request._computed = 0
        request._reserved = False
        request.phase = Phase.WAITING
        request.preemptions += 1
        request._preempted = True
        self.preemptions += 1
        if self.engine.scheduling_policy == "priority":
            put_in_queue(self, request)
        else:
            self.waiting.appendleft(request)
        self.wake.set()
        self.news.add("preempted", request)

    def swap_out(self, request: Request) -> None:
        """Move a request that decodes or is paused to host memory: its KV blocks are free, and nothing is lost.

        The copy makes the next iteration longer, by the time of its bytes on the device's link to the host. It counts
        as a preemption, too.

        Raises:
            PolicyError: It does not decode here, the host's memory has no room, or the device has no link to it.
        """
        swap_out(self, request)

    def swap_in(self, request: Request) -> None:
        """Move a swapped request back into KV blocks; it decodes at once, and the next iteration is longer.

        Raises:
            PolicyError: It is not swapped out here, or fewer blocks are free.
        """
        swap_in(self, request)

    def pause(self, request: Request) -> None:
        """Let a decoding request sit out; it keeps its KV blocks and its place.

        Raises:
            PolicyError: It does not decode here.
        """
        self._check_between("paused")
        if request.phase is not Phase.DECODING or request.worker is not self:
            raise PolicyError(f"{request!r} was paused on {self.name}, where it does not decode")
        self._check_at_hand(request, "paused")
        leave(self, request)
        request.phase = Phase.PAUSED
        self.paused[request] = None
        self.news.add_turn("paused", "resumed", request)

    def resume(self, request: Request) -> None:
        """Let a paused request decode again.

        Raises:
            PolicyError: It is not paused here.
        """
        self._check_between("resumed")
        if request not in self.paused:
            raise PolicyError(f"{request!r} was resumed on {self.name}, where it is not paused")
        del self.paused[request]
        join(self, request, self.decoding)
        self.news.add_turn("resumed", "paused", request)

    def hand_back(self, request: Request) -> None:
        """Give a running request back to the cluster, which routes it again.

        Its KV blocks stay here until it is placed. On another worker it goes on where it was if its keys and values
        have been sent there (:meth:`Cluster.send_kv`); otherwise they are computed again.

        One of ``batch.completing`` is routed at once, so that its keys and values may leave while they are made; it
        leaves when the iteration is over. One that is to be aborted stays.

        Raises:
            PolicyError: It does not run here, or the batch does not read all of its prompt, or ends it.
        """
        hand_back(self, request)

    async def changed(self) -> None:
        """Wait until a request arrives, or anything else happens that a policy may want to react to.

        Raises:
            PolicyError: Micro-batches are under way, whose end would wait for the policy.
        """
        if self.stages is not None and self.stages.in_flight:
            raise PolicyError(f"{self.name} cannot wait while its stages work: return an empty batch instead")
        self.wake.clear()
        busy = self.busy
        self.stand_down()
        await self.wake.wait()
        self.busy = busy

    # -- the rest ----------------------------------------------------------------------------------------------

    def _stop(self, request: Request, verb: str) -> None:
        self._check_between(verb)
        if request.worker is not self or request not in self.running:
            raise PolicyError(f"{request!r} was {verb} on {self.name}, where it does not run")
        self._check_at_hand(request, verb)
        if request.phase is Phase.DECODING:
            leave(self, request)
        self.prefilling.pop(request, None)
        self.paused.pop(request, None)
        del self.running[request]

    def _free_blocks(self, request: Request) -> None:
        self.kv.release(request, request._blocks)
        request._blocks = 0

    def _check_between(self, verb: str) -> None:
        if self.executing:
            raise PolicyError(
                f"a request was {verb} on {self.name} while an iteration runs: only between two is it safe"
            )

    def _check_at_hand(self, request: Request, verb: str) -> None:
        if request.in_flight:
            raise PolicyError(f"{request!r} was {verb} on {self.name} after it had been added to a batch")

    def _drop(self, request: Request, reason: str, time_ns: int) -> None:
        if request.phase is Phase.WAITING:
            next(queue for queue in (self.arriving, self.inbox, self.waiting) if request in queue).remove(request)
        elif request.phase is Phase.SWAPPED:
            drop(self, request)
        elif request.phase is not Phase.DONE:
            self._stop(request, "aborted")
        else:
            return
        end(self, request, Status.FAILED, time_ns, reason)
        self.wake.set()

    def drop_aborted(self, end_ns: int) -> None:
        """End those who were to be aborted, but for those whom a micro-batch still has."""
        aborted, self._aborted = self._aborted, []
        for request, reason in aborted:
            if request.in_flight:
                self._aborted.append((request, reason))
            else:
                self._drop(request, reason, end_ns)

    def describe(self) -> str:
        """Return one line about its state, for reports."""
        swapped = f"{len(self.swapped)} swapped out, " if self.swapped else ""
        return (
            f"worker {self.name} (policy {self.policy_name}): {len(self.waiting)} waiting, {swapped}"
            f"{len(self.running)} running, {self.kv.used} of {self.kv.total} KV blocks used"
        )

    def __repr__(self) -> str:
        return f"<Worker {self.name} on {self.device.name}: {len(self.waiting)} waiting, {len(self.running)} running>"


def cancelling() -> bool:
    """Return whether somebody has asked to cancel the running task."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
