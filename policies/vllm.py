"""Continuous batching with chunked prefill, as vLLM's V1 scheduler does it.

Running requests come first, in order of admission: everybody who decodes gets one token, a prompt that is partly read
gets what is left of the token budget. If KV blocks lack, the last admitted requests lose theirs and go back to the
front of the queue, to be computed again, and nobody is admitted in that iteration. Then waiting requests are admitted
first come, first served, as long as the budget, ``max_num_seqs`` and the KV memory allow; the first one that does not
fit stops the rest. What the prefix cache knows of a prompt is not computed again.

Source: vLLM, ``vllm/v1/core/sched/scheduler.py`` (its behaviour); Kwon et al., SOSP 2023; Agrawal et al., OSDI 2024.

Parameters:
    watermark: Share of the KV blocks that an admission must leave free (vLLM V0 used 0.01, V1 uses none).
"""

from __future__ import annotations

from simloop.serving import Batch, Request, Worker


async def schedule(worker: Worker, *, watermark: float = 0.0) -> Batch:
    """Return the next iteration of a worker."""
    if worker.paused:
        for request in list(worker.paused):
            worker.resume(request)
    chunks = next_chunks(worker) if worker.prefilling else {}
    preempted = make_room(worker, chunks)
    batch = worker.batch()
    batch.add_decodes()
    for request, tokens in chunks.items():
        batch.add_prefill(request, tokens)
    if worker.waiting and not preempted:
        admit_waiting(worker, batch, watermark)
    return batch


def next_chunks(worker: Worker) -> dict[Request, int]:
    """Return how many prompt tokens each partly read prompt gets, in order of admission."""
    budget = worker.engine.max_num_batched_tokens - len(worker.decoding)
    wanted = {request: min(request.to_prefill, threshold(worker)) for request in worker.prefilling}
    if sum(wanted.values()) <= budget:
        return wanted
    last = next(reversed(worker.running))
    if last in wanted and len(wanted) == 1:  # nobody stands behind it
        return {last: budget} if budget else {}
    return chunks_in_order(worker, wanted)


def chunks_in_order(worker: Worker, wanted: dict[Request, int]) -> dict[Request, int]:
    """Walk everybody in order of admission: who comes after the end of the token budget sits this iteration out."""
    budget, chunks = worker.engine.max_num_batched_tokens, {}
    for request in worker.running:
        tokens = min(wanted.get(request, 1), budget)
        budget -= tokens
        if tokens and request in wanted:
            chunks[request] = tokens
        elif not tokens and request not in wanted:
            worker.pause(request)
    return chunks


def make_room(worker: Worker, chunks: dict[Request, int]) -> bool:
    """Preempt the last admitted requests until the others have the blocks they need; say whether anybody was."""
    kv, needed, preempted = worker.kv, 0, False
    for request, tokens in chunks.items():
        needed += max(0, kv.blocks_for(request.computed + tokens) - request.blocks)
    while worker.decoding.blocks_needed + needed > kv.free:
        victim = next(reversed(worker.running))
        if victim in chunks:
            needed -= max(0, kv.blocks_for(victim.computed + chunks.pop(victim)) - victim.blocks)
        worker.preempt(victim)
        preempted = True
    return preempted


def threshold(worker: Worker) -> int:
    """Return the most prompt tokens that one request may have in an iteration."""
    return worker.engine.long_prefill_token_threshold or worker.engine.max_num_batched_tokens


def admit_waiting(worker: Worker, batch: Batch, watermark: float) -> None:
    """Admit waiting requests, first come, first served, until one does not fit."""
    engine, kv = worker.engine, worker.kv
    while worker.waiting and len(worker.running) < engine.max_num_seqs:
        request = worker.waiting[0]
        cached, idle = kv.found(request)  # blocks in the prefix cache, and how many of them count as free now
        left = request.to_prefill - cached * kv.block_size
        tokens = min(left, threshold(worker), engine.max_num_batched_tokens - batch.num_tokens)
        gate = request.to_prefill if engine.scheduler_reserve_full_isl else request.to_prefill - left + tokens
        spare = int(watermark * kv.total) if worker.running else 0
        if tokens <= 0 or kv.blocks_for(gate) - cached + idle > kv.free - spare:
            break
        worker.admit(request)
        batch.add_prefill(request, tokens)
