"""How many sleeps a second: simloop beside SimPy and every other virtual clock, in one run.

    python tests/benchmarks/bench_clock.py [--sleeps N] [--repeat N]

SimPy, async-solipsism, looptime and usim are no dependencies: whatever is not installed is named and left out
(``pip install simpy async-solipsism looptime usim``).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import simloop

Contender = Callable[[int, int], None]
"""Runs so many tasks which sleep so many times each."""


def delay_of(task: int) -> float:
    """Return a delay in seconds: every task its own, so that the timers interleave."""
    return 1 + task / 1000


async def sleep_in_tasks(sleep: Callable[[float], Awaitable[object]], tasks: int, sleeps: int) -> None:
    async def sleeper(delay: float) -> None:
        for _ in range(sleeps):
            await sleep(delay)

    await asyncio.gather(*(sleeper(delay_of(task)) for task in range(tasks)))


def run_simloop(tasks: int, sleeps: int) -> None:
    simloop.run(sleep_in_tasks(simloop.sleep, tasks, sleeps))


def run_simloop_until_ns(tasks: int, sleeps: int) -> None:
    async def sleeper(delay_ns: int) -> None:
        when_ns = 0
        for _ in range(sleeps):
            when_ns += delay_ns
            await simloop.sleep_until_ns(when_ns)

    async def main() -> None:
        await asyncio.gather(*(sleeper(int(delay_of(task) * 1e9)) for task in range(tasks)))

    simloop.run(main)


def run_simloop_asyncio_sleep(tasks: int, sleeps: int) -> None:
    simloop.run(sleep_in_tasks(asyncio.sleep, tasks, sleeps))


def run_simpy(tasks: int, sleeps: int) -> None:
    import simpy

    env = simpy.Environment()

    def sleeper(delay: float) -> Generator[Any, Any, None]:
        for _ in range(sleeps):
            yield env.timeout(delay)

    for task in range(tasks):
        env.process(sleeper(delay_of(task)))
    env.run()


def run_async_solipsism(tasks: int, sleeps: int) -> None:
    import async_solipsism

    with asyncio.Runner(loop_factory=async_solipsism.EventLoop) as runner:
        runner.run(sleep_in_tasks(asyncio.sleep, tasks, sleeps))


def run_looptime(tasks: int, sleeps: int) -> None:
    import looptime

    def new_loop() -> Any:
        loop: Any = asyncio.new_event_loop()
        looptime.patch_event_loop(loop)
        loop.setup_looptime()
        return loop

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(sleep_in_tasks(asyncio.sleep, tasks, sleeps))


def run_usim(tasks: int, sleeps: int) -> None:
    import usim

    async def sleeper(delay: float) -> None:
        for _ in range(sleeps):
            await (usim.time + delay)

    usim.run(*(sleeper(delay_of(task)) for task in range(tasks)))


CONTENDERS: dict[str, tuple[str | None, Contender, int]] = {
    "SimPy timeout": ("simpy", run_simpy, 1),
    "simloop.sleep": (None, run_simloop, 1),
    "simloop.sleep_until_ns": (None, run_simloop_until_ns, 1),
    "asyncio.sleep on simloop": (None, run_simloop_asyncio_sleep, 1),
    "asyncio.sleep on async-solipsism": ("async_solipsism", run_async_solipsism, 4),
    "usim": ("usim", run_usim, 4),
    "asyncio.sleep on looptime": ("looptime", run_looptime, 40),
}
"""Name -> the module it needs, how to run it, and by how much its number of sleeps is divided."""


def measure(contender: Contender, tasks: int, sleeps: int) -> float:
    """Return a rate in sleeps per second of processor time, which other programs on the machine do not distort much."""
    gc.collect()
    started = time.process_time()
    contender(tasks, sleeps)
    return tasks * sleeps / (time.process_time() - started)


def compare(tasks: int, total: int, repeat: int) -> None:
    """Print one table: ``tasks`` concurrent tasks that sleep ``total`` times together.

    All contenders run in turn, ``repeat`` times over, and each is divided by the SimPy of its own turn.
    """
    missing = {name for name, (module, _, _) in CONTENDERS.items() if module and not importlib.util.find_spec(module)}
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS if name not in missing}
    for _ in range(repeat):
        for name, values in rates.items():
            _, contender, divisor = CONTENDERS[name]
            values.append(measure(contender, tasks, max(total // tasks // divisor, 1)))
    reference = rates.get("SimPy timeout")
    print(f"\n{tasks:,} concurrent tasks, median of {repeat}\n{'':34}{'sleeps/s':>12}{'x SimPy':>9}")
    for name in CONTENDERS:
        if name in missing:
            print(f"{name:34}{'not installed':>21}")
            continue
        ratio = statistics.median(a / b for a, b in zip(rates[name], reference, strict=True)) if reference else 0.0
        print(f"{name:34}{statistics.median(rates[name]):12,.0f}{f'{ratio:9.2f}' if reference else ''}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sleeps", type=int, default=400_000, help="sleeps of all tasks together (default: %(default)s)"
    )
    parser.add_argument("--repeat", type=int, default=5, help="rounds, whose median counts (default: %(default)s)")
    options = parser.parse_args()
    print(f"Python {platform.python_version()} on {platform.machine()}, {sys.platform}")
    for tasks in (10, 1000):
        compare(tasks, options.sleeps, options.repeat)


if __name__ == "__main__":
    main()
