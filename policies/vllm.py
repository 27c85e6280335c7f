"""Continuous batching with chunked prefill, as vLLM's V1 scheduler does it.

Running requests come first, in order of admission: everybody who decodes gets one token, a prompt that is partly read
gets what is left of the token budget. If KV blocks lack, the last admitted requests lose theirs and go back to the
front of the queue, to be computed again, and nobody is admitted in that iteration. Then waiting requests are admitted
first come, first served, as long as the budget, ``max_num_seqs`` and the KV memory allow; the first one that does not
fit stops the rest. What the prefix cache knows of a prompt is not computed again.

With ``scheduling_policy: priority`` the most urgent waiting request comes first, and the least urgent running one loses
its blocks. With ``version: "0.6"`` prompts come before decoding: whole prompts in an iteration of their own, and a
decoding request wants a free block even if it needs none. With ``preemption_mode: swap`` a preempted request's blocks
are copied to the host's memory (``swap_space``); prompts then wait until everybody who was swapped out is back.

Source: vLLM, ``vllm/v1/core/sched/scheduler.py`` and, for 0.6, ``vllm/core/scheduler.py`` (their behaviour);
Kwon et al., SOSP 2023; Agrawal et al., OSDI 2024.

Parameters:
    version: Engine to behave like: "0.19" (V1, and everything since) or "0.6" (V0 without chunked prefill).
    watermark: Share of the KV blocks that an admission must leave free; none in V1, 0.01 in 0.6.
    preemption_mode: What becomes of the KV blocks that a request loses: "recompute", or "swap" (0.6 only).
"""

from __future__ import annotations

from simloop.errors import InputError
from simloop.serving import Batch, KVBlocks, Phase, Request, Worker
from simloop.serving.admission import last_running
from simloop.serving.policy import check_number


class schedule:  # noqa: N801 - named after what it is, like the functions
    """The scheduling policy of one worker."""

    def __init__(
        self, version: str = "0.19", watermark: float | None = None, preemption_mode: str = "recompute"
    ) -> None:
        if str(version) not in ("0.6", "0.19"):
            raise InputError(f"found {version!r}, expected '0.6' or '0.19'", path="version")
        self.prompts_first = str(version) == "0.6"
        if preemption_mode not in ("recompute", "swap")[: 1 + self.prompts_first]:
            raise InputError(
                f"found {preemption_mode!r}, expected 'recompute', or 'swap' with 0.6", path="preemption_mode"
            )
        self.swaps = preemption_mode == "swap"
        spare = (0.01 if self.prompts_first else 0.0) if watermark is None else watermark
        self.watermark = check_number("watermark", spare, least=0, most=1)

    async def __call__(self, worker: Worker) -> Batch:
        """Return the next iteration of a worker: everybody who runs, then whoever fits."""
        if self.prompts_first:
            return self.v0(worker)
        if worker.paused:
            for request in list(worker.paused):
                worker.resume(request)
        chunks = next_chunks(worker) if worker.prefilling else {}
        tight = chunks or worker.decoding.blocks_needed > worker.kv.free
        preempted = make_room(worker, chunks) if tight else False
        batch = worker.batch()
        batch.add_decodes()
        for request, tokens in chunks.items():
            batch.add_prefill(request, tokens)
        if worker.waiting and not preempted:
            admit_waiting(worker, batch, self.watermark)
        return batch

    def v0(self, worker: Worker) -> Batch:
        """Whole prompts, or else one token for everybody."""
        batch = worker.batch()
        kv, engine, spare = worker.kv, worker.engine, int(self.watermark * worker.kv.total)
        while worker.waiting and len(worker.running) < engine.max_num_seqs and not worker.swapped:
            request = worker.waiting[0]
            tokens = request.to_prefill
            if batch.prefills and batch.num_tokens + tokens > engine.max_num_batched_tokens:
                break
            if kv.blocks_for(request.computed + tokens) > kv.free - (spare if worker.running else 0):
                break
            worker.admit(request)
            batch.add_prefill(request, request.to_prefill)
        if not batch:
            short = False
            while worker.decoding.size and kv.free < worker.decoding.blocks_needed + room_in_last(worker):
                short = True
                (worker.swap_out if self.swaps else worker.preempt)(last_running(worker))
            if worker.swapped and not short:
                swap_back(worker, spare)
            batch.add_decodes()
        return batch


def swap_back(worker: Worker, spare: int) -> None:
    """Swap requests in, in the order in which they went, as long as each finds its blocks and a free one."""
    for request in list(worker.swapped):
        others = worker.decoding
        wanted = request.blocks + (1 + spare if others else new_blocks(request, 1, worker.kv))
        if worker.kv.free - others.blocks_needed < wanted or len(others) >= worker.engine.max_num_seqs:
            break
        worker.swap_in(request)


