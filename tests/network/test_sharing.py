"""The engine against exact fractions, and the invariants of sharing."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.clock import now_ns, run, sleep_ns, sleep_until_ns
from simloop.network import Fabric, Sharing
from simloop.network import traffic as traffic_module
from simloop.network.flow import Path
from tests.network.helpers import ends, simulated
from tests.network.reference import Transfer, max_min, simulate


@pytest.fixture(autouse=True, params=[traffic_module.MANY, 1], ids=["filled", "in arrays"])
def many(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do everything with progressive filling, and with the arrays that are for many paths."""
    monkeypatch.setattr(traffic_module, "MANY", request.param)


BANDWIDTHS = st.lists(st.integers(1, 50), min_size=1, max_size=6)


@st.composite
def traffic(draw: st.DrawFn, *, cancellations: bool = False) -> tuple[list[int], list[Transfer]]:
    """A line of links, and transfers that each cross a stretch of it."""
    bandwidths = draw(BANDWIDTHS)
    transfers = []
    for _ in range(draw(st.integers(1, 12))):
        first = draw(st.integers(0, len(bandwidths) - 1))
        last = draw(st.integers(first, len(bandwidths) - 1))
        start = draw(st.integers(0, 400))
        give_up = draw(st.none() | st.integers(start + 1, start + 300)) if cancellations else None
        route = tuple(range(first, last + 1))
        transfers.append(Transfer(route, draw(st.integers(1, 3000)), start, give_up))
    return bandwidths, transfers


def line(bandwidths: list[int], sharing: Sharing = "fair") -> Fabric:
    fabric = Fabric(sharing=sharing)
    for i, bandwidth in enumerate(bandwidths):
        fabric.connect(str(i), str(i + 1), bandwidth_gb_s=bandwidth)
    return fabric


def path_of(fabric: Fabric, transfer: Transfer) -> Path:
    return fabric.path(str(transfer.route[0]), str(transfer.route[-1] + 1))


async def play(fabric: Fabric, transfers: list[Transfer]) -> list[int | None]:
    """Run the transfers and return when the last byte of each left; None for those that were given up."""

    async def one(transfer: Transfer) -> int | None:
        await sleep_until_ns(transfer.start)
        sending = asyncio.ensure_future(path_of(fabric, transfer).transmit(transfer.nbytes))
        if transfer.give_up is not None:
            asyncio.get_running_loop().call_later((transfer.give_up - transfer.start) / 1e9, sending.cancel)
        try:
            await sending
        except asyncio.CancelledError:
            return None
        return now_ns()

    return await asyncio.gather(*(one(transfer) for transfer in transfers))


@given(traffic())
@settings(max_examples=150, deadline=None)
def test_transfers_end_when_exact_max_min_fairness_says(case: tuple[list[int], list[Transfer]]) -> None:
    bandwidths, transfers = case
    simulate(bandwidths, transfers)
    measured = simulated(lambda: play(line(bandwidths), transfers))
    for end, transfer in zip(measured, transfers, strict=True):
        assert end is not None
        assert transfer.end is not None
        assert -0.01 <= end - transfer.end < 1  # rounded up to the next ns, and never twice


@given(traffic(cancellations=True))
@settings(max_examples=150, deadline=None)
def test_a_cancelled_transfer_gives_its_share_back_at_once(case: tuple[list[int], list[Transfer]]) -> None:
    bandwidths, transfers = case
    simulate(bandwidths, transfers)
    fabric = line(bandwidths)
    measured = simulated(lambda: play(fabric, transfers))
    for end, transfer in zip(measured, transfers, strict=True):
        if end is not None and transfer.end is not None:
            assert -0.01 <= end - transfer.end < 1
        elif transfer.end is not None:  # it ended between two ns, and was cancelled at the second
            assert transfer.give_up is not None
            assert transfer.give_up - transfer.end < 1
    for number in range(len(bandwidths)):
        link = fabric.link(str(number), str(number + 1))
        crossing = [transfer for transfer in transfers if number in transfer.route]
        assert abs(link.use().bytes - float(sum(t.nbytes - t.left for t in crossing))) <= len(crossing)
        assert link.load == link.in_flight == len(link.paths) == 0


@given(traffic(cancellations=True), st.integers(1, 3))
@settings(max_examples=150, deadline=None)
def test_with_a_limit_transfers_wait_in_line_and_nobody_overtakes(
    case: tuple[list[int], list[Transfer]], limit: int
) -> None:
    bandwidths, transfers = case
    for index, transfer in enumerate(transfers):  # no two at once: who is first among equals is not the point
        transfer.start = 40 * transfer.start + index
        transfer.give_up = None if transfer.give_up is None else 40 * transfer.give_up + 20
    simulate(bandwidths, transfers, limit)
    fabric = line(bandwidths, limit)
    measured = simulated(lambda: play(fabric, transfers))
    for end, transfer in zip(measured, transfers, strict=True):
        assert (end is None) == (transfer.end is None) or (transfer.end is not None and end is None)
        if end is not None and transfer.end is not None:
            assert -0.01 <= end - transfer.end < 1
    for link in fabric.links.values():
        assert len(link.line) == link.load == 0
        assert link.free == link.limit


