"""KV that is sent while it is made, and while the receiver computes: whole runs against closed forms."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simloop
from simloop.errors import InputError
from simloop.network import Fabric, pipeline_ns, split, streamed_ns, switch
from simloop.serving import Batch, Cluster, Engine, Request, Status, Worker, load_policy
from simloop.serving.kv_transfer import Preload, layers_done_ns
from tests.serving.world import Keep, make_cluster, price_ns, serve, token_times

KV_BYTES, LAYERS = 131_072, 32  # a token of Llama-3.1-8B
By = Literal["whole", "layer", "block"]


def disaggregated(
    *,
    bandwidth_gb_s: float = 8,
    sharing: Any = "fair",
    prefill: int = 1,
    decode: int = 1,
    preload: int | None = None,
    decode_seqs: int = 8,
    blocks: int = 1000,
    budget: int = 2048,
    by: By = "whole",
    first_layers: int | None = None,
) -> Cluster:
    """Return a cluster with a prefill and a decode pool, and a switch between them."""
    engine = Engine(max_num_seqs=64, max_num_batched_tokens=budget)
    cluster = make_cluster(workers=prefill + decode, schedule="disaggregated", blocks=blocks, engine=engine)
    for worker in cluster.workers:
        worker.group = "prefill" if worker.index < prefill else "decode"
        if worker.group == "decode":
            worker.engine = Engine(max_num_seqs=decode_seqs)
            worker.preload = None if preload is None else Preload(preload, worker.name)
    names = [worker.name for worker in cluster.workers]
    cluster.network = switch(names, bandwidth_gb_s=bandwidth_gb_s, fabric=Fabric(sharing=sharing))
    cluster.route = load_policy("disaggregated", "route").make()
    cluster.kv_by, cluster.first_layers = by, first_layers
    cluster.__attrs_post_init__()
    return cluster


def decode_ns(prompt: int, output: int) -> int:
    """Return what a request takes by itself after its first token."""
    return sum(price_ns([], 1, prompt + k, 1, 1) for k in range(1, output))


def prefill_ns(prompts: list[int]) -> int:
    return price_ns([(prompt, 0) for prompt in prompts], 0, 0, sum(prompts), len(prompts))


ROWS = st.lists(st.tuples(st.integers(2, 120), st.integers(2, 12)), min_size=1, max_size=10)


@given(ROWS, st.sampled_from([0, 1, 2, 4, None]), st.sampled_from([1, 4, 64, 1024]))
@settings(max_examples=120, deadline=None)
def test_a_buffered_run_takes_what_the_closed_form_says(
    rows: list[tuple[int, int]], preload: int | None, bandwidth: int
) -> None:
    """Prompts that leave together, one after another over a link, to a receiver that serves one at a time."""
    cluster = disaggregated(bandwidth_gb_s=bandwidth, sharing="fifo", preload=preload, decode_seqs=1)
    requests = serve(cluster, [(0, prompt, output) for prompt, output in rows])
    begin_ns = prefill_ns([prompt for prompt, _ in rows])
    transfers = [prompt * KV_BYTES // bandwidth for prompt, _ in rows]
    expected_ns = begin_ns + pipeline_ns(transfers, [decode_ns(*row) for row in rows], preload)
    assert requests[0].first_token_ns == begin_ns
    assert max(request.finish_ns for request in requests) == expected_ns


@pytest.mark.parametrize("bandwidth", [4, 64], ids=["transfer longer than compute", "transfer hidden"])
def test_more_places_hide_more(bandwidth: int) -> None:
    rows = [(40 + 40 * (index % 3), 2 + 60 * (index % 2)) for index in range(12)]

    def total(preload: int | None) -> int:
        cluster = disaggregated(bandwidth_gb_s=bandwidth, sharing="fifo", preload=preload, decode_seqs=1)
        return max(r.finish_ns for r in serve(cluster, [(0, *row) for row in rows])) - prefill_ns([p for p, _ in rows])

    transfer, compute = sum(p * KV_BYTES // bandwidth for p, _ in rows), sum(decode_ns(*row) for row in rows)
    times = [total(preload) for preload in (0, 1, 2, 4, None)]
    assert times[0] == transfer + compute  # sequential: nothing overlaps
    assert times == sorted(times, reverse=True)
    assert times[-1] < 1.1 * max(transfer, compute) + 120 * KV_BYTES // bandwidth  # the longer of the two, and the ends


@pytest.mark.parametrize("bandwidth", [1, 2, 64, 256, 1024])
@pytest.mark.parametrize("by", ["whole", "layer"])
def test_by_layer_a_transfer_hides_behind_the_prefill(by: By, bandwidth: int) -> None:
    cluster = disaggregated(bandwidth_gb_s=bandwidth, by=by)
    serve(cluster, [(0, 1600, 3)])
    prefill, transfer = prefill_ns([1600]), 1600 * KV_BYTES // bandwidth
    streamed = streamed_ns(split(prefill, LAYERS), split(transfer, LAYERS))
    expected = streamed if by == "layer" else prefill + transfer
    steps = [price_ns([], 1, 1600 + k, 1, 1) for k in (1, 2)]
    assert token_times(cluster)[0] == [prefill, expected + steps[0], expected + sum(steps)]
    hidden = transfer < prefill
    assert hidden == (bandwidth > 2)
    if hidden and by == "layer":
        assert expected - prefill <= transfer // LAYERS + 1  # only the last layer shows


def test_by_block_what_earlier_chunks_have_stored_leaves_during_the_last() -> None:
    cluster = disaggregated(bandwidth_gb_s=64, by="block", budget=512)
    serve(cluster, [(0, 700, 2)])
    first = price_ns([(512, 0)], 0, 0, 512, 1)
    second = first + price_ns([(188, 512)], 0, 0, 188, 1)
    rest = (700 - 512) * KV_BYTES // 64
    early = 512 * KV_BYTES // 64
    arrival = max(first + early, second) + rest
    assert token_times(cluster)[0] == [second, arrival + price_ns([], 1, 701, 1, 1)]


@given(st.integers(2, 1800), st.integers(1, LAYERS), st.sampled_from([1, 8, 64, 512]))
@settings(max_examples=60, deadline=None)
def test_a_receiver_that_starts_early_does_no_layer_before_it_is_there(
    prompt: int, first_layers: int, bandwidth: int
) -> None:
    cluster = disaggregated(bandwidth_gb_s=bandwidth, by="layer", first_layers=first_layers)
    serve(cluster, [(0, prompt, 2)])
    prefill = prefill_ns([prompt])
    made, left, arrivals = 0, 0, []
    for produce, transfer in zip(split(prefill, LAYERS), split(prompt * KV_BYTES // bandwidth, LAYERS), strict=True):
        made += produce
        left = max(left, made) + transfer
        arrivals.append(left)
    now = max(prefill, arrivals[first_layers - 1])
    for arrival, layer_ns in zip(arrivals, split(price_ns([], 1, prompt + 1, 1, 1), LAYERS), strict=True):
        now = max(now, arrival) + layer_ns
    assert abs(token_times(cluster)[0][1] - now) <= 1  # the sizes of the layers are whole bytes


def test_everybody_in_the_batch_waits_for_the_layers_of_one() -> None:
    calm = disaggregated(bandwidth_gb_s=1, by="layer")
    eager = disaggregated(bandwidth_gb_s=1, by="layer", first_layers=1)
    rows = [(0, 16, 1000), (4_000_000, 1600, 4)]
    gaps = []
    for cluster in (calm, eager):
        serve(cluster, rows)
        times = token_times(cluster)
        gaps.append(max(b - a for a, b in zip(times[0][1:], times[0][2:], strict=False)))
    assert gaps[1] > 20 * gaps[0]


@pytest.mark.parametrize("receivers", [1, 2, 8])
def test_n_decoders_that_load_from_one_port_wait_n_times_as_long(receivers: int) -> None:
    cluster = disaggregated(decode=8, bandwidth_gb_s=8)
    requests = serve(cluster, [(0, 100, 2)] * receivers)
    assert {request.worker_index for request in requests} == set(range(1, receivers + 1))
    transfer_ns = receivers * 100 * KV_BYTES // 8
    for request in requests:
        assert request.finish_ns == prefill_ns([100] * receivers) + transfer_ns + decode_ns(100, 2)


def test_a_request_on_its_way_counts_as_load() -> None:
    cluster = disaggregated(decode=2, bandwidth_gb_s=0.1)

    async def main() -> list[int]:
        async with cluster:
            for _ in range(4):
                cluster.submit(simloop.Arrival(simloop.now_ns(), 100, 2))
            await simloop.sleep(0.01)
            loads = [worker.load for worker in cluster.workers]
            await cluster.drain()
            return loads + [worker.load for worker in cluster.workers]

    assert simloop.run(main) == [0, 2, 2, 0, 0, 0]


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=15),
    st.sampled_from(["whole", "layer", "block"]),
    st.sampled_from([None, 0, 1, 3]),
    st.sampled_from(["fair", "fifo", 2]),
    st.data(),
)
def test_however_it_is_sent_everything_is_served(
    rows: list[tuple[int, int, int]], by: By, preload: int | None, sharing: Any, data: st.DataObject
) -> None:
    first_layers = data.draw(st.sampled_from([None, 1, 20])) if by == "layer" else None
    bandwidth = data.draw(st.sampled_from([0.05, 1, 50]))
    cluster = disaggregated(
        bandwidth_gb_s=bandwidth,
        sharing=sharing,
        by=by,
        first_layers=first_layers,
        preload=preload,
        blocks=12,
        budget=32,
        prefill=2,
        decode=2,
    )
    gone = data.draw(st.sets(st.integers(0, len(rows) - 1)))

    async def main() -> None:
        async with cluster:
            requests = []
            for at, prompt, output in sorted(rows):
                await simloop.sleep(at * 1e-6)
                requests.append(cluster.submit(simloop.Arrival(simloop.now_ns(), prompt, output)))
            for index in gone:
                await simloop.sleep(1e-4)
                cluster.abort(requests[index])
            await cluster.drain()

    simloop.run(main)
    records = cluster.records
    assert isinstance(records, Keep)
    times = token_times(cluster)
    for request in records.requests_seen:
        assert request.status == Status.FINISHED or request.id in gone
        if request.status == Status.FINISHED:
            assert len(times[request.id]) == request.output_tokens
            assert times[request.id] == sorted(times[request.id])
    for worker in cluster.workers:
        assert worker.kv.used == worker.load == len(worker.coming) == len(worker.incoming) == len(worker.leaving) == 0
        assert worker.preload is None or not worker.preload._held


def test_what_a_policy_may_not_hand_back_or_send() -> None:
    vllm = load_policy("vllm", "schedule").make()

    async def all_back(worker: Worker) -> Batch:
        batch: Batch = await vllm(worker)
        for request, _ in batch.prefills:
            worker.hand_back(request)
        return batch

    cluster = disaggregated(budget=50)
    cluster.workers[0].schedule = all_back
    with pytest.raises(simloop.PolicyError, match="does not read all of its prompt"):
        serve(cluster, [(0, 100, 5)])
    for arguments, message in (
        ({"by": "layers"}, "by whole, layer, block, found 'layers'; did you mean 'layer'"),
        ({"by": "block", "first_layers": 1}, "first_layers goes with KV that is sent by layer"),
        ({"by": "layer", "first_layers": 33}, "found 33, expected 1 to 32"),
    ):
        with pytest.raises((InputError, simloop.PolicyError), match=message):
            serve(_sending(arguments), [(0, 100, 5)])


def _sending(arguments: dict[str, Any]) -> Cluster:
    async def route(request: Request, cluster: Cluster) -> Worker:
        if request.worker is None:
            return cluster.workers[0]
        await cluster.send_kv(request, cluster.workers[1], **arguments)
        return cluster.workers[1]

    cluster = disaggregated()
    cluster.route = route
    cluster.__attrs_post_init__()
    return cluster


def test_a_place_that_is_given_up_goes_to_the_next_in_line() -> None:
    request = [Request(index, 0, 1, 1) for index in range(3)]

    async def main() -> list[str]:
        preload, order = Preload(1, "gpu-1"), []
        await preload.take(request[0])

        async def wait(index: int) -> None:
            await preload.take(request[index])
            order.append(f"request {index}")

        waiting = [asyncio.ensure_future(wait(index)) for index in (1, 2)]
        await simloop.sleep(1e-6)
        waiting[0].cancel()
        await simloop.sleep(1e-6)
        preload.admitted(request[0])
        await waiting[1]
        return order

    assert simloop.run(main) == ["request 2"]


def test_layers_that_were_there_cost_nothing() -> None:
    assert layers_done_ns([[1, 2, 3, 4]], 100, 140) == 140
    assert layers_done_ns([], 100, 140) == 140
    assert layers_done_ns([[0, 0, 0, 150]], 100, 140) == 160
    assert layers_done_ns([[130, 130, 130, 130], [0, 0, 150, 150]], 100, 140) == 170


def test_who_is_routed_to_where_the_prompt_is_read_goes_on_there() -> None:
    async def stay(request: Request, cluster: Cluster) -> Worker:
        return cluster.workers[0]

    cluster = disaggregated()
    cluster.route = stay
    cluster.__attrs_post_init__()
    (request,) = serve(cluster, [(0, 100, 4)])
    assert token_times(cluster)[0][-1] == prefill_ns([100]) + decode_ns(100, 4)
    assert (request.worker_index, cluster.workers[0].prefilled) == (0, 100)


def test_a_run_that_is_cut_off_while_kv_leaves_counts_everybody_once() -> None:
    cluster = disaggregated(by="layer", bandwidth_gb_s=0.1)

    async def main() -> None:
        async with cluster:
            for _ in range(3):
                cluster.submit(simloop.Arrival(simloop.now_ns(), 1000, 5))
            await simloop.sleep(1e-3)  # in the middle of the first prefill

    simloop.run(main)
    records = cluster.records
    assert isinstance(records, Keep)
    assert sorted(request.id for request in records.requests_seen) == [0, 1, 2]
    assert {request.status for request in records.requests_seen} == {Status.UNFINISHED}
