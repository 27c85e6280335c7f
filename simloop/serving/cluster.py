"""The cluster: a router in front of workers, and the requests between them."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import attrs

from simloop.clock import Event, add_note, now_ns, sleep_until_ns
from simloop.errors import InputError, PolicyError, SimulationError, did_you_mean
from simloop.network import Fabric
from simloop.serving.books import close_books, take_sample
from simloop.serving.cohort import Cohort
from simloop.serving.generation import Generation
from simloop.serving.hand_over import let_go, take_back
from simloop.serving.hooks import Hook, Hooks, Listener, Moment, OperatorHook
from simloop.serving.intake import enqueue
from simloop.serving.kv_transfer import SendKV, check_send, expect, forget_kv, stream_kv
from simloop.serving.loads import LoadIndex, index_of_group
from simloop.serving.lockstep import Lockstep
from simloop.serving.policy import never_suspends, where_raised
from simloop.serving.recorder import Recorder
from simloop.serving.request import Phase, Request, Status
from simloop.serving.signals import Signals
from simloop.serving.walk import Walk, hook_operators
from simloop.serving.worker import Worker
from simloop.workload import Arrival

__all__ = ["Cluster", "ControlPolicy", "RoutePolicy"]

RoutePolicy = Callable[[Request, "Cluster"], Awaitable[Worker]]
ControlPolicy = Callable[["Cluster"], Awaitable[None]]


@attrs.define(eq=False, repr=False)
class Cluster:
    """Workers behind a router, on whatever clock the running loop has.

    ``async with cluster:`` starts the workers and the controller; leaving it stops them.

    Attributes:
        workers: All workers, in the order of the scenario.
        route: The routing policy.
        records: Where everything that happens is kept.
        hooks: The breakpoints.
        control: The controller, if there is one.
        network: What links the workers, by their names, for KV transfers.
        kv_by: How KV is sent when a policy does not say: ``whole``, by ``layer``, or by ``block``.
        first_layers: After how many layers the receiver may start when a policy does not say; None is all of them.
        lockstep: Groups of workers that iterate together.
        signals: What the routing policy hears of the workers; it sees them as they are if not given.
        arrived: Requests that have arrived so far.
        finished: Requests that have ended so far, however they ended.
    """

    workers: Sequence[Worker]
    route: RoutePolicy
    records: Recorder
    hooks: Hooks
    control: ControlPolicy | None = None
    network: Fabric | None = None
    kv_by: SendKV = "whole"
    first_layers: int | None = None
    lockstep: Sequence[Lockstep] = ()
    signals: Signals | None = None
    route_name: str = "route"
    control_name: str = "control"
    on_end: Callable[[], None] | None = None
    arrived: int = 0
    finished: int = 0
    _mine: frozenset[Worker] = attrs.field(init=False)
    _routing: dict[Request, asyncio.Task[None]] = attrs.Factory(dict)
    _cancelled: dict[Request, str] = attrs.Factory(dict)
    _loads: dict[str | None, LoadIndex[Worker]] = attrs.Factory(dict)
    _walks: dict[int, Walk] = attrs.Factory(dict)
    _inline: bool = attrs.field(init=False)
    _group: asyncio.TaskGroup | None = None
    _entered: bool = False
    _services: list[asyncio.Task[None]] = attrs.Factory(list)
    _drained: Event = attrs.Factory(lambda: Event("all requests to end"))
    _one_ended: Event = attrs.Factory(lambda: Event("a client whose request has ended"))

    def __attrs_post_init__(self) -> None:
        if self.signals is not None:
            self.route = self.signals.through(self.route)
        self._inline = never_suspends(self.route)
        self.hooks.on_told = self._drained.set
        self.hooks.cluster = self
        self._mine = frozenset(self.workers)
        for worker in self.workers:
            worker.on_end = self._ended
            worker.on_hand_back = self._start
        for row, cohort in enumerate(self._cohorts()):
            cohort.row = row

    def _cohorts(self) -> list[Cohort]:
        """Return all workers' first micro-batches, whose rows are the workers' own, then the further ones."""
        return [worker.cohorts[0] for worker in self.workers] + [
            cohort for worker in self.workers for cohort in worker.cohorts[1:]
        ]

    @property
    def step_ends(self) -> list[array[int]]:
        """End of each decode iteration, ns, by the rows that the records know them by."""
        return [cohort.step_ends for cohort in self._cohorts()]

    # -- what policies see -------------------------------------------------------------------------------------

    def least_loaded(self, group: str | None = None) -> Worker:
        """Return the worker that holds the fewest requests, the first of equals; costs O(log workers).

        Args:
            group: Look only at the workers of this group of the scenario.

        Raises:
            PolicyError: There is no such group.
        """
        return index_of_group(self._loads, self.workers, group).least()

    @property
    def outstanding(self) -> int:
        """Requests that have arrived and not ended."""
        return self.arrived - self.finished

    async def send_kv(
        self, request: Request, target: Worker, *, by: SendKV | None = None, first_layers: int | None = None
    ) -> None:
        """Send a request's keys and values over the network to the worker that it will go on on.

        Other transfers share the links; the sender and the receiver go on computing meanwhile. It counts in
        ``target.load`` from now on.

        Args:
            request: The request.
            target: The worker.
            by: ``whole``, or a transfer for each ``layer`` or KV ``block``, as soon as that is there; the cluster's
                own way if not given.
            first_layers: By layer: return when so many have arrived; all of them if neither this nor the cluster says.

        Raises:
            PolicyError: The scenario has no network, or the request is not being routed.
            InputError: ``by`` or ``first_layers`` says something that there is not.
        """
        source = request.worker
        if source is None or source is target:
            return
        if request not in self._routing:
            raise PolicyError(f"KV of {request!r} cannot be sent, for it stays on {source.name}: hand it back first")
        if self.network is None:
            raise PolicyError(
                f"KV cannot be sent from {source.name} to {target.name}: the scenario has no network; "
                "give it one, such as network: {bandwidth_gb_s: 12.5}"
            )
        if by is None:
            by, first_layers = self.kv_by, first_layers or self.first_layers
        check_send(by, first_layers, source.model.num_layers)
        if request.kv_at is not None:
            forget_kv(request.kv_at, request)
        request.kv_at = target
        expect(target, request)
        try:
            if target.preload is not None:
                await target.preload.take(request)
            await self._fire("kv_sent", request)
            stream = await stream_kv(request, source, self.network.path(source.name, target.name), by, first_layers)
        except BaseException:
            forget_kv(target, request)
            request.kv_at = None
            raise
        if len(stream.arrival_ns) < len(stream.parts):
            target.incoming[request] = stream
            target.beside = True
        await self._fire("kv_received", request)

    # -- what users call ---------------------------------------------------------------------------------------

    def hook(
        self,
        moment: str,
        hook: Hook,
        *,
        group: str | None = None,
        background: bool = False,
        name: str | None = None,
    ) -> None:
        """Call an async function at every ``moment``: see :data:`simloop.serving.MOMENTS`.

        Args:
            moment: The moment's name.
            hook: What to call, with a :class:`simloop.serving.Moment`.
            group: Only on workers of this group of the scenario; on all if not given.
            background: Whether what it was called from goes on meanwhile; else that waits until it returns.
            name: What messages call it; the function's own name if not given.

        Raises:
            InputError: There is no such moment or group, or the hook is not async.
        """
        self.check_group(group)
        self.hooks.add(moment, Listener.of(hook, background, group, name))

    def before(
        self,
        operators: str,
        hook: OperatorHook,
        *,
        group: str | None = None,
        background: bool = False,
        name: str | None = None,
    ) -> None:
        """Call an async function when operators of the model are about to begin.

        Args:
            operators: Their path, with ``*`` and slices of layers: ``lm_head``, ``layers.*.o_proj``, ``layers[::4]``.
            hook: What to call, with a :class:`simloop.serving.OperatorMoment`.
            group: Only on workers of this group of the scenario; on all if not given.
            background: Whether the iteration goes on meanwhile; else it waits, and lasts so much longer.
            name: What messages call it; the function's own name if not given.

        Raises:
            InputError: No worker has such an operator, a timing model does not know its operators, there is no such
                group, or the hook is not async.
        """
        self._hook_operators("before", operators, hook, group, background, name)

    def after(
        self,
        operators: str,
        hook: OperatorHook,
        *,
        group: str | None = None,
        background: bool = False,
        name: str | None = None,
    ) -> None:
        """Call an async function when operators of the model have just ended; as :meth:`before` otherwise."""
        self._hook_operators("after", operators, hook, group, background, name)

    def _hook_operators(
        self, when: str, operators: str, hook: OperatorHook, group: str | None, background: bool, name: str | None
    ) -> None:
        self.check_group(group)
        listener = Listener.of(hook, background, group, name)
        hook_operators(self._walks, self.workers, self.hooks, when, operators, listener)

    def check_group(self, group: str | None) -> None:
        """Do nothing if the scenario has a group of workers of that name, or None is given.

        Raises:
            InputError: It has not.
        """
        groups = dict.fromkeys(worker.group for worker in self.workers)
        if group is not None and group not in groups:
            near = did_you_mean(group, groups)
            raise InputError(f"no group of workers is called {group!r}{near} (there are: {', '.join(groups)})")

    def submit(self, arrival: Arrival) -> Request:
        """Let a request arrive now; it is routed, queued and served while the caller goes on.

        Raises:
            InputError: Its lengths are not whole numbers above 0.
            SimulationError: The cluster is not running.
        """
        request = self._arrive(arrival)
        self._start(request)
        return request

    def generate(
        self, *, prompt_tokens: int, output_tokens: int, session: str | None = None, priority: int = 0
    ) -> Generation:
        """Send one request: ``await`` the result for the whole, or iterate over it for the tokens as they come.

        Raises:
            InputError: Its lengths are not whole numbers above 0.
            SimulationError: The cluster is not running.
            RejectedError: (When awaited) the request can never be served, or was aborted.
        """
        request = self._arrive(Arrival(now_ns(), prompt_tokens, output_tokens, session, priority))
        generation = Generation(self, request)
        self._start(request)
        return generation

    def _arrive(self, arrival: Arrival) -> Request:
        for name, found in (("prompt_tokens", arrival.prompt_tokens), ("output_tokens", arrival.output_tokens)):
            if type(found) is not int or found < 1:
                raise InputError(f"{name}: found {found!r}, expected a whole number above 0")
        if self._group is None:
            raise SimulationError("the cluster is not running: use it inside 'async with cluster:'")
        request = Request(
            self.arrived,
            now_ns(),
            arrival.prompt_tokens,
            arrival.output_tokens,
            arrival.session,
            arrival.priority,
            arrival.hash_ids,
            arrival.hash_block_size,
        )
        self.arrived += 1
        return request

    def abort(self, request: Request, reason: str = "aborted by the client") -> None:
        """End a request before its time; its KV blocks are free after the iteration it is in."""
        if request.phase is Phase.ROUTING or request in self._routing:
            self._cancelled[request] = reason
        elif request.worker is not None:
            request.worker.abort(request, reason)

    async def serve(self, workload: Iterable[Arrival], *, concurrency: int | None = None) -> None:
        """Let a whole workload arrive at its times, and return when every request has ended.

        Args:
            workload: The requests.
            concurrency: Let at most so many be under way: the next arrives when one has ended, at the same moment but
                after the iteration that follows has been scheduled, as no client can know earlier.
        """
        async with self:
            for arrival in workload:
                if arrival.arrival_ns > now_ns():
                    await sleep_until_ns(arrival.arrival_ns)
                while concurrency is not None and self.outstanding >= concurrency:
                    self._one_ended.clear()
                    await self._one_ended.wait()
                self.submit(arrival)
            await self.drain()

    async def drain(self) -> None:
        """Wait until every request that has arrived has ended, and every hook that was called has returned."""
        while self.outstanding or self.hooks.pending:
            self._drained.clear()
            await self._drained.wait()

    async def __aenter__(self) -> Cluster:
        if self._entered:
            raise SimulationError("a cluster runs once: make another one")
        self._entered = True
        self._group = group = asyncio.TaskGroup()
        await group.__aenter__()
        self.hooks.run_in(group)
        add_note(self.describe)
        together = {rank for engine in self.lockstep for rank in engine.ranks}
        engines: list[Lockstep | Worker] = [*self.lockstep]
        engines += [worker for worker in self.workers if worker not in together and worker.stages is None]
        services = [(f"worker {engine.name}", engine.run()) for engine in engines]
        services += [service for worker in self.workers if worker.stages for service in worker.stages.services()]
        if self.signals is not None:
            services.append(("asking workers for their metrics", self.signals.run(self)))
        for name, coroutine in services:
            self._services.append(group.create_task(coroutine, name=name))
        if self.control is not None:
            self._services.append(group.create_task(self._run_control(), name=f"controller {self.control_name}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        for service in [*self._services, *self._routing.values(), *self.hooks.tasks]:
            service.cancel()
        self._services.clear()
        try:
            if group is not None:
                await group.__aexit__(kind, error, traceback)
        except BaseExceptionGroup as several:  # the group's own; what is in it may be anybody's
            first = several.exceptions[0]
            raise first from first.__cause__
        finally:
            self._close_books()

    def describe(self) -> str:
        """Return what a report about a stuck run needs: who waits where."""
        busy = [worker.describe() for worker in self.workers if worker.load]
        lines = [f"{self.outstanding} of {self.arrived} requests have not ended", *busy[:20]]
        if len(busy) > 20:
            lines.append(f"and {len(busy) - 20} more workers with requests")
        if self._routing:
            lines.append(f"{len(self._routing)} requests are being routed by {self.route_name}")
        hooked = self.hooks.describe()
        lines += hooked[:20]
        if len(hooked) > 20:
            lines.append(f"and {len(hooked) - 20} more hooks that have not returned")
        return "\n".join(lines)

    # -- the way of a request ----------------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        hooked = self.hooks.by_moment
        told = hooked["arrival"] or hooked["handed_back"] or hooked["routed"] or hooked["rejected"]
        if self._inline and not told and request._departure is None:
            try:
                self.route(request, self).__await__().send(None)
            except StopIteration as done:
                self._check_mine(request, done.value)
                self._place(request, done.value)
            except Exception as error:
                self._give_up(request, "routing failed")
                raise self._route_error(request, error) from error
        elif self._group is not None:
            task = self._group.create_task(self._dispatch(request), name=f"routing request {request.id}")
            self._routing[request] = task

    async def _dispatch(self, request: Request) -> None:
        await self._fire("arrival" if request.worker is None else "handed_back", request)
        try:
            worker = await self.route(request, self)
        except Exception as error:
            raise self._route_error(request, error) from error
        self._check_mine(request, worker)
        if request._departure is not None:  # it may be placed elsewhere only when it has left
            await request._departure.over.wait()
            request._departure = None
        if request not in self._cancelled and worker.refusal(request) is None:
            await self._fire("routed", request, worker)
        del self._routing[request]
        if not self._place(request, worker):
            await self._fire("rejected" if request.status is Status.REJECTED else "failed", request)

    def _check_mine(self, request: Request, worker: Any) -> None:
        if not (isinstance(worker, Worker) and worker in self._mine):
            self._give_up(request, "routing failed")
            raise PolicyError(
                f"routing policy {self.route_name} returned {worker!r} for request {request.id}, "
                "not a worker of this cluster"
            )

    def _place(self, request: Request, worker: Worker) -> bool:
        source, cancelled = request.worker, self._cancelled.pop(request, None)
        reason = cancelled or worker.refusal(request)
        sent_to, request.kv_at = request.kv_at, None
        if sent_to is not None and (sent_to is not worker or reason is not None):
            forget_kv(sent_to, request)
        if source is worker and reason is None:
            take_back(worker, request)
            return True
        if source is not None:
            let_go(source, request)
            if sent_to is not worker:
                request.forget_computed()
        if reason is None:
            enqueue(worker, request)
        else:
            request.worker = worker
            begun = cancelled or request.scheduled_ns >= 0
            self._give_up(request, reason, Status.FAILED if begun else Status.REJECTED)
        return reason is None

    def _give_up(self, request: Request, reason: str, status: Status = Status.FAILED) -> None:
        request.status = status
        request.reason = reason
        request.phase = Phase.DONE
        request.finish_ns = now_ns()
        self._ended(request)

    def _ended(self, request: Request) -> None:
        self.finished += 1
        self.records.finish(request)
        if request.listeners is not None:
            for listener in request.listeners:
                listener(request, request.finish_ns)
        self._one_ended.set()
        if self.finished == self.arrived:
            self._drained.set()
        if self.on_end is not None:
            self.on_end()

    async def _fire(self, name: str, request: Request, worker: Worker | None = None) -> None:
        if self.hooks.by_moment[name]:
            self.hooks.pending += 1
            await self.hooks.fire(Moment(name, request, worker or request.worker, self, now_ns()))

    async def _run_control(self) -> None:
        if self.control is None:
            return
        try:
            await self.control(self)
        except Exception as error:
            raise PolicyError(
                f"controller {self.control_name} raised {type(error).__name__}: {error}{where_raised(error)} "
                f"(t = {now_ns() / 1e9:.9f} s)"
            ) from error

    def _route_error(self, request: Request, error: Exception) -> PolicyError:
        if isinstance(error, PolicyError):
            return error
        return PolicyError(
            f"routing policy {self.route_name} raised {type(error).__name__}: {error}{where_raised(error)} "
            f"(t = {now_ns() / 1e9:.9f} s, request {request.id})"
        )

    def _close_books(self) -> None:
        end_ns = now_ns()
        left = dict.fromkeys(self._routing)  # some of them run as well
        for worker in self.workers:
            left.update(dict.fromkeys(close_books(worker)))
            take_sample(worker, end_ns)
        for request in left:
            request.status = Status.UNFINISHED
            request.reason = "the cluster stopped"
            request.phase = Phase.DONE
            self.records.finish(request)
            for listener in request.listeners or ():
                listener(request, end_ns)

    def __repr__(self) -> str:
        return f"<Cluster of {len(self.workers)} workers: {self.outstanding} requests outstanding>"
