"""A slow, obvious scheduler: plain lists, every request and every token touched in every iteration.

The fast bookkeeping of `simloop.serving` with the bundled policies must give exactly the same times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Price = Callable[[list[tuple[int, int]], int, int, int, int], int]
"""chunks, number of decodes, their context, new tokens, sequences -> ns."""


@dataclass
class Ref:
    """One request, with everything about it in plain sight."""

    id: int
    arrival_ns: int
    prompt: int
    output: int
    computed: int = 0
    generated: int = 0
    blocks: int = 0
    preemptions: int = 0
    scheduled_ns: int = -1
    decoding: bool = False
    token_ns: list[int] = field(default_factory=list)

    @property
    def reached(self) -> int:
        return self.prompt + self.generated


@dataclass(kw_only=True)
class Setting:
    """What an engine is given."""

    max_num_seqs: int
    max_num_batched_tokens: int
    block_size: int
    total_blocks: int
    threshold: int = 0
    full_isl: bool = True
    watermark: float = 0.0

    def blocks_for(self, tokens: int) -> int:
        return (tokens + self.block_size - 1) // self.block_size


Step = list[tuple[Ref, int]]
Scheduler = Callable[[list[Ref], list[Ref], Setting, int], tuple[Step, bool]]
"""waiting, running, setting, now -> what runs, and whether the scheduler wants to be asked again at once."""


def run(requests: Sequence[Ref], setting: Setting, scheduler: Scheduler, price: Price) -> None:
    """Serve the requests; their fields hold the result."""
    now, todo = 0, list(requests)
    waiting: list[Ref] = []
    running: list[Ref] = []
    while todo or waiting or running:
        while todo and todo[0].arrival_ns <= now:
            waiting.append(todo.pop(0))
        step, again = scheduler(waiting, running, setting, now)
        if not step:
            if again:
                continue
            now = todo[0].arrival_ns
            continue
        now += _price(step, price)
        for request, tokens in step:
            request.computed += tokens
            if request.computed == request.reached:
                request.generated += 1
                request.decoding = True
                request.token_ns.append(now)
        for request in [r for r in running if r.generated == r.output]:
            running.remove(request)
            request.blocks = 0
        assert sum(r.blocks for r in running) <= setting.total_blocks


def _price(step: Step, price: Price) -> int:
    decodes = [r for r, _ in step if r.decoding]
    chunks = [(tokens, r.computed) for r, tokens in step if not r.decoding]
    context = sum(r.computed + 1 for r in decodes)
    return price(chunks, len(decodes), context, sum(tokens for _, tokens in step), len(step))


def _free(running: list[Ref], setting: Setting) -> int:
    return setting.total_blocks - sum(r.blocks for r in running)


def vllm(waiting: list[Ref], running: list[Ref], setting: Setting, now: int) -> tuple[Step, bool]:
    """vLLM V1, read from its description line by line."""
    budget, step, preempted = setting.max_num_batched_tokens, [], False
    index = 0
    while index < len(running) and budget > 0:
        request = running[index]
        tokens = min(request.reached - request.computed, setting.threshold or 10**9, budget)
        gone = False
        while True:
            need = setting.blocks_for(request.computed + tokens) - request.blocks
            if need <= _free(running, setting):
                request.blocks += need
                break
            victim = running.pop()
            victim.blocks, victim.computed, victim.decoding = 0, 0, False
            victim.preemptions += 1
            waiting.insert(0, victim)
            preempted = True
            if victim is request:
                gone = True
                break
        if gone:
            break
        step.append((request, tokens))
        budget -= tokens
        index += 1
    while waiting and not preempted and len(running) < setting.max_num_seqs and budget > 0:
        request = waiting[0]
        tokens = min(request.reached, setting.threshold or 10**9, budget)
        gate = request.reached if setting.full_isl else tokens
        spare = int(setting.watermark * setting.total_blocks) if running else 0
        if setting.blocks_for(gate) > _free(running, setting) - spare:
            break
        waiting.pop(0)
        request.blocks = setting.blocks_for(tokens)
        if request.scheduled_ns < 0:
            request.scheduled_ns = now
        running.append(request)
        step.append((request, tokens))
        budget -= tokens
    return step, preempted


def orca(waiting: list[Ref], running: list[Ref], setting: Setting, now: int) -> tuple[Step, bool]:
    """Whole prompts, everything reserved."""
    step: Step = [(r, 1) for r in running]
    while waiting and len(running) < setting.max_num_seqs:
        request = waiting[0]
        blocks = setting.blocks_for(request.prompt + request.output - 1)
        if blocks > _free(running, setting):
            break
        waiting.pop(0)
        request.blocks, request.scheduled_ns = blocks, now
        running.append(request)
        step.append((request, request.prompt))
    return step, False
