"""An engine with asynchronous scheduling, slow and plain: vLLM 0.19's loop over a batch queue of two.

While a step runs on the device, the next one is scheduled already: the queue is read, and finished requests make
place, only when a step's output has been handled. Everything else is the scheduler of `tests/serving/reference.py`
with prefix caching, for one engine; preemption is left out (the runs that it is made for have none).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from simloop.hardware import Shape

Step = list[tuple["Run", int, int]]


@dataclass(eq=False)
class Run:
    """One request; times are nanoseconds, -1 until they are known."""

    id: int
    arrival_ns: int
    prompt: int
    output: int
    hashes: Sequence[int] = ()
    queued_ns: int = -1
    first_ns: int = -1
    end_ns: int = -1
    computed: int = 0
    scheduled: int = 0
    generated: int = 0
    hashed: int = 0
    blocks: list[int] = field(default_factory=list)

    @property
    def pending(self) -> int:
        """Tokens that can be scheduled now, counting on those in flight."""
        return 0 if self.scheduled == self.output else self.prompt + self.scheduled - self.computed


class Blocks:
    """KV blocks with reference counts, hashes, and a queue of free ones, least recently used first."""

    def __init__(self, total: int, size: int = 16) -> None:
        self.size = size
        self.free: OrderedDict[int, None] = OrderedDict.fromkeys(range(total))
        self.users = [0] * total
        self.hash_of: dict[int, int] = {}
        self.known: dict[int, int] = {}

    def need(self, run: Run, tokens: int) -> int:
        return -(-tokens // self.size) - len(run.blocks)

    def find(self, run: Run) -> list[int]:
        found = []
        for key in run.hashes[: (run.prompt - 1) // self.size]:
            if key not in self.known:
                break
            found.append(self.known[key])
        return found

    def share(self, run: Run, found: list[int]) -> None:
        for block in found:
            if self.users[block] == 0:
                del self.free[block]
            self.users[block] += 1
        run.blocks, run.hashed, run.computed = list(found), len(found), len(found) * self.size

    def extend(self, run: Run, tokens: int) -> None:
        for _ in range(self.need(run, tokens)):
            block, _none = self.free.popitem(last=False)
            key = self.hash_of.pop(block, None)
            if key is not None and self.known.get(key) == block:
                del self.known[key]
            self.users[block] = 1
            run.blocks.append(block)
        for place in range(run.hashed, min(tokens // self.size, len(run.hashes))):
            self.hash_of.setdefault(run.blocks[place], run.hashes[place])
            self.known.setdefault(run.hashes[place], run.blocks[place])
        run.hashed = max(run.hashed, tokens // self.size)

    def release(self, run: Run) -> None:
        for block in reversed(run.blocks):
            self.users[block] -= 1
            if self.users[block] == 0:
                self.free[block] = None
        run.blocks = []


@dataclass
class AsyncEngine:
    """The engine; `depth` 1 schedules a step when the one before is done, 2 when it starts."""

    iteration_ns: Callable[[Shape], int]
    blocks: Blocks
    max_num_seqs: int = 128
    max_num_batched_tokens: int = 2048
    depth: int = 2
    first_step_ns: int = 0
    waiting: list[Run] = field(default_factory=list)
    running: list[Run] = field(default_factory=list)
    steps: int = 0
    tokens: list[tuple[int, int]] = field(default_factory=list)

    def serve(self, runs: Sequence[Run]) -> None:
        todo, now, device = sorted(runs, key=lambda run: run.arrival_ns), 0, 0
        flight: list[tuple[int, Step]] = []
        while todo or self.waiting or self.running:
            while todo and todo[0].arrival_ns <= now:
                todo[0].queued_ns = now
                self.waiting.append(todo.pop(0))
            step = self.schedule() if len(flight) < self.depth else []
            if step:
                device = max(device, now) + self.price(step)
                flight.append((device, step))
                if len(flight) < self.depth:
                    continue
            if flight:
                end, step = flight.pop(0)
                now = max(now, end)
                self.handle(step, now)
            else:
                now = todo[0].arrival_ns

    def price(self, step: Step) -> int:
        chunks = [(new, cached) for run, new, cached in step if cached < run.prompt]
        contexts = [cached + 1 for run, new, cached in step if cached >= run.prompt]
        self.steps += 1
        return self.iteration_ns(Shape.mixed(chunks, contexts)) + (self.first_step_ns if self.steps == 1 else 0)

    def schedule(self) -> Step:
        step: Step = []
        budget = self.max_num_batched_tokens
        for run in self.running:
            if (new := min(run.pending, budget)) > 0:
                budget -= self.take(run, new, step)
        while self.waiting and budget > 0 and len(self.running) < self.max_num_seqs:
            run = self.waiting[0]
            found = self.blocks.find(run)
            idle = sum(self.blocks.users[block] == 0 for block in found)
            if -(-run.prompt // self.blocks.size) - len(found) > len(self.blocks.free) - idle:
                break
            self.running.append(self.waiting.pop(0))
            self.blocks.share(run, found)
            budget -= self.take(run, min(run.pending, budget), step)
        return step

    def take(self, run: Run, new: int, step: Step) -> int:
        self.blocks.extend(run, run.computed + new)
        step.append((run, new, run.computed))
        run.computed += new
        if run.computed == run.prompt + run.scheduled:
            run.scheduled += 1
        return new

    def handle(self, step: Step, now: int) -> None:
        self.tokens.append((now, sum(cached + new == run.prompt + run.generated for run, new, cached in step)))
        for run, new, cached in step:
            if cached + new == run.prompt + run.generated:
                run.generated += 1
                if run.generated == 1:
                    run.first_ns = now
                if run.generated == run.output:
                    run.end_ns = now
                    self.running.remove(run)
                    self.blocks.release(run)
