"""The two schedulers of figure 3 of the TokenSim paper: prompts here, tokens there, at random.

``schedule_local`` of a worker that reads prompts submits the requests that have their first token to the global
scheduler; ``schedule_global`` gives new requests to a random worker that runs prefill, and submitted ones to a random
worker that runs decode. The figure is pseudo-code. Here a worker is asked for its next batch, and the global scheduler
for one request at a time; the transfer of the KV, which the paper hangs onto ``on_first_fin`` and ``on_st``, is a line
of it.

Source: "TokenSim: Enabling Hardware and Software Exploration for Large Language Model Inference Systems", figure 3,
arXiv 2503.08415.

Parameters:
    run_prefill: Names of the groups that read prompts.
    run_decode: Names of the groups that generate.
"""

from __future__ import annotations

from collections.abc import Sequence

from simloop.clock import rng
from simloop.serving import Batch, Cluster, Request, Worker, load_policy

CONTINUOUS = load_policy("vllm", "schedule")


class schedule:  # noqa: N801 - figure 3: schedule_local(worker, running_reqs, dispatch_reqs) -> dispatch_reqs
    """Continuous batching; who has one token more than its prompt is submitted to the global scheduler."""

    def __init__(self, run_prefill: Sequence[str] = ("prefill",)) -> None:
        self.run_prefill = run_prefill
        self.continuous = CONTINUOUS.make()

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        dispatch_reqs: Batch = await self.continuous(worker)
        if worker.group in self.run_prefill:
            for request in dispatch_reqs.completing:  # len(tokens) == len(prompt) + 1, once this batch has run
                worker.hand_back(request)  # submit_global
        return dispatch_reqs


async def route(  # figure 3: schedule_global(workers, new_reqs) -> {worker_id: [request]}
    request: Request,
    cluster: Cluster,
    *,
    run_prefill: Sequence[str] = ("prefill",),
    run_decode: Sequence[str] = ("decode",),
) -> Worker:
    """Return a random worker of those that may take the request; send it the KV of one that was submitted."""
    is_new = request.worker is None
    groups = run_prefill if is_new else run_decode
    worker = rng("tokensim_figure_3").choice([worker for worker in cluster.workers if worker.group in groups])
    if not is_new:
        await cluster.send_kv(request, worker)
    return worker
