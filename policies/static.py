"""Static batching: collect a batch, pad it, run it to its end, and only then take the next.

A batch starts when ``max_num_seqs`` requests wait, or when the first of them has waited for ``batch_delay_s``. Prompts
are padded to the longest; a request that is done keeps its slot until the longest output is there. KV memory for prompt
and output is reserved, so nobody is ever preempted.

Parameters:
    batch_delay_s: Longest time that the first request of a batch waits for others, seconds.
"""

from __future__ import annotations

import anyio

from simloop.clock import now
from simloop.serving import Batch, Worker
from simloop.serving.admission import admit_whole
from simloop.serving.policy import check_number

IGNORES = (
    *("max_num_batched_tokens", "long_prefill_token_threshold", "scheduler_reserve_full_isl"),
    *("pipeline_parallel_size", "swap_space"),
)


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker; remembers the size and the longest prompt of the batch that runs."""

    def __init__(self, batch_delay_s: float = 0.0) -> None:
        self.batch_delay_s = check_number("batch_delay_s", batch_delay_s, least=0, most=1e9)
        self.slots = 0
        self.longest = 0
        self.steps = 0

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker."""
        if not worker.running:
            await self.collect(worker)
            return worker.batch() if worker.running else self.start(worker)
        batch = worker.batch()
        batch.add_decodes()
        if len(worker.decoding) > self.slots:  # who was handed back has come back, and nobody else is left
            self.slots, self.longest, self.steps = len(worker.decoding), batch.decode_context_max, -1
        self.steps += 1
        batch.pad_decodes(self.slots, self.longest + self.steps)
        return batch

    async def collect(self, worker: Worker) -> None:
        """Wait until the batch is full, or its first request has waited long enough."""
        # Nobody waits: other ranks may have work meanwhile. Somebody runs: a request was handed back and came again.
        while 0 < len(worker.waiting) < worker.engine.max_num_seqs and not worker.running:
            deadline = worker.waiting[0].arrival_ns / 1e9 + self.batch_delay_s
            if deadline <= now():
                return
            with anyio.move_on_after(deadline - now()):
                await worker.changed()

    def start(self, worker: Worker) -> Batch:
        """Admit the batch and read its prompts."""
        batch = worker.batch()
        admit_whole(worker, batch)
        self.slots = len(batch.prefills)
        self.longest = max((request.prompt_tokens for request, _ in batch.prefills), default=0)
        self.steps = 0
        batch.pad_prefills(self.longest)
        return batch
