"""A slow, obvious scheduler: plain lists, every request and every token touched in every iteration.

The fast bookkeeping of `simloop.serving` with the bundled policies must give exactly the same times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Price = Callable[[list[tuple[int, int]], int, int, int, int], int]
"""chunks, number of decodes, their context, new tokens, sequences -> ns."""


@dataclass(eq=False)
class Ref:
    """One request, with everything about it in plain sight."""

    id: int
    arrival_ns: int
    prompt: int
    output: int
    computed: int = 0
    generated: int = 0
    hashes: tuple[int, ...] = ()
    priority: int = 0
    table: list[int] = field(default_factory=list)
    preemptions: int = 0
    flights: int = 0
    swaps: int = 0
    scheduled_ns: int = -1
    cached_tokens: int = 0
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
    by_priority: bool = False
    swap: bool = False
    copy_ns: int = 1000
    latency_ns: int = 5000

    def blocks_for(self, tokens: int) -> int:
        return (tokens + self.block_size - 1) // self.block_size


@dataclass
class Pool:
    """Physical blocks by number: who is free, in which order, and what each was filled with."""

    free: list[int]
    hash_of: dict[int, int] = field(default_factory=dict)
    known: dict[int, list[int]] = field(default_factory=dict)
    users: dict[int, int] = field(default_factory=dict)
    swapped: list[Ref] = field(default_factory=list)
    copied: dict[str, int] = field(default_factory=dict)

    def take(self) -> int:
        """Take the oldest free block and forget what it held."""
        block = self.free.pop(0)
        if block in self.hash_of:
            key = self.hash_of.pop(block)
            self.known[key].remove(block)
        self.users[block] = 1
        return block

    def give_back(self, table: list[int]) -> None:
        """Free a request's blocks, its last one first."""
        for block in reversed(table):
            self.users[block] -= 1
            if self.users[block] == 0:
                self.free.append(block)

    def forget(self, table: list[int]) -> None:
        """Forget what blocks were to hold."""
        for block in table:
            if block in self.hash_of:
                self.known[self.hash_of.pop(block)].remove(block)

    def share(self, block: int) -> None:
        """Hold a block that is known already."""
        if self.users[block] == 0:
            self.free.remove(block)
        self.users[block] += 1

    def name(self, block: int, key: int) -> None:
        """Remember what a full block holds."""
        if block not in self.hash_of:
            self.hash_of[block] = key
            self.known.setdefault(key, []).append(block)


Step = list[tuple[Ref, int]]
Scheduler = Callable[[list[Ref], list[Ref], Setting, Pool, int], tuple[Step, bool]]
"""waiting, running, setting, blocks, now -> what runs, and whether the scheduler wants to be asked again at once."""


def run(requests: Sequence[Ref], setting: Setting, scheduler: Scheduler, price: Price) -> None:
    """Serve the requests; their fields hold the result."""
    now, todo, pool = 0, list(requests), Pool(list(range(setting.total_blocks)))
    waiting: list[Ref] = []
    running: list[Ref] = []
    while todo or waiting or running or pool.swapped:
        while todo and todo[0].arrival_ns <= now:
            waiting.append(todo.pop(0))
        step, again = scheduler(waiting, running, setting, pool, now)
        if not step:
            if again:
                continue
            now = todo[0].arrival_ns
            continue
        now += _price(step, price)
        now += sum(setting.latency_ns + blocks * setting.copy_ns for blocks in pool.copied.values())
        pool.copied.clear()
        for request, tokens in step:
            request.computed += tokens
            if request.computed == request.reached:
                request.generated += 1
                request.token_ns.append(now)
        for request in [r for r in running if r.generated == r.output]:
            running.remove(request)
            pool.give_back(request.table)
            request.table = []
        held = {block for r in running for block in r.table}
        assert len(held) + len(pool.free) == setting.total_blocks
        assert not held & set(pool.free)


StagePrice = Callable[[int, int, int], int]
"""price of the whole step, its tokens, stage -> ns that the stage works on it and sends it."""


