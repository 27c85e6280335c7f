"""Shortest job first: whoever has the shortest prompt, output or both is admitted next; nobody is interrupted for it.

Within the iterations the schedule is that of ``vllm``; a request that lost its KV blocks goes on before anybody else
begins. Output lengths are taken as known. The queue is sorted when somebody has joined it, so an iteration without
arrivals costs what it costs in ``vllm``.

Source: Smith, "Various optimizers for single-stage production", 1956; for LLMs Fu et al., "Efficient LLM Scheduling by
Learning to Rank", NeurIPS 2024.

Parameters:
    by: What is short: "prompt", "output" or "total".
"""

from __future__ import annotations

from simloop.errors import InputError
from simloop.serving import Batch, Request, Worker, load_policy
from simloop.serving.admission import keep_sorted

IGNORES = ("scheduling_policy", "swap_space")
VLLM = load_policy("vllm", "schedule")
LENGTHS = {"prompt": "prompt_tokens", "output": "output_tokens", "total": "total_tokens"}


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker; remembers the last one in the sorted queue."""

    def __init__(self, by: str = "prompt") -> None:
        if by not in LENGTHS:
            raise InputError(f"found {by!r}, expected one of {', '.join(LENGTHS)}", path="by")
        self.length = LENGTHS[by]
        self.last: Request | None = None
        self.vllm = VLLM.make()

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        self.last = keep_sorted(worker, self.rank, self.last)
        batch: Batch = await self.vllm(worker)
        return batch

    def rank(self, request: Request) -> tuple[bool, int, int]:
        """Order requests: those that had begun, then the shortest, then first come, first served."""
        return request.preemptions == 0, getattr(request, self.length), request.id
