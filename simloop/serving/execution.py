"""The time of an iteration, and what goes on beside it: operators with hooks, KV that leaves or is still to come."""

from __future__ import annotations

from collections.abc import Sequence

from simloop.clock import sleep_until_ns
from simloop.serving.batch import Batch
from simloop.serving.hand_over import begin_departures, wait_for_layers

__all__ = ["pass_iteration"]


async def pass_iteration(batches: Sequence[Batch], slowest: Batch, start_ns: int, end_ns: int) -> None:
    """Let an iteration pass; it lasts longer if a hook waits, or layers of keys and values come late.

    Args:
        batches: The work of all ranks that iterate together, of each worker one.
        slowest: The one that sets the times.
        start_ns: When it starts: now.
        end_ns: When it is over if nothing is waited for.

    Raises:
        PolicyError: A hook raised.
    """
    for batch in batches:
        begin_departures(batch.worker, start_ns, end_ns)
    walk = slowest.worker.walk
    if walk is None:
        await sleep_until_ns(end_ns)
    else:
        await walk.run(batches, slowest, end_ns - start_ns)
    for batch in batches:
        if batch.worker.incoming:
            await wait_for_layers(batch.worker, batch, start_ns, end_ns)
