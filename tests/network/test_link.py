from __future__ import annotations

import asyncio

import pytest

from simloop.clock import now_ns, run, sleep_ns
from simloop.errors import DeadlockError, InputError
from simloop.network import Link, LinkUse
from tests.network.helpers import duration_ns, ends, simulated, together

GB = 10**9


@pytest.mark.parametrize("transfers", [1, 2, 8])
@pytest.mark.parametrize("sharing", ["fair", "fifo", 4])
def test_n_transfers_at_once_take_n_times_as_long(transfers: int, sharing: str) -> None:
    link = Link(50, sharing=sharing)  # type: ignore[arg-type]
    assert duration_ns(lambda: together(*(link.send(GB) for _ in range(transfers)))) == transfers * 20_000_000


def test_latency_is_added_once_and_does_not_occupy_the_link() -> None:
    link = Link(1, latency_us=5, sharing="fifo")
    assert simulated(lambda: ends(link.send(1000) for _ in range(3))) == [6000, 7000, 8000]
    assert link.use().busy_ns == 3000
    assert link.transfer_ns(1000) == 6000


def test_sharing_decides_who_is_done_when() -> None:
    sizes = [4000, 1000, 2000]

    def order(sharing: str | int) -> list[int]:
        link = Link(1, sharing=sharing)  # type: ignore[arg-type]
        return simulated(lambda: ends(link.send(nbytes) for nbytes in sizes))

    assert order("fair") == [7000, 3000, 5000]
    assert order("fifo") == [4000, 5000, 7000]
    assert order(2) == [7000, 2000, 6000]  # the third takes the place of the second
    assert order(3) == order("fair")


def test_small_transfers_one_after_another_lose_nothing_to_rounding() -> None:
    link = Link(3, sharing="fifo")
    assert duration_ns(lambda: together(*(link.send(4) for _ in range(1000)))) == 1334  # 1333.3, and not 2000


def test_very_slow_transfers_end_although_floats_are_coarse() -> None:
    """Rates are so small beside the bytes that what is left of a transfer that is due does not round to nothing."""
    sizes = [10**8 + 12_345 * index for index in range(60)]
    for bandwidth in (1e-9, 1e-6, 1e-5):
        link = Link(bandwidth)
        done_ns = max(simulated(lambda link=link: ends(link.send(size) for size in sizes)))  # type: ignore[misc]
        assert done_ns == pytest.approx(sum(sizes) / bandwidth, rel=1e-12)


def test_use_counts_bytes_busy_time_and_queueing() -> None:
    link = Link(1, sharing="fifo")

    async def main() -> LinkUse:
        await sleep_ns(500)
        await together(link.send(1000), link.send(1000))
        await sleep_ns(500)
        return link.use()

    assert simulated(main) == LinkUse(bytes=2000, transfers=2, cancelled=0, busy_ns=2000, queued_ns=1000)


def test_use_counts_what_is_under_way() -> None:
    link = Link(2)

    async def main() -> LinkUse:
        sending = asyncio.ensure_future(link.send(10_000))
        await sleep_ns(1000)
        use = link.use()
        assert link.in_flight == 1
        assert link.rate_gb_s == 2
        await sending
        return use

    assert simulated(main) == LinkUse(bytes=2000, transfers=0, cancelled=0, busy_ns=1000, queued_ns=0)


@pytest.mark.parametrize(("sharing", "carried", "end"), [("fair", 250, 1250), ("fifo", 500, 1500), (2, 250, 1250)])
def test_a_cancelled_transfer_leaves_the_link_at_once(sharing: str, carried: int, end: int) -> None:
    link = Link(1, sharing=sharing)  # type: ignore[arg-type]

    async def main() -> int:
        first, second = (asyncio.ensure_future(link.send(1000)) for _ in range(2))
        await sleep_ns(500)
        first.cancel()
        await second
        return now_ns()

    assert simulated(main) == end
    queued_ns = end - 1000
    assert link.use() == LinkUse(bytes=1000 + carried, transfers=1, cancelled=1, busy_ns=end, queued_ns=queued_ns)


def test_a_transfer_that_is_cancelled_in_line_is_forgotten() -> None:
    link = Link(1, sharing="fifo")

    async def main() -> list[int]:
        first, second = (asyncio.ensure_future(link.send(1000)) for _ in range(2))
        await sleep_ns(100)
        second.cancel()
        third = asyncio.ensure_future(link.send(1000))
        await asyncio.wait([first, second])
        assert link.in_flight == 1
        await third
        return [now_ns()]

    assert simulated(main) == [2000]


def test_many_cancelled_transfers_leave_nothing_behind() -> None:
    link = Link(1)

    async def main() -> int:
        sending = [asyncio.ensure_future(link.send(10**6 + i)) for i in range(500)]
        await sleep_ns(10)
        for task in sending[1:]:
            task.cancel()
        await sending[0]
        assert len(link._path.flows) == 0
        return now_ns()

    assert simulated(main) == 10**6 + 10  # 10 ns at a 500th of the link, then all of it


def test_a_link_that_is_degraded_and_repaired() -> None:
    link = Link(10)

    async def main() -> int:
        sending = asyncio.ensure_future(link.send(10_000))
        await sleep_ns(500)
        link.bandwidth_gb_s = 5
        await sleep_ns(200)
        link.bandwidth_gb_s = 0
        await sleep_ns(10_000)
        assert link.rate_gb_s == 0
        link.bandwidth_gb_s = 10
        await sending
        return now_ns()

    assert simulated(main) == 500 + 200 + 10_000 + 400


def test_a_transfer_over_a_link_that_stays_down_is_named_in_the_report() -> None:
    link = Link(10, name="nic0")

    async def main() -> None:
        link.bandwidth_gb_s = 0
        await link.send(1000)

    with pytest.raises(DeadlockError, match="transfer of 1,000 bytes over nic0"):
        run(main)


def test_no_bytes_take_the_latency_alone() -> None:
    assert duration_ns(lambda: Link(1, 70).send(0)) == 70


def test_a_link_works_in_a_second_run_after_one_that_was_cut_off() -> None:
    link = Link(1)

    async def main() -> int:
        await link.send(1000)
        return now_ns()

    assert run(main, until=500e-9) is None
    assert simulated(main) == 1000
    assert link.use().transfers == 1
    assert link.use().cancelled == 1


def test_a_link_works_on_an_ordinary_loop() -> None:
    link = Link(1, latency_us=100)

    async def main() -> float:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await together(link.send(10**6), link.send(10**6))
        return loop.time() - begin

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert 0.002 <= runner.run(main()) < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bandwidth_gb_s": 0}, "bandwidth 0 GB/s cannot be used"),
        ({"bandwidth_gb_s": float("nan")}, "bandwidth nan GB/s"),
        ({"bandwidth_gb_s": 1, "latency_ns": -1}, "latency -1 ns"),
        ({"bandwidth_gb_s": 1, "latency_ns": 1, "latency_us": 1}, "not both"),
        ({"bandwidth_gb_s": 1, "sharing": "fare"}, "did you mean 'fair'"),
        ({"bandwidth_gb_s": 1, "sharing": 0}, "sharing 0 cannot be used"),
    ],
)
def test_what_cannot_be_a_link(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Link(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("nbytes", [-1, 1.5, float("nan"), float("inf")])
def test_what_cannot_be_sent(nbytes: int) -> None:
    with pytest.raises(InputError, match="whole number"):
        run(Link(1).send(nbytes))