def run_stages(
    requests: Sequence[Ref], setting: Setting, scheduler: Scheduler, price: Price, stages: int, stage_price: StagePrice
) -> None:
    """Serve the requests in pipeline stages; their fields hold the result."""
    now, todo, pool = 0, list(requests), Pool(list(range(setting.total_blocks)))
    waiting: list[Ref] = []
    running: list[Ref] = []
    flights: list[tuple[int, list[Ref], list[Ref]]] = []  # end, everybody in it, whoever gets a token
    free_at = [0] * stages
    while todo or waiting or running:
        while todo and todo[0].arrival_ns <= now:
            waiting.append(todo.pop(0))
        step, again = scheduler(waiting, running, setting, pool, now) if len(flights) < stages else ([], False)
        if step:
            whole, moment = _price(step, price), now
            for stage in range(stages):
                moment = max(moment, free_at[stage]) + stage_price(whole, sum(n for _, n in step), stage)
                free_at[stage] = moment
            for request, tokens in step:
                request.computed += tokens
                request.flights += 1
            flights.append((moment, [r for r, _ in step], [r for r, _ in step if r.computed == r.reached]))
        elif flights:
            now, everybody, given = flights.pop(0)
            for request in everybody:
                request.flights -= 1
            for request in given:
                request.generated += 1
                request.token_ns.append(now)
            for request in [r for r in running if r.generated == r.output]:
                running.remove(request)
                pool.give_back(request.table)
                request.table = []
        elif not again:
            now = todo[0].arrival_ns
        held = {block for r in running for block in r.table}
        assert len(held) + len(pool.free) == setting.total_blocks
        assert not held & set(pool.free)


def _crowded_out(running: list[Ref], setting: Setting, pool: Pool) -> set[Ref]:
    """Return who gets no next chunk while the last one is in a micro-batch, because others lack blocks."""
    budget, wanted = setting.max_num_batched_tokens, {}
    for request in running:
        wanted[request] = min(request.reached - request.computed, setting.threshold or 10**9, budget)
        budget -= wanted[request]
    skipped: set[Ref] = set()

    def needed() -> int:
        some = [(r, n) for r, n in wanted.items() if n and r not in skipped]
        return sum(max(0, setting.blocks_for(r.computed + n) - len(r.table)) for r, n in some)

    for request in reversed([r for r, n in wanted.items() if n and r.flights]):
        if needed() > len(pool.free):
            skipped.add(request)
    return skipped


def _price(step: Step, price: Price) -> int:
    decodes = [r for r, tokens in step if tokens == 1]
    chunks = [(tokens, r.computed) for r, tokens in step if tokens > 1]
    context = sum(r.computed + 1 for r in decodes)
    return price(chunks, len(decodes), context, sum(tokens for _, tokens in step), len(step))


