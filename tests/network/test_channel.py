from __future__ import annotations

import asyncio
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.clock import now_ns, run, sleep_ns
from simloop.errors import DeadlockError, InputError
from simloop.network import Channel, ClosedError, Fabric, Link, Stream, pipeline_ns, split, streamed_ns
from tests.network.helpers import duration_ns, simulated, together

TIMES = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12)


async def pipeline(times: list[tuple[int, int]], capacity: int | None, link: Link) -> None:
    """Load items over a link of 1 byte per ns, and compute each before asking for the next."""
    channel: Channel[int] = Channel(link, capacity)

    async def load() -> None:
        for transfer, compute in times:
            await channel.put(compute, nbytes=transfer)
        channel.close()

    async def use() -> None:
        async for compute in channel:
            await sleep_ns(compute)

    await together(load(), use())


@pytest.mark.parametrize("capacity", [0, 1, 2, 4, None])
@given(times=TIMES)
@settings(max_examples=60, deadline=None)
def test_the_overlap_of_a_pipeline_is_the_closed_form(capacity: int | None, times: list[tuple[int, int]]) -> None:
    expected = pipeline_ns([transfer for transfer, _ in times], [compute for _, compute in times], capacity)
    assert duration_ns(lambda: pipeline(times, capacity, Link(1))) == expected


@pytest.mark.parametrize("compute", [1000, 300])
def test_a_pipeline_of_equal_items(compute: int) -> None:
    """Transfers of 700 hidden behind computations of 1000, and sticking out over computations of 300."""
    times = [(700, compute)] * 10

    def measured(capacity: int | None) -> int:
        return duration_ns(lambda: pipeline(times, capacity, Link(1)))

    assert measured(0) == 10 * (700 + compute)
    for capacity in (1, 2, 4, None):
        assert measured(capacity) == 700 + 9 * max(700, compute) + compute


def test_more_buffers_help_when_times_vary() -> None:
    times = [(100, 400), (100, 0), (100, 0), (100, 400), (400, 100)] * 3
    totals = [duration_ns(lambda k=k: pipeline(times, k, Link(1))) for k in (0, 1, 2, 4)]  # type: ignore[misc]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == 4


def test_items_arrive_in_order_a_latency_after_they_left() -> None:
    async def main() -> list[tuple[str, int]]:
        channel: Channel[str] = Channel(Link(1, 500))
        received = []

        async def receive() -> None:
            async for item in channel:
                received.append((item, now_ns()))  # noqa: PERF401

        async def send() -> None:
            for item in "abc":
                await channel.put(item, nbytes=1000)
            assert now_ns() == 3000
            channel.close()

        await together(receive(), send())
        return received

    assert simulated(main) == [("a", 1500), ("b", 2500), ("c", 3500)]


def test_a_cancelled_put_gives_its_place_and_its_bandwidth_back() -> None:
    async def main() -> int:
        channel: Channel[str] = Channel(Link(1), capacity=1)
        first = asyncio.ensure_future(channel.put("first", nbytes=1000))
        second = asyncio.ensure_future(channel.put("second", nbytes=1000))
        await sleep_ns(500)
        first.cancel()
        assert await channel.get() == "second"
        await second
        return now_ns()

    assert simulated(main) == 1500


def test_a_put_that_is_cancelled_in_line_lets_the_next_one_go() -> None:
    async def main() -> list[str]:
        channel: Channel[str] = Channel(capacity=1)
        puts = [asyncio.ensure_future(channel.put(item)) for item in "abc"]
        await sleep_ns(1)
        puts[1].cancel()
        items = [await channel.get(), await channel.get()]
        await puts[2]
        assert len(channel) == 0
        return items

    assert simulated(main) == ["a", "c"]


def test_an_item_handed_to_a_cancelled_receiver_goes_to_the_next() -> None:
    async def main() -> str:
        channel: Channel[str] = Channel()
        first = asyncio.ensure_future(channel.get())
        second = asyncio.ensure_future(channel.get())
        await sleep_ns(1)
        await channel.put("item")
        first.cancel()
        return await second

    assert simulated(main) == "item"


