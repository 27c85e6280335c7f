"""What a router outside of the engines sees: metrics that are sampled, delayed and sometimes lost.

Policies of a simulation may look at the workers as they are now. A real router asks every engine for its metrics from
time to time. With :class:`Signals` a routing policy gets a cluster whose workers show what was last heard of them; the
policy itself does not change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import attrs

from simloop.clock import Event, alone, now_ns, rng, sleep_until_ns
from simloop.serving.observed import ObservedCluster, ObservedWorker
from simloop.serving.snapshot import Snapshot

if TYPE_CHECKING:
    from simloop.serving.cluster import Cluster, RoutePolicy
    from simloop.serving.request import Request
    from simloop.serving.worker import Worker

__all__ = ["Signals"]


@attrs.define(eq=False)
class Signals:
    """How a router hears of its workers.

    All workers are asked at the start of a run and every ``interval_ns`` after. An answer is what the worker was when
    it was asked; it is seen from ``delay_ns`` later on, unless it is lost. Until the first one a worker looks idle.

    Attributes:
        interval_ns: Time from one question to the next.
        delay_ns: Time from a question until the answer counts.
        loss: Chance of an answer to be lost, from the run's stream ``signals``.
        own_requests: Whether what the router has sent to a worker since, and the answer cannot know, is added to what
            the worker holds.
        requests: Whether an answer has the worker's requests, and not just how many there are.
    """

    interval_ns: int
    delay_ns: int = 0
    loss: float = 0.0
    own_requests: bool = False
    requests: bool = False
    _view: ObservedCluster | None = None

    def through(self, route: Callable[[Request, Any], Awaitable[Any]]) -> RoutePolicy:
        """Return a routing policy that sees the cluster as the signals show it, and is otherwise ``route``."""

        async def routed(request: Request, cluster: Cluster) -> Worker:
            seen = await route(request, self.view(cluster))
            worker: Worker = seen.take(request) if isinstance(seen, ObservedWorker) else seen
            if request.kv_at is seen:  # the policy has its own way to send the keys and values
                request.kv_at = worker
            return worker  # whatever it is: the cluster says what is wrong with it

        return routed

    def view(self, cluster: Cluster) -> ObservedCluster:
        """Return the cluster as it is seen: always the same object, which shows what has been heard by then."""
        if self._view is None:
            self._view = ObservedCluster(cluster, own_requests=self.own_requests)
        return self._view

    async def run(self, cluster: Cluster) -> None:
        """Ask for ever; but not when nothing else is going to happen, which is a deadlock and reported as one."""
        view, next_ns = self.view(cluster), now_ns()
        while not alone():
            view.expect(now_ns() + self.delay_ns, [self._ask(worker) for worker in view.workers])
            next_ns += self.interval_ns
            await sleep_until_ns(next_ns)
        await Event("anything to happen, to ask for metrics again").wait()

    def _ask(self, worker: ObservedWorker) -> Snapshot | None:
        lost = self.loss > 0 and rng("signals").random() < self.loss
        return None if lost else worker.snapshot(requests=self.requests)