def _grow(request: Ref, tokens: int, setting: Setting, pool: Pool) -> bool:
    """Give a request the blocks for so many tokens, if there are enough; name those that are full."""
    need = setting.blocks_for(tokens) - len(request.table)
    if need > len(pool.free):
        return False
    request.table.extend(pool.take() for _ in range(need))
    for block, key in zip(request.table[: tokens // setting.block_size], request.hashes, strict=False):
        pool.name(block, key)
    return True


def _found(request: Ref, setting: Setting, pool: Pool) -> list[int]:
    """Return the known blocks of the longest prefix of a request, which may not be all of it."""
    found: list[int] = []
    for key in request.hashes[: (request.reached - 1) // setting.block_size]:
        blocks = pool.known.get(key)
        if not blocks:
            break
        found.append(blocks[0])
    return found


def _urgency(request: Ref) -> tuple[int, int, int]:
    return request.priority, request.arrival_ns, request.id


def vllm(waiting: list[Ref], running: list[Ref], setting: Setting, pool: Pool, now: int) -> tuple[Step, bool]:
    """vLLM V1, read from its description line by line."""
    budget, preempted = setting.max_num_batched_tokens, False
    step: Step = []
    index = 0
    skipped = _crowded_out(running, setting, pool)
    while index < len(running) and budget > 0:
        request = running[index]
        tokens = min(request.reached - request.computed, setting.threshold or 10**9, budget)
        if tokens == 0 or request in skipped:  # all of it, or a chunk before this one, is in a micro-batch
            budget -= tokens
            index += 1
            continue
        gone = False
        while not _grow(request, request.computed + tokens, setting, pool):
            at_hand = [r for r in running if not r.flights]
            victim = max(at_hand, key=_urgency) if setting.by_priority else at_hand[-1]
            running.remove(victim)
            if any(r is victim for r, _ in step):
                budget += sum(n for r, n in step if r is victim)
                step = [(r, n) for r, n in step if r is not victim]
                index -= 1
                pool.forget(victim.table[victim.computed // setting.block_size :])  # they will not be computed
            pool.give_back(victim.table)
            victim.table, victim.computed = [], 0
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
    budget = setting.max_num_batched_tokens - sum(tokens for _, tokens in step)
    while waiting and not preempted and len(running) < setting.max_num_seqs and budget > 0:
        request = min(waiting, key=_urgency) if setting.by_priority else waiting[0]
        found = _found(request, setting, pool)
        cached = len(found) * setting.block_size
        tokens = min(request.reached - cached, setting.threshold or 10**9, budget)
        gate = request.reached if setting.full_isl else cached + tokens
        idle = sum(pool.users[block] == 0 for block in found)
        spare = int(setting.watermark * setting.total_blocks) if running else 0
        if setting.blocks_for(gate) - len(found) + idle > len(pool.free) - spare:
            break
        waiting.remove(request)
        for block in found:
            pool.share(block)
        request.table, request.computed = list(found), cached
        request.cached_tokens += cached
        _grow(request, cached + tokens, setting, pool)
        if request.scheduled_ns < 0:
            request.scheduled_ns = now
        running.append(request)
        step.append((request, tokens))
        budget -= tokens
    return step, preempted


def orca(waiting: list[Ref], running: list[Ref], setting: Setting, pool: Pool, now: int) -> tuple[Step, bool]:
    """Whole prompts, everything reserved."""
    step: Step = [(r, 1) for r in running]
    while waiting and len(running) < setting.max_num_seqs:
        request = waiting[0]
        if setting.blocks_for(request.prompt + request.output - 1) > len(pool.free):
            break
        waiting.pop(0)
        _grow(request, request.prompt + request.output - 1, setting, pool)
        request.scheduled_ns = now
        running.append(request)
        step.append((request, request.prompt))
    return step, False


def vllm_06(waiting: list[Ref], running: list[Ref], setting: Setting, pool: Pool, now: int) -> tuple[Step, bool]:
    """vLLM 0.6 without chunked prefill: prompts first, in iterations of their own."""
    step: Step = []
    while waiting and len(running) < setting.max_num_seqs and not pool.swapped:
        request = waiting[0]
        spare = int(setting.watermark * setting.total_blocks) if running else 0
        if step and sum(tokens for _, tokens in step) + request.reached > setting.max_num_batched_tokens:
            break
        if setting.blocks_for(request.reached) > len(pool.free) - spare:
            break
        waiting.pop(0)
        _grow(request, request.reached, setting, pool)
        if request.scheduled_ns < 0:
            request.scheduled_ns = now
        running.append(request)
        step.append((request, request.reached))
    if step:
        return step, False
    index, preempted = 0, False
    while index < len(running):
        request = running[index]
        if pool.free:
            _grow(request, request.computed + 1, setting, pool)
            step.append((request, 1))
            index += 1
            continue
        victim = running.pop()
        victim.preemptions += 1
        preempted = True
        if setting.swap:
            victim.swaps += 1
            pool.swapped.append(victim)
            pool.copied["out"] = pool.copied.get("out", 0) + len(victim.table)
        else:
            victim.computed = 0
            waiting.insert(0, victim)
        pool.give_back(victim.table)
        victim.table = []
    while pool.swapped and not preempted and len(running) < setting.max_num_seqs:
        request = pool.swapped[0]
        blocks = setting.blocks_for(request.computed)
        wanted = blocks + 1 + int(setting.watermark * setting.total_blocks)
        if len(pool.free) < (wanted if running else setting.blocks_for(request.computed + 1)):
            break
        pool.swapped.pop(0)
        pool.copied["in"] = pool.copied.get("in", 0) + blocks
        _grow(request, request.computed + 1, setting, pool)
        running.append(request)
        step.append((request, 1))
    return step, preempted


def tokensim(waiting: list[Ref], running: list[Ref], setting: Setting, pool: Pool, now: int) -> tuple[Step, bool]:
    """TokenSim's "paged-attn"; the watermark of the setting is its ratio for new requests."""
    step: Step = []
    while waiting and len(running) < setting.max_num_seqs and not pool.swapped:
        request = waiting[0]
        used = setting.total_blocks - len(pool.free)
        spare = setting.total_blocks // 100 if running else 0
        if used / setting.total_blocks >= setting.watermark:
            break
        if len(pool.free) - setting.blocks_for(request.prompt) < spare:
            break
        waiting.pop(0)
        _grow(request, request.prompt, setting, pool)
        running.append(request)
        step.append((request, request.prompt))
    if step:
        return step, False
    swapped_out = False
    for request in sorted(running, key=lambda request: request.id):
        while request in running and not (pool.free and _grow(request, request.computed + 1, setting, pool)):
            victim = max(running, key=lambda request: request.id)
            running.remove(victim)
            victim.swaps += 1
            pool.swapped.append(victim)
            pool.copied["out"] = pool.copied.get("out", 0) + len(victim.table)
            pool.give_back(victim.table)
            victim.table, swapped_out = [], True
        if request in running:
            step.append((request, 1))
    while pool.swapped and not swapped_out:
        request = min(pool.swapped, key=lambda request: request.id)
        wanted = setting.blocks_for(request.computed) + len(running) + 1
        if len(pool.free) < (wanted if running else setting.blocks_for(request.computed + 1)):
            break
        pool.swapped.remove(request)
        _grow(request, request.computed + 1, setting, pool)
        running.append(request)
        step.append((request, 1))
    return step, swapped_out
