"""Splitwise: a pool of workers that read prompts, one of those that generate, and a mixed one for what is too much.

New requests go to the least loaded worker of the group ``prefill``, or of ``mixed`` if that one's queue is too long and
the mixed one's is shorter. When a prompt is read on a prefill worker, its keys and values are sent to the least loaded
worker of the group ``decode``, or of ``mixed`` if that one's KV memory is too full. What a mixed worker reads it also
generates. Within a worker the schedule is that of ``vllm``.

Source: Patel et al., "Splitwise: Efficient Generative LLM Inference Using Phase Splitting", ISCA 2024, section 4.2.
There workers move between the pools, and queues are counted in tokens; here the pools are the scenario's groups.

Parameters:
    prefill: Name of the group of workers that read prompts.
    decode: Name of the group of workers that generate.
    mixed: Name of the group of workers that do both.
    longest_queue: Requests that a prefill worker may hold before the mixed pool is asked.
    fullest_kv: Share of a decode worker's KV blocks that may be held before the mixed pool is asked.
"""

from __future__ import annotations

from simloop.serving import Batch, Cluster, Request, Worker, load_policy

IGNORES = ("swap_space",)
DISAGGREGATED = load_policy("disaggregated", "schedule")


async def route(
    request: Request,
    cluster: Cluster,
    *,
    prefill: str = "prefill",
    decode: str = "decode",
    mixed: str = "mixed",
    longest_queue: int = 8,
    fullest_kv: float = 0.9,
) -> Worker:
    """Return a worker for a new request, or for one whose prompt is read now."""
    spare = cluster.least_loaded(mixed)
    if request.worker is None:
        worker = cluster.least_loaded(prefill)
        return spare if worker.load >= longest_queue and spare.load < worker.load else worker
    worker = cluster.least_loaded(decode)
    if worker.kv.usage > fullest_kv and spare.kv.usage < worker.kv.usage:
        worker = spare
    await cluster.send_kv(request, worker)
    return worker


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The schedule of ``disaggregated``: the prefill workers hand back whoever's prompt is read."""

    def __init__(self, prefill: str = "prefill") -> None:
        self.disaggregated = DISAGGREGATED.target(prefill)

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        batch: Batch = await self.disaggregated(worker)
        return batch
