"""Small clusters for tests, with a price that is easy to compute by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs

import simloop
from simloop.hardware import IterationShape, load_device
from simloop.metrics import Records
from simloop.model import load_model
from simloop.serving import Cluster, Engine, Hooks, KVBlocks, Request, Stages, SwapSpace, Worker, load_policy
from simloop.serving.check import check_worker
from simloop.workload import Arrival


def price_ns(chunks: list[tuple[int, int]], decodes: int, context: int, tokens: int, sequences: int) -> int:
    """An arbitrary price that looks at everything; always whole microseconds, so that arrivals can avoid ties."""
    attention = sum(new * (new + 2 * cached) for new, cached in chunks)
    return 1000 * (7 + tokens + sequences + context // 3 + attention // 50 + decodes)


@attrs.define
class ArbitraryPrice:
    """The timing model of :func:`price_ns`."""

    def iteration_ns(self, shape: IterationShape) -> int:
        return price_ns(
            list(shape.chunks), shape.num_decodes, shape.decode_context, shape.num_tokens, shape.num_sequences
        )


@attrs.define
class StagePrice(ArbitraryPrice):
    """Stages that share :func:`price_ns` unevenly, and take time to send."""

    def stage_ns(self, shape: IterationShape, stage: int) -> int:
        return stage_work_ns(self.iteration_ns(shape), stage)

    def send_ns(self, shape: IterationShape, stage: int) -> int:
        return stage_send_ns(shape.num_tokens, stage)


def stage_work_ns(whole_ns: int, stage: int) -> int:
    return 1000 * (whole_ns * (2 + stage % 2) // 5000)


def stage_send_ns(tokens: int, stage: int) -> int:
    return 1000 * (tokens // 3 + stage)


@attrs.define
class ConstantPrice:
    """Every iteration takes as long as the callable says."""

    next_ns: Callable[[], int]

    def iteration_ns(self, shape: IterationShape) -> int:
        return self.next_ns()


class Keep(Records):
    """Records that also keep the requests themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.requests_seen: list[Request] = []

    def finish(self, request: Request) -> None:  # type: ignore[override]
        self.requests_seen.append(request)
        super().finish(request)


def make_cluster(
    *,
    schedule: str = "vllm",
    route: str = "least_loaded",
    params: dict[str, Any] | None = None,
    engine: Engine | None = None,
    blocks: int = 1000,
    workers: int = 1,
    timing: Any = None,
    check: bool = True,
    stages: int = 1,
) -> Cluster:
    """Return a cluster of equal workers with a given number of KV blocks."""
    engine = engine or Engine()
    records, hooks = Keep(), Hooks()
    device, model = load_device("a100-sxm-80gb"), load_model("llama-3.1-8b")
    scheduler = load_policy(schedule, "schedule", params=params)
    made = [
        Worker(
            name=f"gpu-{index}",
            index=index,
            group="gpu",
            device=device,
            model=model,
            engine=engine,
            timing=timing or ArbitraryPrice(),
            kv=KVBlocks(blocks, engine.block_size),
            swap=SwapSpace(10_000, 1000, 1.0),
            schedule=scheduler.make(),
            policy_name=schedule,
            records=records,
            hooks=hooks,
            check=check_worker if check else None,
        )
        for index in range(workers)
    ]
    if stages > 1:
        for worker in made:
            Stages.of(worker, StagePrice(), stages)
    return Cluster(
        made,
        load_policy(route, "route").make(),
        records,
        hooks,
        route_name=route,
    )


def serve(
    cluster: Cluster,
    arrivals: Sequence[tuple[int, int, int]],
    hashes: Sequence[tuple[int, ...]] | None = None,
    hash_block_size: int = 16,
    priorities: int = 1,
) -> list[Request]:
    """Serve ``(arrival_ns, prompt, output)`` requests to the end; return them in order of arrival."""
    keys = hashes or [()] * len(arrivals)
    workload = [
        Arrival(*row, priority=index % priorities, hash_ids=key or None, hash_block_size=hash_block_size)
        for index, (row, key) in enumerate(zip(arrivals, keys, strict=True))
    ]
    simloop.run(cluster.serve(workload))
    records = cluster.records
    assert isinstance(records, Keep)
    return sorted(records.requests_seen, key=lambda request: request.id)


def token_times(cluster: Cluster) -> dict[int, list[int]]:
    """Return when each request got each of its tokens, ns, from the segments and the workers' step ends."""
    records = cluster.records
    assert isinstance(records, Keep)
    times: dict[int, list[int]] = {}
    for row in records.segments():
        ends = cluster.step_ends[row["worker"]]
        mine = times.setdefault(int(row["request_id"]), [])
        if row["first_ns"] >= 0:
            mine.append(int(row["first_ns"]))
        mine.extend(ends[row["start"] : row["end"]])
    return times
