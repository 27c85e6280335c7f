"""Prefill on some workers, decode on others, the KV cache over the network in between.

New requests go to the least loaded worker of the group ``prefill``. With the iteration that reads the last of a prompt
its worker hands the request back, and it is routed again: its keys and values are sent to the least loaded worker of
the group ``decode``, while both go on computing; whole, by layer or by block, as the scenario's ``network`` says.
Within a worker the schedule is that of ``vllm``.

Source: Zhong et al., "DistServe", OSDI 2024; Patel et al., "Splitwise", ISCA 2024.

Parameters:
    prefill: Name of the group of workers that read prompts.
    decode: Name of the group of workers that generate.
"""

from __future__ import annotations

from simloop.serving import Batch, Cluster, Request, Worker, load_policy

IGNORES = ("swap_space",)
VLLM = load_policy("vllm", "schedule")


async def route(request: Request, cluster: Cluster, *, prefill: str = "prefill", decode: str = "decode") -> Worker:
    """Return a worker for a new request, or for one whose prompt is read now."""
    if request.worker is None:
        return cluster.least_loaded(prefill)
    worker = cluster.least_loaded(decode)
    await cluster.send_kv(request, worker)
    return worker


class schedule:  # noqa: N801 - named after what it is, like the functions
    """vLLM's schedule; the prefill workers hand back whoever's prompt it completes."""

    def __init__(self, prefill: str = "prefill") -> None:
        self.prefill = prefill
        self.vllm = VLLM.make()

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        batch: Batch = await self.vllm(worker)
        if worker.group == self.prefill:
            for request in batch.completing:
                worker.hand_back(request)
        return batch
