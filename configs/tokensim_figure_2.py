"""The functions that figure 2 of the TokenSim paper names, for ``tokensim-figure-2.yaml``.

The paper says where each is called; of ``put_kv`` and ``get_kv`` it says what they do, of the others their names.
"""

from __future__ import annotations

import logging
from itertools import count

from simloop.serving import Cluster, Moment, OperatorMoment, Phase, Request, Worker

LOG = logging.getLogger("tokensim")  # silent, unless a program of yours sets it up


class RoundRobin:
    """``scatter`` new requests over the workers that prefill, and ``transmit`` the others over those that decode."""

    def __init__(self, scatter: str = "prefill", transmit: str = "decode") -> None:
        self.turns = {scatter: count(), transmit: count()}
        self.scatter, self.transmit = scatter, transmit

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return the worker whose turn it is."""
        group = self.scatter if request.worker is None else self.transmit
        workers = [worker for worker in cluster.workers if worker.group == group]
        return workers[next(self.turns[group]) % len(workers)]


async def record(moment: Moment) -> None:
    """A request has arrived (``on_arrive``)."""
    LOG.debug("%d: request %d arrives", moment.time_ns, moment.request.id)


async def put_kv(moment: Moment) -> None:
    """A prompt is read (``on_first_fin``): back to the global scheduler with it."""
    if moment.worker is not None and moment.request.phase is Phase.DECODING:
        moment.worker.hand_back(moment.request)


async def get_kv(moment: Moment) -> None:
    """A worker that decodes was chosen (``on_st``): send it the keys and values."""
    if moment.worker is not None:
        await moment.cluster.send_kv(moment.request, moment.worker)


async def submit(moment: Moment) -> None:
    """A request has ended (``on_finish``)."""
    LOG.debug("%d: request %d ends", moment.time_ns, moment.request.id)


async def log(moment: OperatorMoment) -> None:
    """An operator has ended (``hook_after``)."""
    LOG.debug("%d: %s ends on %s", moment.time_ns, moment.operator, moment.worker.name)
