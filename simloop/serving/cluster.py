"""The cluster: a router in front of workers, and the requests between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import attrs

from simloop.clock import Event, add_note, now_ns, sleep_until_ns
from simloop.errors import InputError, PolicyError, SimulationError
from simloop.network import Fabric
from simloop.serving.generation import Generation
from simloop.serving.hooks import Hook, Hooks, Moment
from simloop.serving.loads import LoadIndex
from simloop.serving.lockstep import Lockstep
from simloop.serving.policy import never_suspends, where_raised
from simloop.serving.recorder import Recorder
from simloop.serving.request import Phase, Request, Status
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
        lockstep: Groups of workers that iterate together.
        arrived: Requests that have arrived so far.
        finished: Requests that have ended so far, however they ended.
    """

    workers: Sequence[Worker]
    route: RoutePolicy
    records: Recorder
    hooks: Hooks
    control: ControlPolicy | None = None
    network: Fabric | None = None
    lockstep: Sequence[Lockstep] = ()
    route_name: str = "route"
    control_name: str = "control"
    on_end: Callable[[], None] | None = None
    arrived: int = 0
    finished: int = 0
    _mine: frozenset[Worker] = attrs.field(init=False)
    _routing: dict[Request, asyncio.Task[None]] = attrs.Factory(dict)
    _cancelled: dict[Request, str] = attrs.Factory(dict)
    _loads: dict[str | None, LoadIndex] = attrs.Factory(dict)
    _inline: bool = attrs.field(init=False)
    _group: asyncio.TaskGroup | None = None
    _entered: bool = False
    _services: list[asyncio.Task[None]] = attrs.Factory(list)
    _drained: Event = attrs.Factory(lambda: Event("all requests to end"))
    _one_ended: Event = attrs.Factory(lambda: Event("a client whose request has ended"))

    def __attrs_post_init__(self) -> None:
        self._inline = never_suspends(self.route)
        self.hooks.on_told = self._drained.set
        self._mine = frozenset(self.workers)
        for worker in self.workers:
            worker.on_end = self._ended
            worker.on_hand_back = self._start

    # -- what policies see -------------------------------------------------------------------------------------

    def least_loaded(self, group: str | None = None) -> Worker:
        """Return the worker that holds the fewest requests, the first of equals; costs O(log workers).

        Args:
            group: Look only at the workers of this group of the scenario.

        Raises:
            PolicyError: There is no such group.
        """
        if group not in self._loads:
            members = [worker for worker in self.workers if group in (None, worker.group)]
            if not members:
                groups = list(dict.fromkeys(worker.group for worker in self.workers))
                raise PolicyError(f"no group of workers is called {group!r} (there are: {', '.join(groups)})")
            self._loads[group] = LoadIndex(members)
            for worker in members:
                worker.loads = (*worker.loads, self._loads[group])
        return self._loads[group].least()

    @property
    def outstanding(self) -> int:
        """Requests that have arrived and not ended."""
        return self.arrived - self.finished

    async def send_kv(self, request: Request, target: Worker) -> None:
        """Send a request's keys and values over the network to the worker that it will go on on.

        Other transfers share the links; the sender and the receiver go on computing meanwhile.

        Raises:
            PolicyError: The request is on no worker, or the scenario has no network.
        """
        source = request.worker
        if source is None or source is target:
            return
        if self.network is None:
            raise PolicyError(f"KV cannot be sent from {source.name} to {target.name}: the scenario has no network")
        await self._fire("kv_sent", request)
        await self.network.send(source.name, target.name, request.computed * source.model.kv_bytes_per_token)
        request.kv_at = target
        await self._fire("kv_received", request)

    # -- what users call ---------------------------------------------------------------------------------------

    def hook(self, moment: str, hook: Hook) -> None:
        """Call an async function at every ``moment``: see :data:`simloop.serving.MOMENTS`."""
        self.hooks.add(moment, hook)

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
        if request.phase is Phase.ROUTING:
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
        add_note(self.describe)
        together = {rank for engine in self.lockstep for rank in engine.ranks}
        engines: list[Lockstep | Worker] = [*self.lockstep]
        engines += [worker for worker in self.workers if worker not in together]
        for engine in engines:
            self._services.append(group.create_task(engine.run(), name=f"worker {engine.name}"))
        if self.control is not None:
            self._services.append(group.create_task(self._run_control(), name=f"controller {self.control_name}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        group, self._group = self._group, None
        for service in [*self._services, *self._routing.values()]:
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
        return "\n".join(lines)

    # -- the way of a request ----------------------------------------------------------------------------------

    def _start(self, request: Request) -> None:
        hooked = self.hooks.by_moment
        if self._inline and not (hooked["arrival"] or hooked["routed"] or hooked["rejected"]):
            try:
                self.route(request, self).__await__().send(None)
            except StopIteration as done:
                self._place(request, done.value)
            except Exception as error:
                self._give_up(request, "routing failed")
                raise self._route_error(request, error) from error
        elif self._group is not None:
            task = self._group.create_task(self._dispatch(request), name=f"routing request {request.id}")
            self._routing[request] = task

    async def _dispatch(self, request: Request) -> None:
        if request.worker is None:
            await self._fire("arrival", request)
        try:
            worker = await self.route(request, self)
        except Exception as error:
            raise self._route_error(request, error) from error
        del self._routing[request]
        placed = self._place(request, worker)
        moment = "routed" if placed else "rejected" if request.status is Status.REJECTED else "failed"
        await self._fire(moment, request)

    def _place(self, request: Request, worker: Any) -> bool:
        if not (isinstance(worker, Worker) and worker in self._mine):
            self._give_up(request, "routing failed")
            raise PolicyError(
                f"routing policy {self.route_name} returned {worker!r} for request {request.id}, "
                "not a worker of this cluster"
            )
        source, cancelled = request.worker, self._cancelled.pop(request, None)
        reason = cancelled or worker.refusal(request)
        if source is worker and reason is None:
            worker.take_back(request)
            return True
        if source is not None:
            source.let_go(request)
            if request.kv_at is not worker:
                request.forget_computed()
            request.kv_at = None
        if reason is None:
            worker.enqueue(request)
        else:
            request.worker = worker
            self._give_up(request, reason, Status.FAILED if cancelled else Status.REJECTED)
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

    async def _fire(self, name: str, request: Request) -> None:
        if self.hooks.by_moment[name]:
            self.hooks.pending += 1
            await self.hooks.fire(Moment(name, request, now_ns()))

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
        left = [*self._routing]
        for worker in self.workers:
            left.extend(worker.close_books())
            worker.take_sample(end_ns)
        for request in left:
            request.status = Status.UNFINISHED
            request.reason = "the cluster stopped"
            request.phase = Phase.DONE
            self.records.finish(request)
            for listener in request.listeners or ():
                listener(request, end_ns)

    def __repr__(self) -> str:
        return f"<Cluster of {len(self.workers)} workers: {self.outstanding} requests outstanding>"
