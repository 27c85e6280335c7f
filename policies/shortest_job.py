"""Routing to the worker with the least work left, in tokens; of equals the first.

The work left is what the requests of a worker have still to read and to generate. It takes output lengths as known;
with ``output_weight: 0`` only prompts count, which a real router knows. Costs a walk over all outstanding requests.

Source: "least work left" dispatching, Harchol-Balter, "Performance Modeling and Design of Computer Systems", 2013.

Parameters:
    output_weight: How many tokens to read count as much as one token to generate.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from simloop.serving import Cluster, Request, Worker
from simloop.serving.policy import check_number


class route:  # noqa: N801 - named after what it is, like the functions
    """The weight."""

    def __init__(self, output_weight: float = 1.0) -> None:
        self.output_weight = check_number("output_weight", output_weight, least=0)

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return the worker with the least work left."""
        return min(cluster.workers, key=self.work)

    def work(self, worker: Worker) -> float:
        """Return the weighted tokens that a worker has still to do."""
        held: Iterable[Request] = chain(worker.arriving, worker.inbox, worker.waiting, worker.running)
        return sum(r.to_prefill + self.output_weight * (r.output_tokens - r.generated) for r in held)