@given(traffic(), st.data())
@settings(max_examples=100, deadline=None)
def test_bytes_are_conserved_and_bandwidth_is_neither_exceeded_nor_wasted(
    case: tuple[list[int], list[Transfer]], data: st.DataObject
) -> None:
    bandwidths, transfers = case
    fabric = line(bandwidths)
    links = [fabric.link(str(i), str(i + 1)) for i in range(len(bandwidths))]
    when = data.draw(st.lists(st.integers(0, 600), min_size=1, max_size=5))

    async def watch(at_ns: int) -> None:
        await sleep_until_ns(at_ns)
        for link in links:
            assert link.rate_gb_s <= link.bandwidth_gb_s * (1 + 1e-9)
            for path in link.paths:  # work conservation: something on its way is full, and nothing there is faster
                assert any(
                    other.rate_gb_s >= other.bandwidth_gb_s * (1 - 1e-9)
                    and path.rate >= max(rival.rate for rival in other.paths) * (1 - 1e-9)
                    for other in path.links
                )

    async def main() -> None:
        await asyncio.gather(play(fabric, transfers), *(watch(at_ns) for at_ns in when))

    run(main)
    for number, link in enumerate(links):
        crossing = [transfer for transfer in transfers if number in transfer.route]
        use = link.use()
        assert use.bytes == sum(transfer.nbytes for transfer in crossing)
        assert use.transfers == len(crossing)
        assert use.busy_ns >= use.bytes / link.bandwidth_gb_s - 1


@given(BANDWIDTHS, st.data())
@settings(max_examples=100, deadline=None)
def test_rates_are_max_min_fair(bandwidths: list[int], data: st.DataObject) -> None:
    stretches = st.tuples(st.integers(0, len(bandwidths) - 1), st.integers(0, len(bandwidths) - 1)).map(sorted)
    routes = [tuple(range(a, b + 1)) for a, b in data.draw(st.lists(stretches, min_size=1, max_size=15))]
    transfers = [Transfer(route, 10**6, 0) for route in routes]

    async def main() -> list[float]:
        fabric = line(bandwidths)
        playing = asyncio.ensure_future(play(fabric, transfers))
        await sleep_ns(1)
        rates = [path_of(fabric, transfer).rate for transfer in transfers]
        playing.cancel()
        await asyncio.wait([playing])
        return rates

    expected = [float(rate) for rate in max_min(bandwidths, routes)]
    assert simulated(main) == pytest.approx(expected, rel=1e-9)


@given(traffic(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_equal_transfers_does_not_matter(case: tuple[list[int], list[Transfer]], random: object) -> None:
    bandwidths, transfers = case
    shuffled = list(transfers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = simulated(lambda: play(line(bandwidths), transfers))
    second = simulated(lambda: play(line(bandwidths), shuffled))
    keys = [(t.route, t.nbytes, t.start) for t in transfers]
    assert dict(zip(keys, first, strict=True)) == dict(
        zip([(t.route, t.nbytes, t.start) for t in shuffled], second, strict=True)
    )


def test_only_flows_that_share_a_link_are_computed_anew() -> None:
    fabric = Fabric()
    for name in ("a", "b"):
        fabric.connect(name, f"{name}-end", bandwidth_gb_s=1)

    async def main() -> list[object]:
        groups: list[object] = []
        sending = [asyncio.ensure_future(fabric.send("a", "a-end", 1000))]
        for _ in range(3):
            await sleep_ns(10)
            groups.append(fabric.path("a", "a-end").group)
            sending.append(asyncio.ensure_future(fabric.send("b", "b-end", 1000)))
        await asyncio.gather(*sending)
        return groups

    groups = simulated(main)
    assert groups[0] is not None
    assert all(a is b for a, b in pairwise(groups))


def test_a_timer_is_set_for_each_end_and_not_for_each_flow_and_change(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = line([10])
    wakes = 0
    settle = type(fabric._traffic).settle

    def counted(self: object) -> None:
        nonlocal wakes
        wakes += 1
        settle(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(fabric._traffic), "settle", counted)
    simulated(lambda: ends(fabric.send("0", "1", 1000 * (i + 1)) for i in range(100)))
    assert wakes == 1 + 100  # one for the hundred that came together


def test_rates_that_were_replaced_set_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = line([10])
    finished = 0
    finish = type(fabric._traffic)._finish

    def counted(self: object, *arguments: object) -> None:
        nonlocal finished
        finished += 1
        finish(self, *arguments)  # type: ignore[arg-type]

    async def main() -> list[int]:
        async def later(delay_ns: int) -> None:
            await sleep_ns(delay_ns)
            await fabric.send("0", "1", 100_000 + delay_ns)

        return await ends(later(100 * i) for i in range(50))  # each changes when the first would have ended

    monkeypatch.setattr(type(fabric._traffic), "_finish", counted)
    simulated(main)
    assert finished == 50
