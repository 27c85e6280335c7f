"""Earliest deadline first: whoever must have the first token soonest is admitted next; nobody is interrupted for it.

A request's deadline is its arrival plus a target for its TTFT. Targets differ by the request's priority, or by the
length of its prompt; with one target for all it is first come, first served. Within the iterations the schedule is that
of ``vllm``; a request that lost its KV blocks goes on before anybody else begins. The queue is sorted when somebody has
joined it, so an iteration without arrivals costs what it costs in ``vllm``.

Source: Liu and Layland, "Scheduling Algorithms for Multiprogramming in a Hard-Real-Time Environment", JACM 20(1), 1973.

Parameters:
    ttft_s: Target of each priority in seconds, a list that begins with priority 0; its last entry is for all others.
    per_prompt_token_s: What each token of the prompt adds to the target, seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from simloop.errors import InputError
from simloop.serving import Batch, Request, Worker, load_policy
from simloop.serving.admission import keep_sorted
from simloop.serving.policy import check_number

IGNORES = ("scheduling_policy", "swap_space")
VLLM = load_policy("vllm", "schedule")


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker; remembers the last one in the sorted queue."""

    def __init__(self, ttft_s: Sequence[float] = (1.0, 10.0), per_prompt_token_s: float = 0.0) -> None:
        if not isinstance(ttft_s, list | tuple) or not ttft_s:
            raise InputError(f"found {ttft_s!r}, expected a list of seconds", path="ttft_s")
        self.ttft_s = [check_number(f"ttft_s[{index}]", found, least=0) for index, found in enumerate(ttft_s)]
        self.per_prompt_token_s = check_number("per_prompt_token_s", per_prompt_token_s, least=0)
        self.last: Request | None = None
        self.vllm = VLLM.make()

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        self.last = keep_sorted(worker, self.rank, self.last)
        batch: Batch = await self.vllm(worker)
        return batch

    def rank(self, request: Request) -> tuple[bool, float, int]:
        """Order requests: those that had begun, then the earliest deadline, then first come, first served."""
        target_s = self.ttft_s[min(max(request.priority, 0), len(self.ttft_s) - 1)]
        target_s += self.per_prompt_token_s * request.prompt_tokens
        return request.preemptions == 0, request.arrival_ns + 1e9 * target_s, request.id
