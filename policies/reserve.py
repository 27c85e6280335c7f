"""TokenSim's "max memory ratio": new requests may fill only so much of the KV memory; the rest is for those who run.

A waiting request is admitted only while it leaves the share ``1 - ratio`` of the KV blocks free (unless nobody runs),
so that the outputs of the others have room to grow: fewer preemptions for a smaller batch. Otherwise the schedule is
that of ``vllm``, at its cost.

Source: Wu et al., "TokenSim: Enabling Hardware and Software Exploration for Large Language Model Inference Systems",
2025, the parameter that limits the memory for new requests.

Parameters:
    ratio: Share of the KV blocks that may be held once a new request is in, 0 to 1; 1 is ``vllm``.
"""

from __future__ import annotations

from simloop.serving import Batch, Worker, load_policy
from simloop.serving.policy import check_number

IGNORES = ("swap_space",)
VLLM = load_policy("vllm", "schedule")


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker."""

    def __init__(self, ratio: float = 0.8) -> None:
        self.vllm = VLLM.target(watermark=1 - check_number("ratio", ratio, least=0, most=1))

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        batch: Batch = await self.vllm(worker)
        return batch
