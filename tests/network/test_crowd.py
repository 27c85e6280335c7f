"""Many paths at once: what the arrays say, and what filling says."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest

from simloop.clock import now_ns, sleep_ns
from simloop.network import Fabric, ring, switch
from simloop.network import traffic as traffic_module
from simloop.network.crowd import level_at
from tests.network.helpers import simulated


def random_fabric(rng: random.Random) -> Fabric:
    """Return a ring, a tree of switches, or one whose links are all alike; fair, or three transfers a link."""
    fabric, kind = Fabric(sharing=rng.choice(["fair", "fair", 3])), rng.choice(["ring", "tree", "equal"])
    if kind == "ring":
        return ring(8, bandwidth_gb_s=10, fabric=fabric)
    for leaf in range(rng.randint(2, 5)):
        port, uplink = (10, 10) if kind == "equal" else (rng.randint(5, 20), rng.randint(10, 60))
        switch([f"n{leaf}.{i}" for i in range(5)], bandwidth_gb_s=port, name=f"leaf{leaf}", fabric=fabric)
        fabric.connect(f"leaf{leaf}", "spine", bandwidth_gb_s=uplink)
    return fabric


async def random_transfers(seed: int) -> tuple[list[int], list[int]]:
    """Let transfers come and go, be given up, and links fail; return their ends and the bytes of each link."""
    rng = random.Random(seed)
    fabric = random_fabric(rng)

    async def one(start_ns: int, src: str, dst: str, nbytes: int, patience_s: float | None) -> int:
        await sleep_ns(start_ns)
        try:
            async with asyncio.timeout(patience_s):
                await fabric.send(src, dst, nbytes)
        except TimeoutError:
            return -1
        return now_ns()

    async def disturb() -> int:
        for _ in range(6):
            await sleep_ns(rng.randint(10_000, 80_000))
            link = rng.choice(list(fabric.links.values()))
            whole, link.bandwidth_gb_s = link.bandwidth_gb_s, rng.choice([0, 1, 5, 30])
            await sleep_ns(20_000)
            assert all(other.rate_gb_s <= other.bandwidth_gb_s * (1 + 1e-9) for other in fabric.links.values())
            link.bandwidth_gb_s = whole
        return now_ns()

    transfers = []
    for _ in range(150):
        src, dst = rng.sample(fabric.endpoints, 2)
        patience_s = rng.choice([None, None, None, rng.randint(1, 500) * 1e-6])
        start_ns = rng.choice([0, 0, rng.randint(0, 300_000)])
        transfers.append(one(start_ns, src, dst, rng.choice([100_000, rng.randint(1, 10**6)]), patience_s))
    times = await asyncio.gather(disturb(), *transfers)
    return times, [link.use().bytes for link in fabric.links.values()]


@pytest.mark.parametrize("seed", range(20))
def test_arrays_and_filling_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number in (10**9, 8, 1):  # filling alone; crowds that form and dissolve; crowds alone
        monkeypatch.setattr(traffic_module, "MANY", number)
        found.append(simulated(lambda: random_transfers(seed)))
    for times, nbytes in found[1:]:
        assert max(abs(a - b) for a, b in zip(times, found[0][0], strict=True)) <= 1
        assert max(abs(a - b) for a, b in zip(nbytes, found[0][1], strict=True)) <= 5


def test_the_level_at_which_a_link_is_full() -> None:
    rates, counts = np.array([3.0, 1.0, np.inf]), np.array([2.0, 1.0, 3.0])
    assert level_at(rates, counts, 6.0) == 1.0
    assert level_at(rates, counts, 11.0) == 2.0  # 1, and five at 2
    assert level_at(rates, counts, 19.0) == 4.0  # 1, two at 3, and three at 4
    assert level_at(rates[:2], counts[:2], 7.0) == 3.0
    assert level_at(rates[:2], counts[:2], 7.5) == np.inf
