"""What transfers cost: ``python tests/benchmarks/bench_network.py [flows]``.

Flows of random sizes, each ending at its own time, so that every end is a change of rates.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from simloop.clock import now_ns, run, sleep_ns
from simloop.network import Fabric, Link, collective, nvlink_domain, switch

MIB = 1 << 20


async def together(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    """Run coroutines until all are done."""
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


async def one_link(flows: int) -> None:
    """All flows on one link, at once."""
    link, rng = Link(50), random.Random(0)
    await together([link.send(rng.randint(MIB, 64 * MIB)) for _ in range(flows)])


async def one_after_another(flows: int) -> None:
    """One flow at a time: the cost of a transfer that meets nobody."""
    link = Link(50, latency_us=5)
    for _ in range(flows):
        await link.send(MIB)


async def one_switch(flows: int) -> None:
    """All flows at once between random two of 64 endpoints of one switch: one component of up to 4,032 routes."""
    fabric, rng = switch(64, bandwidth_gb_s=50), random.Random(0)
    pairs = [rng.sample(fabric.endpoints, 2) for _ in range(flows)]
    await together([fabric.send(src, dst, rng.randint(MIB, 64 * MIB)) for src, dst in pairs])


async def eight_servers(flows: int) -> None:
    """All flows at once, each within one of 8 servers of 8 GPUs: eight components."""
    fabric, rng = Fabric(), random.Random(0)
    servers = [[f"gpu{s}.{g}" for g in range(8)] for s in range(8)]
    for index, gpus in enumerate(servers):
        nvlink_domain(gpus, bandwidth_gb_s=450, name=f"nvswitch{index}", fabric=fabric)
    pairs = [rng.sample(rng.choice(servers), 2) for _ in range(flows)]
    await together([fabric.send(src, dst, rng.randint(MIB, 64 * MIB)) for src, dst in pairs])


async def steady(flows: int) -> None:
    """Flows that come and go between 64 endpoints of one switch, about 50 under way at a time."""
    fabric, rng = switch(64, bandwidth_gb_s=50), random.Random(0)

    async def later(delay_ns: int, src: str, dst: str) -> None:
        await sleep_ns(delay_ns)
        await fabric.send(src, dst, 32 * MIB)

    mean_ns = 32 * MIB / 50 / 40
    starts = [int(i * mean_ns + rng.expovariate(1 / mean_ns)) for i in range(flows)]
    await together([later(start, *rng.sample(fabric.endpoints, 2)) for start in starts])


async def ring_all_reduce(flows: int) -> None:
    """Ring all-reduces among 64 endpoints of one switch, until so many messages were sent."""
    fabric = switch(64, bandwidth_gb_s=50, latency_ns=500)
    for _ in range(max(1, flows // (126 * 64))):
        await collective(fabric, "all_reduce", 64 * MIB)


def measure(name: str, scene: Callable[[int], Coroutine[Any, Any, None]], flows: int) -> None:
    """Run one scene and print what a flow cost."""

    async def main() -> int:
        await scene(flows)
        return now_ns()

    begin = time.perf_counter()
    end_ns = run(main)
    wall = time.perf_counter() - begin
    rate = f"{wall / flows * 1e6:8.1f} µs per flow"
    print(f"{name:<20} {flows:>7,} flows {wall:7.2f} s  {rate}  {(end_ns or 0) / 1e9:9.4f} s simulated")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    for scene in (one_after_another, one_link, eight_servers, one_switch, steady, ring_all_reduce):
        measure(scene.__name__, scene, count)
