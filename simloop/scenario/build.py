"""From what a scenario says to a cluster that can serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from simloop.errors import InputError
from simloop.hardware import Device, MemoryPlan, Roofline, load_device, memory_plan
from simloop.model import Experts, Model, Plan, load_model
from simloop.network import Fabric, switch
from simloop.scenario.structs import Network, PolicyRef, Scenario, WorkerGroup
from simloop.serving import Cluster, Engine, Hooks, KVBlocks, PolicySource, Recorder, Worker, load_policy
from simloop.serving.check import check_worker

__all__ = ["build_cluster"]

T = TypeVar("T")


@attrs.frozen
class _Group:
    """What the workers of one group share."""

    spec: WorkerGroup
    device: Device
    model: Model
    timing: Roofline
    memory: MemoryPlan
    schedule: PolicySource


def build_cluster(scenario: Scenario, records: Recorder, *, check: bool = False) -> Cluster:
    """Build the cluster of a scenario.

    Args:
        scenario: What to build.
        records: Where the cluster writes what happens.
        check: Check every worker's invariants after every iteration (slow).

    Raises:
        InputError: A model, device or policy does not exist or does not fit.
    """
    hooks = Hooks()
    route = _policy(scenario.policies.route, "route", "policies.route")
    workers: list[Worker] = []
    for number, spec in enumerate(scenario.workers):
        group = _group(scenario, spec, f"workers[{number}]")
        for place in range(spec.count):
            workers.append(_worker(scenario, group, place, len(workers), records, hooks, check))
    control = scenario.policies.control
    return Cluster(
        workers,
        route.make(),
        records,
        hooks,
        network=_fabric(scenario.network, workers),
        control=None if control is None else _policy(control, "control", "policies.control").make(),
        route_name=route.name,
        control_name=_ref(control).name if control is not None else "control",
    )


def _fabric(network: Network | None, workers: Sequence[Worker]) -> Fabric | None:
    """Return one switch with a port for each worker; half of the latency is on either side of it."""
    if network is None or len(workers) < 2:
        return None
    names = [worker.name for worker in workers]
    return switch(names, bandwidth_gb_s=network.bandwidth_gb_s, latency_ns=round(network.latency_us * 500))


def _group(scenario: Scenario, spec: WorkerGroup, path: str) -> _Group:
    engine = spec.engine
    device = _located(lambda: load_device(spec.device), f"{path}.device")
    model_path = "model" if spec.model is None else f"{path}.model"
    model = _located(lambda: load_model(spec.model or scenario.model), model_path)
    plan = _plan(engine, model, f"{path}.engine")
    timing = _located(
        lambda: Roofline(model, device, dtype=engine.dtype, plan=plan, kv_cache_dtype=engine.kv_cache_dtype), path
    )
    memory = _located(
        lambda: memory_plan(
            model,
            device,
            gpu_memory_utilization=engine.gpu_memory_utilization,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_num_seqs=engine.max_num_seqs,
            block_size=engine.block_size,
            num_gpu_blocks_override=engine.num_gpu_blocks_override,
            dtype=engine.dtype,
            kv_cache_dtype=engine.kv_cache_dtype,
            plan=plan,
        ),
        path,
    )
    if spec.schedule is None:
        schedule = _policy(scenario.policies.schedule, "schedule", "policies.schedule")
    else:
        schedule = _policy(spec.schedule, "schedule", f"{path}.schedule")
    return _Group(spec, device, model, timing, memory, schedule)


def _plan(engine: Engine, model: Model, path: str) -> Plan:
    """Return how a worker's engine spreads the model over devices; refuse what would have no effect."""
    for key in ("pipeline_parallel_size", "data_parallel_size"):
        if (found := getattr(engine, key)) > 1:
            raise InputError(f"found {found}, expected 1: workers do not run more yet", path=f"{path}.{key}")
    if engine.enable_expert_parallel:
        mixture = any(isinstance(operator, Experts) for operator, _ in model.operators())
        if not mixture or engine.tensor_parallel_size == 1:
            reason = "one device holds all experts anyway" if mixture else f"{model.name} has no experts"
            raise InputError(f"found true, expected false: {reason}", path=f"{path}.enable_expert_parallel")
    return Plan(tensor_parallel=engine.tensor_parallel_size, expert_parallel=engine.enable_expert_parallel)


def _worker(
    scenario: Scenario, group: _Group, place: int, index: int, records: Recorder, hooks: Hooks, check: bool
) -> Worker:
    return Worker(
        name=f"{group.spec.name}-{place}",
        index=index,
        group=group.spec.name,
        device=group.device,
        model=group.model,
        engine=group.spec.engine,
        timing=group.timing,
        kv=KVBlocks(
            group.memory.num_blocks,
            group.spec.engine.block_size,
            prefix_caching=group.spec.engine.enable_prefix_caching,
        ),
        schedule=group.schedule.make(),
        policy_name=group.schedule.name,
        records=records,
        hooks=hooks,
        sample_interval_ns=round(scenario.sample_interval_s * 1e9),
        check=check_worker if check else None,
    )


def _policy(ref: str | PolicyRef, kind: str, path: str) -> PolicySource:
    named = _ref(ref)
    return _located(lambda: load_policy(named.name, kind, params=named.params), path)


def _ref(ref: str | PolicyRef) -> PolicyRef:
    return PolicyRef(name=ref) if isinstance(ref, str) else ref


def _located(make: Callable[[], T], path: str) -> T:
    """Call ``make``, and say which key of the scenario it was for if it cannot be made."""
    try:
        return make()
    except InputError as error:
        if error.file is not None:
            raise
        raise InputError(error.message, path=path) from error
