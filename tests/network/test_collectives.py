from __future__ import annotations

import asyncio
import functools
import math
from collections import Counter
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from simloop.clock import now_ns, run, sleep_ns
from simloop.errors import InputError
from simloop.network import (
    Algorithm,
    Collective,
    Dimension,
    Topology,
    alpha_beta_ns,
    collective,
    collective_ns,
    multi_dimensional,
    schedule,
    switch,
)
from tests.network.helpers import duration_ns, simulated, together

KINDS: tuple[Collective, ...] = get_args(Collective)
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
MIB = 1 << 20


def steps_or_none(kind: Collective, nbytes: int, ranks: int, algorithm: Algorithm) -> list[object] | None:
    try:
        return list(schedule(kind, nbytes, ranks, algorithm))
    except InputError:
        return None


@pytest.mark.parametrize("topology", get_args(Topology))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ranks", [2, 3, 4, 7, 8, 16])
def test_flows_take_what_the_closed_form_says(
    kind: Collective, algorithm: Algorithm, topology: Topology, ranks: int
) -> None:
    dimension = Dimension(topology, ranks, 50, 500)
    nbytes = MIB * ranks  # so that no part is rounded
    try:
        expected = collective_ns(kind, nbytes, [dimension], algorithm)
    except InputError as error:
        assert "closed form" in str(error) or "does not do" in str(error) or "power of two" in str(error)  # noqa: PT017
        return
    fabric = multi_dimensional([dimension])
    measured = duration_ns(lambda: collective(fabric, kind, nbytes, algorithm=algorithm))
    if kind == "all_reduce" and algorithm == "tree" and ranks & (ranks - 1):
        assert expected / 2 < measured < expected  # a rank that has nobody to wait for sends earlier
    else:
        assert abs(measured - expected) <= 1 + len(schedule(kind, nbytes, ranks, algorithm))  # each is rounded up


@pytest.mark.parametrize("algorithms", ["ring", "direct", "halving_doubling", ("direct", "ring")])
@pytest.mark.parametrize("kind", KINDS)
def test_hierarchical_flows_take_what_the_closed_form_says(
    kind: Collective, algorithms: Algorithm | tuple[Algorithm, ...]
) -> None:
    dimensions = [Dimension("FullyConnected", 4, 200, 500), Dimension("Switch", 2, 50, 2000)]
    fabric = multi_dimensional(dimensions)
    expected = collective_ns(kind, 8 * MIB, dimensions, algorithms)
    measured = duration_ns(lambda: collective(fabric, kind, 8 * MIB, ranks=(4, 2), algorithm=algorithms))
    assert abs(measured - expected) <= 20


def test_three_dimensions() -> None:
    dimensions = [Dimension("Ring", 4, 100, 10), Dimension("Ring", 2, 50, 20), Dimension("Switch", 2, 25, 500)]
    fabric = multi_dimensional(dimensions)
    for kind in KINDS:
        if kind != "all_to_all":  # which has no closed form on a ring of four
            expected = collective_ns(kind, 16 * MIB, dimensions)
            running = collective(fabric, kind, 16 * MIB, ranks=(4, 2, 2))
            measured = duration_ns(functools.partial(together, running))
            assert abs(measured - expected) <= 40


@given(st.sampled_from(KINDS), st.sampled_from(ALGORITHMS), st.integers(2, 16), st.integers(0, 10**6))
@settings(max_examples=200, deadline=None)
def test_every_rank_moves_the_bytes_it_must(kind: Collective, algorithm: Algorithm, ranks: int, nbytes: int) -> None:
    steps = steps_or_none(kind, nbytes, ranks, algorithm)
    assume(steps is not None)
    sent: Counter[int] = Counter()
    received: Counter[int] = Counter()
    for step in schedule(kind, nbytes, ranks, algorithm):
        for src, dst, part in step:
            assert src != dst
            sent[src] += part
            received[dst] += part
    least = nbytes * (ranks - 1) // ranks  # give or take the rounding of parts to bytes
    for rank in range(ranks):
        if kind == "broadcast":
            assert rank == 0 or received[rank] >= nbytes
        elif kind != "all_reduce":
            assert received[rank] >= least - ranks or algorithm == "halving_doubling"
            assert sent[rank] >= least - ranks or algorithm == "halving_doubling"
        elif algorithm != "tree":
            assert received[rank] >= 2 * (least - ranks)
    if kind == "all_reduce" and algorithm == "tree":
        assert sum(sent.values()) == 2 * (ranks - 1) * nbytes


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("ranks", [2, 8, 16])
def test_a_broadcast_reaches_everybody_in_order(algorithm: Algorithm, ranks: int) -> None:
    """Nobody passes on more than has arrived in the steps before."""
    have = Counter({0: 1600 * 16})
    for step in schedule("broadcast", 1600, ranks, algorithm):
        for src, _, nbytes in step:
            assert have[src] >= nbytes
        for _, dst, nbytes in step:
            have[dst] += nbytes
    assert all(have[rank] >= 1600 for rank in range(ranks))