def room_in_last(worker: Worker) -> int:
    """Return 1 where the last running request needs no new block: vLLM 0.6 wants a free one all the same."""
    return 1 - new_blocks(last_running(worker), 1, worker.kv)


def next_chunks(worker: Worker) -> dict[Request, int]:
    """Return how many prompt tokens each partly read prompt gets, in order of admission."""
    budget = worker.engine.max_num_batched_tokens - len(worker.decoding)
    wanted = {
        request: min(request.to_prefill, threshold(worker)) for request in worker.prefilling if request.to_prefill
    }
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
        if request.in_flight and request not in wanted:
            continue
        tokens = min(wanted.get(request, 1), budget)
        budget -= tokens
        if tokens and request in wanted:
            chunks[request] = tokens
        elif not tokens and request not in wanted:
            worker.pause(request)
    return chunks


def make_room(worker: Worker, chunks: dict[Request, int]) -> bool:
    """Preempt requests until the others have the blocks they need; say whether anybody was.

    Nobody is preempted for the next chunk of a prompt whose last one is still under way in a pipeline stage.
    """
    kv, needed, preempted = worker.kv, 0, False
    for request, tokens in chunks.items():
        needed += new_blocks(request, tokens, kv)
    for request in [request for request in reversed(chunks) if request.in_flight]:
        if worker.decoding.blocks_needed + needed > kv.free:
            needed -= new_blocks(request, chunks.pop(request), kv)
    while worker.decoding.blocks_needed + needed > kv.free:
        if worker.engine.scheduling_policy == "priority":
            make_room_by_urgency(worker, chunks)
            return True
        victim = last_running(worker)
        if victim in chunks:
            needed -= new_blocks(victim, chunks.pop(victim), kv)
        worker.preempt(victim)
        preempted = True
    return preempted


def make_room_by_urgency(worker: Worker, chunks: dict[Request, int]) -> None:
    """Walk the running requests in order of admission; who finds no block takes those of the least urgent one.

    Where that is the request itself, those behind it sit this iteration out. Tokens that a preempted request had been
    given go back to the budget.
    """
    for request in list(worker.paused):
        worker.resume(request)
    chunks.clear()
    in_order, kv = [request for request in worker.running if not request.in_flight], worker.kv
    given: dict[Request, int] = {}
    for place, request in enumerate(in_order):
        budget = worker.engine.max_num_batched_tokens - sum(given.values())
        tokens = min(request.to_prefill or 1, threshold(worker), budget)
        while tokens and request in worker.running:
            if (
                new_blocks(request, tokens, kv) + sum(new_blocks(*given_to, kv) for given_to in given.items())
                <= kv.free
            ):
                given[request] = tokens
                break
            victim = last_running(worker)
            worker.preempt(victim)
            given.pop(victim, None)
            if victim is request:
                tokens = 0
        if not tokens:
            sit_out([r for r in in_order[place:] if r in worker.running], worker)
            break
    chunks.update((request, tokens) for request, tokens in given.items() if request in worker.prefilling)


def sit_out(requests: list[Request], worker: Worker) -> None:
    """Leave requests out of this iteration."""
    for request in requests:
        if request.phase is Phase.DECODING:
            worker.pause(request)


def new_blocks(request: Request, tokens: int, kv: KVBlocks) -> int:
    """Return how many KV blocks so many more tokens of a running request take."""
    return max(0, kv.blocks_for(request.computed + tokens) - request.blocks)


def threshold(worker: Worker) -> int:
    """Return the most prompt tokens that one request may have in an iteration."""
    return worker.engine.long_prefill_token_threshold or worker.engine.max_num_batched_tokens


def admit_waiting(worker: Worker, batch: Batch, watermark: float) -> None:
    """Admit waiting requests, first come, first served, until one does not fit."""
    engine, kv = worker.engine, worker.kv
    while worker.waiting and len(worker.running) < engine.max_num_seqs:
        request = worker.waiting[0]
        cached, idle = kv.found(request)  # blocks in the prefix cache, and how many of them count as free now
        whole = request.computed + request.to_prefill
        left = request.to_prefill - cached * kv.block_size
        tokens = min(left, threshold(worker), engine.max_num_batched_tokens - batch.num_tokens)
        gate = whole if engine.scheduler_reserve_full_isl else whole - left + tokens
        spare = int(watermark * kv.total) if worker.running else 0
        if tokens <= 0 or kv.blocks_for(gate) - cached + idle > kv.free - spare:
            break
        worker.admit(request)
        batch.add_prefill(request, tokens)