def test_a_channel_closes_for_everybody() -> None:
    async def main() -> list[object]:
        channel: Channel[str] = Channel(capacity=0, name="kv")
        full: Channel[str] = Channel(capacity=1)
        await full.put("last")
        waiting = [asyncio.ensure_future(full.put("more")), asyncio.ensure_future(channel.get())]
        await sleep_ns(1)
        channel.close()
        full.close()
        outcomes: list[object] = await asyncio.gather(*waiting, return_exceptions=True)
        assert await full.get() == "last"
        return [*outcomes, *await asyncio.gather(channel.put("x"), full.get(), return_exceptions=True)]

    assert [type(outcome) for outcome in simulated(main)] == [ClosedError] * 4


def test_a_receiver_of_nothing_is_named_in_the_report() -> None:
    with pytest.raises(DeadlockError, match="kv from prefill"):
        run(Channel(name="kv from prefill").get())


@given(
    produce=st.lists(st.integers(0, 50), min_size=1, max_size=10),
    parts=st.lists(st.integers(0, 50), min_size=10, max_size=10),
    latency=st.integers(0, 30),
)
@settings(max_examples=60, deadline=None)
def test_a_stream_takes_what_the_closed_form_says(produce: list[int], parts: list[int], latency: int) -> None:
    sizes = parts[: len(produce)]

    async def main() -> None:
        stream = Stream(Link(1, latency), sizes)
        for step in produce:
            await sleep_ns(step)
            stream.ready()
        await stream.arrived()
        ends = [streamed_ns(produce[: i + 1], sizes[: i + 1], latency) for i in range(len(sizes))]
        assert stream.arrival_ns == ends

    assert duration_ns(main) == streamed_ns(produce, sizes, latency)


def test_the_receiver_of_a_stream_may_begin_with_the_first_parts() -> None:
    async def main() -> list[int]:
        stream = Stream(Link(1, 100), split(4000, 4))
        stream.ready_all()
        times = []
        for count in (1, 3, None):
            await stream.arrived(count)
            times.append(now_ns())
        return times

    assert simulated(main) == [1100, 3100, 4100]


def test_a_stream_that_is_cancelled_tells_who_waits_and_frees_the_link() -> None:
    link = Link(1)

    async def main() -> int:
        stream = Stream(link, [1000] * 4, name="kv of request 7")
        stream.ready_all()
        waiting = asyncio.ensure_future(stream.arrived())
        await stream.arrived(1)
        await sleep_ns(500)
        stream.cancel()
        with pytest.raises(ClosedError, match="kv of request 7 was cancelled when 1 of 4 parts"):
            await waiting
        with pytest.raises(ClosedError):
            stream.ready()
        await link.send(1000)
        return now_ns()

    assert simulated(main) == 2500


def test_streams_on_one_link_share_it() -> None:
    async def main() -> None:
        link = Link(1)
        streams = [Stream(link, [100] * 10) for _ in range(4)]
        for stream in streams:
            stream.ready_all()
        await together(*(stream.arrived() for stream in streams))

    assert duration_ns(main) == 4000


def test_a_stream_goes_over_a_path_of_a_fabric() -> None:
    fabric = Fabric()
    fabric.connect("a", "b", bandwidth_gb_s=1, latency_ns=10)
    fabric.connect("b", "c", bandwidth_gb_s=2, latency_ns=20)

    async def main() -> None:
        stream = Stream(fabric.path("a", "c"), [100, 100])
        stream.ready(2)
        await stream.arrived()

    assert duration_ns(main) == 230


@given(st.integers(0, 10**12), st.integers(1, 200))
def test_parts_add_up(nbytes: int, parts: int) -> None:
    sizes = split(nbytes, parts)
    assert list(accumulate(sizes))[-1] == nbytes
    assert len(sizes) == parts
    assert max(sizes) - min(sizes) <= 1


def test_what_a_stream_and_a_channel_refuse() -> None:
    async def main() -> None:
        with pytest.raises(InputError, match="-1 bytes"):
            Stream(Link(1), [5, -1])
        with pytest.raises(InputError, match="3 parts of stream cannot be made ready: 2 of 2 are left"):
            Stream(Link(1), [5, 5]).ready(3)
        with pytest.raises(InputError, match="it has 2"):
            await Stream(Link(1), [5, 5]).arrived(3)
        with pytest.raises(InputError, match="capacity -1"):
            Channel(capacity=-1)
        with pytest.raises(InputError, match="0 parts"):
            split(10, 0)

    run(main)