def test_a_hierarchical_broadcast_starts_from_the_root_alone() -> None:
    have = {0}
    for step in schedule("broadcast", 1000, [2, 3, 2], "tree"):
        assert {src for src, _, _ in step} <= have
        have |= {dst for _, dst, _ in step}
    assert have == set(range(12))


def test_known_costs() -> None:
    """Table of Thakur et al. (2005): n = 8, 1 MiB, 50 GB/s, 500 ns."""
    beta = MIB / 50

    def cost(kind: Collective, algorithm: Algorithm) -> int:
        return alpha_beta_ns(kind, MIB, 8, bandwidth_gb_s=50, alpha_ns=500, algorithm=algorithm)

    assert cost("all_reduce", "ring") == math.ceil(14 * 500 + 2 * 7 / 8 * beta)
    assert cost("all_reduce", "halving_doubling") == math.ceil(6 * 500 + 2 * 7 / 8 * beta)
    assert cost("all_reduce", "tree") == math.ceil(6 * (500 + beta))
    assert cost("all_gather", "ring") == math.ceil(7 * 500 + 7 / 8 * beta)
    assert cost("all_to_all", "halving_doubling") == math.ceil(3 * 500 + 1.5 * beta)
    assert cost("broadcast", "tree") == math.ceil(3 * (500 + beta))
    assert alpha_beta_ns("all_reduce", MIB, 1, bandwidth_gb_s=50, alpha_ns=500) == 0


def test_two_collectives_on_one_switch_slow_each_other_down() -> None:
    def together_ns(count: int) -> int:
        fabric = switch(8, bandwidth_gb_s=50)
        return duration_ns(lambda: together(*(collective(fabric, "all_reduce", 8 * MIB) for _ in range(count))))

    assert together_ns(2) == pytest.approx(2 * together_ns(1), rel=1e-4)


def test_a_collective_among_some_nodes_leaves_the_others_alone() -> None:
    fabric = switch(8, bandwidth_gb_s=50)
    run(collective(fabric, "all_reduce", MIB, nodes=["npu1", "npu3", "npu5"]))
    busy = {name for name, link in fabric.links.items() if link.use().bytes}
    assert busy == {name for i in (1, 3, 5) for name in (f"npu{i}->switch", f"switch->npu{i}")}


def test_a_cancelled_collective_leaves_the_fabric_free() -> None:
    fabric = switch(4, bandwidth_gb_s=1)

    async def main() -> int:
        reducing = asyncio.ensure_future(collective(fabric, "all_reduce", 10**6, algorithm="direct"))
        await sleep_ns(1000)
        reducing.cancel()
        await asyncio.wait([reducing])
        await fabric.send("npu0", "npu1", 1000)
        return now_ns()

    assert simulated(main) == 2000
    assert all(link.in_flight == 0 for link in fabric.links.values())


@pytest.mark.parametrize(
    ("kind", "ranks", "algorithm", "message"),
    [
        ("all_reduced", 4, "ring", "did you mean 'all_reduce'"),
        ("all_reduce", 4, "rings", "did you mean 'ring'"),
        ("all_reduce", 6, "halving_doubling", "power of two of ranks, not 6"),
        ("all_to_all", 4, "tree", "'tree' does not do all_to_all"),
        ("all_reduce", (4, 2), ("ring",), "1 algorithms do not fit dimensions of"),
    ],
)
def test_what_cannot_be_scheduled(kind: str, ranks: int, algorithm: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        schedule(kind, 100, ranks, algorithm)  # type: ignore[arg-type]


def test_dimensions_must_fit_the_nodes() -> None:
    with pytest.raises(InputError, match="do not fit 8 nodes"):
        run(collective(switch(8, bandwidth_gb_s=1), "all_reduce", 100, ranks=(3, 2)))
