"""What users do with a cluster: generate, stream, hang up, hook, control, and write policies that go wrong."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest

import simloop
from simloop.serving import Batch, Cluster, Engine, Moment, Request, Status, Worker, load_policy
from simloop.serving.policy import never_suspends
from tests.serving.world import Keep, make_cluster, serve, token_times

BURST = [(0, 20, 10)] * 6


def test_generate_returns_the_finished_request() -> None:
    cluster = make_cluster()

    async def main() -> Request:
        async with cluster:
            return await cluster.generate(prompt_tokens=100, output_tokens=5)

    request = simloop.run(main())
    assert isinstance(request, Request)
    assert (request.generated, request.status, request.finish_ns > request.first_token_ns) == (5, Status.FINISHED, True)


def test_tokens_stream_at_their_times() -> None:
    cluster = make_cluster()

    async def main() -> list[tuple[int, int, int]]:
        async with cluster:
            background = cluster.generate(prompt_tokens=30, output_tokens=40)
            seen = [
                (token.index, token.time_ns, simloop.now_ns())
                async for token in cluster.generate(prompt_tokens=10, output_tokens=12)
            ]
            await background
            return seen

    seen = simloop.run(main())
    assert seen is not None
    assert [index for index, _, _ in seen] == list(range(12))
    assert all(token_ns == now_ns for _, token_ns, now_ns in seen)
    assert [token_ns for _, token_ns, _ in seen] == token_times(cluster)[1]


def test_a_client_that_hangs_up_gives_its_memory_back() -> None:
    cluster = make_cluster()

    async def main() -> tuple[int, int]:
        async with cluster:
            with anyio.move_on_after(0.001):
                await cluster.generate(prompt_tokens=100, output_tokens=15_000)
            await simloop.sleep(0.1)
            return cluster.workers[0].kv.used, cluster.outstanding

    assert simloop.run(main()) == (0, 0)
    records = cluster.records
    assert isinstance(records, Keep)
    assert (records.requests_seen[0].status, records.requests_seen[0].reason) == (
        Status.FAILED,
        "aborted by the client",
    )


def test_breaking_out_of_a_stream_aborts_the_request() -> None:
    cluster = make_cluster()

    async def main() -> int:
        async with cluster:
            stream = aiter(cluster.generate(prompt_tokens=100, output_tokens=500))
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            await simloop.sleep(0.1)
            return cluster.workers[0].kv.used

    assert simloop.run(main()) == 0


def test_a_request_that_never_fits_is_rejected_with_the_reason() -> None:
    cluster = make_cluster(engine=Engine(max_model_len=100), blocks=3)

    async def main() -> list[str]:
        reasons = []
        async with cluster:
            for prompt, output in ((99, 2), (40, 10)):
                with pytest.raises(simloop.RejectedError) as caught:
                    await cluster.generate(prompt_tokens=prompt, output_tokens=output)
                reasons.append(str(caught.value))
            await cluster.generate(prompt_tokens=40, output_tokens=9)  # 48 tokens are stored: 3 blocks
        return reasons

    reasons = simloop.run(main())
    assert reasons is not None
    assert "longer than max_model_len (100 tokens)" in reasons[0]
    assert "larger than the KV memory of gpu (48 tokens)" in reasons[1]


def test_hooks_see_every_moment_in_order_and_may_delay() -> None:
    cluster = make_cluster(blocks=8)
    seen: list[tuple[str, int]] = []

    async def note(moment: Moment) -> None:
        seen.append((moment.name, moment.request.id))

    async def delay(moment: Moment) -> None:
        await simloop.sleep(1)

    for name in ("arrival", "routed", "admitted", "first_token", "token", "preempted", "finished"):
        cluster.hook(name, note)
    cluster.hook("finished", delay)
    requests = serve(cluster, [(0, 50, 30), (0, 50, 30)])
    mine = [name for name, request in seen if request == 0]
    assert mine[:5] == ["arrival", "routed", "admitted", "first_token", "token"]
    assert mine.count("token") == 30
    assert mine[-1] == "finished"
    assert ("preempted", 1) in seen
    assert requests[1].finish_ns - requests[0].finish_ns > 1_000_000_000  # the hook held the worker up


def test_an_unknown_moment_names_the_nearest() -> None:
    async def hook(moment: Moment) -> None: ...

    with pytest.raises(simloop.InputError, match=r"did you mean 'first_token'\?"):
        make_cluster().hook("frist_token", hook)


def test_a_controller_runs_beside_the_cluster_and_ends_with_it() -> None:
    cluster = make_cluster()
    ticks: list[int] = []

    async def control(cluster: Cluster) -> None:
        while True:
            await simloop.sleep(0.00001)
            ticks.append(cluster.outstanding)

    cluster.control = control
    serve(cluster, BURST)
    assert ticks
    assert max(ticks) == 6


@pytest.mark.parametrize("kind", ["schedule", "route", "hook", "control"])
def test_a_policy_that_raises_is_named_with_time_and_request(kind: str) -> None:
    async def broken(*args: Any) -> Any:
        raise ValueError("my mistake")

    cluster = make_cluster()
    if kind == "schedule":
        cluster.workers[0].schedule = broken
    elif kind == "hook":
        cluster.hook("first_token", broken)
    else:
        setattr(cluster, kind, broken)
    with pytest.raises(simloop.PolicyError, match="my mistake") as caught:
        serve(cluster, BURST)
    assert "t = 0." in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


def test_a_policy_that_overcommits_memory_is_told() -> None:
    async def greedy(worker: Worker) -> Batch:
        batch = worker.batch()
        for request in list(worker.waiting):
            worker.admit(request)
            batch.add_prefill(request, request.to_prefill)
        return batch

    cluster = make_cluster(blocks=3)
    cluster.workers[0].schedule = greedy
    with pytest.raises(simloop.PolicyError, match="2 KV blocks were scheduled where 1 of 3 are free"):
        serve(cluster, BURST)


def test_a_policy_that_does_nothing_ends_in_a_report_of_who_waits() -> None:
    async def lazy(worker: Worker) -> Batch:
        return worker.batch()

    cluster = make_cluster()
    cluster.workers[0].schedule = lazy
    with pytest.raises(simloop.DeadlockError) as caught:
        serve(cluster, BURST)
    assert "worker gpu-0 (policy vllm): 6 waiting, 0 running" in str(caught.value)
    assert "work for gpu-0" in str(caught.value)


def test_a_routing_policy_that_hangs_ends_in_a_report() -> None:
    async def hang(request: Request, cluster: Cluster) -> Worker:
        await asyncio.get_running_loop().create_future()
        return cluster.workers[0]

    cluster = make_cluster()
    cluster.route = hang
    cluster.__attrs_post_init__()
    with pytest.raises(simloop.DeadlockError, match="6 requests are being routed by least_loaded"):
        serve(cluster, BURST)


def test_a_routing_policy_may_wait() -> None:
    async def slow(request: Request, cluster: Cluster) -> Worker:
        await simloop.sleep(0.5)
        return cluster.workers[0]

    cluster = make_cluster()
    cluster.route = slow
    cluster.__attrs_post_init__()
    requests = serve(cluster, BURST)
    assert all(500_000_000 <= request.scheduled_ns < 501_000_000 for request in requests)  # they waited side by side


def test_what_contains_no_await_needs_no_task() -> None:
    async def waits(request: Request, cluster: Cluster) -> Worker:
        await simloop.sleep(1)
        return cluster.workers[0]

    assert not never_suspends(waits)
    for name in ("least_loaded", "power_of_two", "random", "round_robin"):
        assert never_suspends(load_policy(name, "route").make())


def test_static_batches_run_to_their_end_and_are_padded() -> None:
    cluster = make_cluster(schedule="static", engine=Engine(max_num_seqs=2))
    requests = serve(cluster, [(0, 10, 3), (0, 30, 6), (0, 10, 2)])
    assert requests[0].first_token_ns == requests[1].first_token_ns == 1000 * (7 + 60 + 2 + 2 * 900 // 50)
    assert requests[2].scheduled_ns == requests[1].finish_ns  # the third waits for the longest of the first two
    last = requests[1].finish_ns - token_times(cluster)[1][-2]
    assert last == 1000 * (7 + 2 + 2 + 2 * 35 // 3 + 2)  # both slots, at the longest context


def test_static_batching_waits_for_company() -> None:
    cluster = make_cluster(schedule="static", params={"batch_delay_s": 0.01}, engine=Engine(max_num_seqs=4))
    requests = serve(cluster, [(0, 10, 3), (4_000_000, 10, 3), (20_000_000, 5, 1)])
    assert [request.scheduled_ns for request in requests] == [10_000_000, 10_000_000, 30_000_000]


def test_round_robin_and_random_spread_requests() -> None:
    for route in ("round_robin", "random", "power_of_two", "least_loaded"):
        cluster = make_cluster(route=route, workers=3)
        requests = serve(cluster, [(i * 1000, 20, 10) for i in range(60)])
        counts = [sum(request.worker_index == index for request in requests) for index in range(3)]
        assert min(counts) >= 10, route
        if route == "round_robin":
            assert counts == [20, 20, 20]


def test_least_loaded_is_what_a_walk_over_all_workers_finds() -> None:
    cluster = make_cluster(workers=7, engine=Engine(max_num_seqs=2))

    async def checked(request: Request, cluster: Cluster) -> Worker:
        found = cluster.least_loaded()
        assert found is min(cluster.workers, key=lambda worker: worker.load)
        return found

    cluster.route = checked
    serve(cluster, [(i * 700, 20 + i % 30, 1 + i % 17) for i in range(400)])


def test_a_policy_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "class route:\n    def __init__(self, first=0):\n        self.n = first\n"
        "    async def __call__(self, request, cluster):\n        self.n += 1\n"
        "        return cluster.workers[self.n % 2]\n"
    )
    policy = load_policy(f"{file}:route", "route", params={"first": 1}).make()
    cluster = make_cluster(workers=2)
    cluster.route = policy
    assert [request.worker_index for request in serve(cluster, BURST)] == [0, 1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("name", "kind", "params", "message"),
    [
        ("vlm", "schedule", {}, r"no schedule policy is called 'vlm'; did you mean 'vllm'\?"),
        ("vllm", "route", {}, "policy 'vllm' is for schedule, not for route"),
        ("nowhere.py", "route", {}, "there is no file 'nowhere.py'"),
        ("no.such.module:route", "route", {}, "could not be imported"),
        ("vllm", "schedule", {"watermrk": 1}, r"has no parameter 'watermrk'; did you mean 'watermark'\?"),
        ("simloop.serving:Worker", "route", {}, "does not fit a route policy"),
        ("simloop.serving:nothing", "route", {}, "has no function 'nothing'"),
    ],
)
def test_a_wrong_policy_is_one_line(name: str, kind: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(simloop.InputError, match=message) as caught:
        load_policy(name, kind, params=params)
    assert "\n" not in str(caught.value)


def test_a_pause_shows_in_the_time_series() -> None:
    cluster = make_cluster()
    serve(cluster, [(0, 20, 5), (100_000_000_000, 20, 5)])
    records = cluster.records
    assert isinstance(records, Keep)
    rows = [(row["time_ns"] // 1_000_000_000, row["running"]) for row in records.samples()]
    assert (0, 0) in rows  # idle from the end of the first request on
    assert rows[-1] == (100, 0)


def test_block_keys_follow_the_block_size_that_is_asked_for() -> None:
    request = Request(0, 0, 64, 1, hash_ids=(1, 2), hash_block_size=32)
    assert request.block_keys(32) == (1, 2)
    assert request.block_keys(16) == ((1, 0), (1, 1), (2, 0), (2, 1))
    assert request.block_keys(32) == (1, 2)
