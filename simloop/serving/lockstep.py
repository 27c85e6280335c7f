"""Data-parallel ranks that share experts and therefore iterate together.

The tokens of all ranks go through the same experts, so no rank can start its next iteration before the others: every
iteration takes as long as that of the slowest rank, all pad their tokens to the most that any has, and a rank without
work runs a dummy batch (as vLLM does for mixtures of experts; it calls a stretch of such iterations a wave).
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from simloop.clock import Event, now_ns, sleep_ns
from simloop.serving.batch import Batch
from simloop.serving.books import commit
from simloop.serving.execution import pass_iteration
from simloop.serving.worker import Worker

__all__ = ["Lockstep"]


@attrs.define(eq=False)
class Lockstep:
    """The ranks of one data-parallel engine.

    Each is a worker with its own queue, KV memory and scheduling policy; requests are routed to ranks.

    Attributes:
        ranks: The ranks.
        waves: Stretches of iterations without a pause.
        dummies: Iterations that a rank spent on a dummy batch, of all ranks together.
        padding: Tokens that were computed only because another rank had more.
        dispatch_bytes: What a rank gets from the others before the experts, for each token that a rank has.
        combine_bytes: The same after them.
    """

    ranks: Sequence[Worker]
    dispatch_bytes: int = 0
    combine_bytes: int = 0
    waves: int = 0
    dummies: int = 0
    padding: int = 0
    _wake: Event = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._wake = Event(f"work for {self.name}")
        for rank in self.ranks:
            rank.wake = self._wake

    @property
    def name(self) -> str:
        """The names of its first and its last rank."""
        return f"{self.ranks[0].name}..{self.ranks[-1].name}"

    async def run(self) -> None:
        """Serve for ever: everybody schedules, all execute, everybody commits."""
        idle = True
        while True:
            self._wake.clear()
            batches = [await rank.next_batch() for rank in self.ranks]
            most = max(batch.num_tokens for batch in batches)
            if most == 0:
                idle = True
                for rank in self.ranks:
                    rank.stand_down()
                await (sleep_ns(0) if self._wake.is_set() else self._wake.wait())
                continue
            self.waves += idle
            idle = False
            await self._execute(batches, most)

    async def _execute(self, batches: Sequence[Batch], most: int) -> None:
        start_ns = now_ns()
        working = [bool(batch) for batch in batches]
        self.dummies += working.count(False)
        self.padding += sum(most - batch.num_tokens for batch in batches)
        tokens = [batch.num_tokens for batch in batches]
        durations = []
        for rank, batch in zip(self.ranks, batches, strict=True):
            rank.executing = True
            batch.num_tokens = most
            durations.append(rank.timing.iteration_ns(batch) + rank.warm_up_ns)
            rank.warm_up_ns = 0
        longest = max(durations)
        await pass_iteration(batches, batches[durations.index(longest)], start_ns, start_ns + longest)
        self._record(start_ns, tokens, most)
        for rank in self.ranks:
            rank.executing = False
        for rank, batch, worked in zip(self.ranks, batches, working, strict=True):
            if worked:
                commit(rank, batch, start_ns)
            else:
                rank.stand_down()
        for rank in self.ranks:
            await rank.news.tell()

    def _record(self, start_ns: int, tokens: Sequence[int], most: int) -> None:
        end_ns, first = now_ns(), self.ranks[0].index
        dispatched, combined = most * self.dispatch_bytes, most * self.combine_bytes
        for rank, own in zip(self.ranks, tokens, strict=True):
            rank.records.lockstep(
                first, rank.index, self.waves, start_ns, end_ns, own, most - own, dispatched, combined
            )
