"""Fair shares between tenants by virtual token counters: who has been served least is admitted next.

A tenant is a session. Its counter grows by the weighted tokens of the prompts that are admitted and of the output that
is generated for it; of the tenants with waiting requests the one with the lowest counter goes first. Who comes back
after a pause is lifted to the lowest counter in the queue, so that nobody saves up by being idle. Within the iterations
the schedule is that of ``vllm``; a request that lost its KV blocks goes on before anybody else begins, and pays once.

An iteration costs what it costs in ``vllm`` while nobody waits or every seat is taken, otherwise a walk over the queue
and over the running requests. Counters are brought up to date when somebody is to be chosen; each worker has its own.

Source: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, algorithm 2.

Parameters:
    prompt_weight: What a prompt token adds to the counter.
    output_weight: What an output token adds to the counter.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush
from typing import Any

from simloop.serving import Batch, Phase, Request, Worker, load_policy
from simloop.serving.policy import check_number

IGNORES = ("scheduling_policy", "swap_space")
VLLM = load_policy("vllm", "schedule")


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker, and its counters."""

    def __init__(self, prompt_weight: float = 1.0, output_weight: float = 2.0) -> None:
        self.prompt_weight = check_number("prompt_weight", prompt_weight, least=0)
        self.output_weight = check_number("output_weight", output_weight, least=0)
        self.counter: dict[Any, float] = {}
        self.paid: dict[Request, int] = {}  # output tokens that are in the counters
        self.queued: set[Any] = set()  # tenants with waiting requests
        self.last: Any = None  # the tenant that was admitted last
        self.vllm = VLLM.make()

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        chosen: list[Request] = []
        if worker.waiting and len(worker.running) < worker.engine.max_num_seqs:
            self.settle()
            self.lift(worker)
            chosen = self.choose(worker)
        batch: Batch = await self.vllm(worker)
        for request in chosen:
            if request.phase is not Phase.WAITING and request not in self.paid:
                self.paid[request], self.last = 0, request.session
                self.counter[request.session] += self.prompt_weight * request.prompt_tokens
        if chosen or not worker.waiting:
            self.queued = {request.session for request in worker.waiting}
        return batch

    def settle(self) -> None:
        """Count the output since the last time."""
        for request, paid in list(self.paid.items()):
            self.counter[request.session] += self.output_weight * (request.generated - paid)
            self.paid[request] = request.generated
            if request.phase is Phase.DONE:
                del self.paid[request]

    def lift(self, worker: Worker) -> None:
        """Let tenants that come into the queue start from the lowest counter there, or from the last that left it."""
        for tenant in dict.fromkeys(request.session for request in worker.waiting):
            if tenant not in self.queued:
                floor = min((self.counter[other] for other in self.queued), default=self.counter.get(self.last, 0.0))
                self.counter[tenant] = max(self.counter.get(tenant, 0.0), floor)
                self.queued.add(tenant)

    def choose(self, worker: Worker) -> list[Request]:
        """Put those first in the queue that should be admitted next, as many as there are seats; return them."""
        begun = [request for request in worker.waiting if request in self.paid]
        queues: dict[Any, deque[Request]] = {}
        for request in worker.waiting:
            if request not in self.paid:
                queues.setdefault(request.session, deque()).append(request)
        order = [(self.counter[tenant], queue[0].id, tenant) for tenant, queue in queues.items()]
        heapify(order)
        chosen, seats = begun, worker.engine.max_num_seqs - len(worker.running)
        while order and len(chosen) < seats:
            counter, _, tenant = heappop(order)
            request = queues[tenant].popleft()
            chosen.append(request)
            if queues[tenant]:
                counter += self.prompt_weight * request.prompt_tokens
                heappush(order, (counter, queues[tenant][0].id, tenant))
        left = sorted((request for queue in queues.values() for request in queue), key=lambda request: request.id)
        worker.waiting.clear()
        worker.waiting.extend([*chosen, *left])
        return chosen
