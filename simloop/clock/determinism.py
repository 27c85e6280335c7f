"""Run twice, and show the first difference."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from simloop.clock.loop import VirtualLoop
from simloop.clock.seeds import drawn_streams
from simloop.errors import SimulationError

__all__ = ["check_determinism"]

T = TypeVar("T")

Step = tuple[int, str]
"""One callback that ran: the virtual time in ns and its name."""


def check_determinism(main_factory: Callable[[], Awaitable[T]], *, seed: int = 0) -> T:
    """Run ``main_factory()`` twice with the same seed; compare every callback, its time, and every random stream.

    Args:
        main_factory: Called once for each run: an async function without arguments.
        seed: The seed of both runs.

    Returns:
        What the second run returned.

    Raises:
        SimulationError: The runs differ; the message shows the first difference.
    """
    _, steps, streams = _run_traced(main_factory, seed)
    result, steps_again, streams_again = _run_traced(main_factory, seed)
    _compare_steps(steps, steps_again, seed)
    differing = [name for name in streams.keys() | streams_again.keys() if streams.get(name) != streams_again.get(name)]
    if differing:
        raise SimulationError(
            f"two runs with seed {seed} ran the same callbacks and drew different numbers "
            f"from the random streams {', '.join(sorted(differing))}"
        )
    return result


def _run_traced(main_factory: Callable[[], Awaitable[T]], seed: int) -> tuple[T, list[Step], dict[str, object]]:
    steps: list[Step] = []
    loop = VirtualLoop(seed=seed)
    loop.watch_with(lambda now_ns, name: steps.append((now_ns, name)))
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(_call(main_factory))
        return result, steps, drawn_streams(loop)


async def _call(main_factory: Callable[[], Awaitable[T]]) -> T:
    return await main_factory()


def _compare_steps(first: list[Step], second: list[Step], seed: int) -> None:
    for number, (one, other) in enumerate(zip(first, second, strict=False), start=1):
        if one != other:
            raise SimulationError(
                f"two runs with seed {seed} differ from callback {number} on:\n"
                f"  first run:  {_describe(one)}\n  second run: {_describe(other)}"
            )
    if len(first) != len(second):
        longer, which = (first, "first") if len(first) > len(second) else (second, "second")
        extra = longer[min(len(first), len(second))]
        raise SimulationError(f"two runs with seed {seed} differ: only the {which} run goes on with {_describe(extra)}")


def _describe(step: Step) -> str:
    return f"at {step[0] / 1e9} s: {step[1]}"
