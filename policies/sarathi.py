"""Stall-free batching: everybody who decodes, then prompt chunks up to a token budget.

Every iteration gives one token to each decoding request, whatever the budget; what is left of it goes to the prompt
that is partly read, then to waiting requests, first come, first served. A request is admitted when its whole prompt
fits into the free KV blocks. When decoding lacks blocks, the last admitted requests lose theirs and are computed again.
The budget bounds the time between two tokens; that is what tells it from ``vllm`` with a large one. A decode-only
iteration costs the same whatever the batch size.

Source: Agrawal et al., "Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve", OSDI 2024,
algorithm 3.

Parameters:
    budget: Most tokens of an iteration that holds prompt chunks (the paper: 512 for strict, 2048 for relaxed SLOs).
"""

from __future__ import annotations

from simloop.serving import Batch, Worker
from simloop.serving.admission import last_running
from simloop.serving.policy import check_number

IGNORES = (
    "max_num_batched_tokens",
    "long_prefill_token_threshold",
    "scheduler_reserve_full_isl",
    "scheduling_policy",
    "swap_space",
)


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker."""

    def __init__(self, budget: int = 512) -> None:
        self.budget = int(check_number("budget", budget, least=1))

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        preempted = False
        while worker.decoding.blocks_needed > worker.kv.free:
            worker.preempt(last_running(worker))
            preempted = True
        batch = worker.batch()
        batch.add_decodes()
        if self.read_on(worker, batch) and not preempted:
            self.admit_waiting(worker, batch)
        return batch

    def read_on(self, worker: Worker, batch: Batch) -> bool:
        """Go on with the prompt that is partly read, never more than one; say whether it is read to its end now."""
        for request in worker.prefilling:
            room = (worker.kv.free + request.blocks) * worker.kv.block_size - request.computed
            tokens = min(request.to_prefill, self.budget - batch.num_tokens, room)
            if tokens > 0:
                batch.add_prefill(request, tokens)
            if tokens < request.to_prefill:
                return False
        return True

    def admit_waiting(self, worker: Worker, batch: Batch) -> None:
        """Begin with new prompts, first come, first served, until the budget is spent or one does not fit."""
        kv = worker.kv
        while worker.waiting and len(worker.running) < worker.engine.max_num_seqs and batch.num_tokens < self.budget:
            request = worker.waiting[0]
            cached, idle = kv.found(request)  # blocks in the prefix cache, and how many of them count as free now
            if kv.blocks_for(request.computed + request.to_prefill) - cached + idle > kv.free:
                break
            worker.admit(request)
            batch.add_prefill(request, min(request.to_prefill, self.budget - batch.num_tokens))
