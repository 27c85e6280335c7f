"""One request at a time is a textbook queue, and behaves like one."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable

import anyio
import pytest

import simloop
from simloop.serving import Engine, Request
from tests.serving.world import ConstantPrice, make_cluster, serve

SERVICE_NS = 10_000_000
REQUESTS = 60_000


def poisson(rate_per_ns: float, seed: int) -> list[tuple[int, int, int]]:
    draw, now_ns = random.Random(seed), 0.0
    rows = []
    for _ in range(REQUESTS):
        now_ns += draw.expovariate(rate_per_ns)
        rows.append((round(now_ns), 1, 1))
    return rows


def waits(load: float, service_ns: Callable[[], int], seed: int = 7) -> list[Request]:
    cluster = make_cluster(engine=Engine(max_num_seqs=1), timing=ConstantPrice(service_ns), check=False)
    return serve(cluster, poisson(load / SERVICE_NS, seed))


def interval(values: list[float], batches: int = 30) -> tuple[float, float]:
    """Return the 99 % confidence interval of the mean of a correlated series, by batch means (t with 29 degrees)."""
    size = len(values) // batches
    means = [statistics.fmean(values[i * size : (i + 1) * size]) for i in range(batches)]
    half = 2.756 * statistics.stdev(means) / math.sqrt(batches)
    return statistics.fmean(means) - half, statistics.fmean(means) + half


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_m_d_1_waiting_time(load: float) -> None:
    requests = waits(load, lambda: SERVICE_NS)
    low, high = interval([float(r.scheduled_ns - r.arrival_ns) for r in requests[2000:]])
    assert low < load * SERVICE_NS / (2 * (1 - load)) < high


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_m_m_1_waiting_time(load: float) -> None:
    draw = random.Random(11)
    requests = waits(load, lambda: round(draw.expovariate(1 / SERVICE_NS)))
    low, high = interval([float(r.scheduled_ns - r.arrival_ns) for r in requests[2000:]])
    assert low < load * SERVICE_NS / (1 - load) < high


def test_littles_law_holds_exactly_over_a_whole_run() -> None:
    """The time integral of the number in the system, by a sweep over events, is the sum of the times in it."""
    requests = waits(0.8, lambda: SERVICE_NS)
    events = sorted([(r.arrival_ns, 1) for r in requests] + [(r.finish_ns, -1) for r in requests])
    area = inside = last_ns = 0
    for time_ns, change in events:
        area += inside * (time_ns - last_ns)
        inside, last_ns = inside + change, time_ns
    assert inside == 0
    assert area == sum(r.finish_ns - r.arrival_ns for r in requests)


def test_work_is_conserved() -> None:
    """A server is never idle while somebody waits: busy time and makespan follow from the arrivals alone."""
    rows = poisson(0.7 / SERVICE_NS, 3)[:2000]
    cluster = make_cluster(engine=Engine(max_num_seqs=1), timing=ConstantPrice(lambda: SERVICE_NS))
    requests = serve(cluster, rows)
    free_ns = 0
    for request, (arrival_ns, _, _) in zip(requests, rows, strict=True):
        free_ns = max(free_ns, arrival_ns) + SERVICE_NS
        assert request.finish_ns == free_ns
    assert cluster.workers[0].busy_ns == len(rows) * SERVICE_NS


def test_the_way_to_the_queue_delays_every_request_by_as_much() -> None:
    plain, delayed = (make_cluster(timing=ConstantPrice(lambda: SERVICE_NS)) for _ in range(2))
    delayed.workers[0].request_ns = 1_234_567
    rows = [(0, 5, 3), (SERVICE_NS // 3, 9, 1), (7 * SERVICE_NS, 4, 2)]
    for one, other in zip(serve(plain, rows), serve(delayed, rows), strict=True):
        assert other.arrival_ns == one.arrival_ns
        assert (other.scheduled_ns, other.first_token_ns, other.finish_ns) == (
            one.scheduled_ns + 1_234_567,
            one.first_token_ns + 1_234_567,
            one.finish_ns + 1_234_567,
        )


def test_a_request_that_is_aborted_on_its_way_never_reaches_the_queue() -> None:
    cluster = make_cluster(timing=ConstantPrice(lambda: SERVICE_NS))
    worker = cluster.workers[0]
    worker.request_ns = SERVICE_NS

    async def main() -> int:
        async with cluster:
            with anyio.move_on_after(SERVICE_NS / 2e9):
                await cluster.generate(prompt_tokens=8, output_tokens=4)
            await simloop.sleep(3 * SERVICE_NS / 1e9)
            return worker.load

    assert (simloop.run(main()), worker.iterations) == (0, 0)
