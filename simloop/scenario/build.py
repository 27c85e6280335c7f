"""From what a scenario says to a cluster that can serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import attrs

from simloop.errors import InputError
from simloop.hardware import Device, MemoryPlan, Roofline, TimingModel, load_device, memory_plan
from simloop.hardware.profile import KernelTiming, ProfileTiming
from simloop.model import Experts, Model, Plan, load_model
from simloop.network import Fabric, switch
from simloop.scenario.engines import check_engine
from simloop.scenario.structs import Network, PolicyRef, Scenario, WorkerGroup
from simloop.serving import Cluster, Engine, Hooks, KVBlocks, Lockstep, PolicySource, Recorder, Worker, load_policy
from simloop.serving.check import check_worker
from simloop.serving.policy_files import fresh_policy_files

__all__ = ["build_cluster", "memory_plans"]

T = TypeVar("T")


@attrs.frozen
class _Group:
    """What the workers of one group share."""

    spec: WorkerGroup
    device: Device
    model: Model
    timing: TimingModel
    memory: MemoryPlan
    schedule: PolicySource
    schedule_path: str


@fresh_policy_files()
def build_cluster(scenario: Scenario, records: Recorder, *, check: bool = False) -> Cluster:
    """Build the cluster of a scenario; policy files are executed for it, each of them once.

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
    lockstep: list[Lockstep] = []
    for number, spec in enumerate(scenario.workers):
        group = _group(scenario, spec, f"workers[{number}]")
        for place in range(spec.count):
            ranks = _engine(scenario, group, place, len(workers), records, hooks, check)
            workers.extend(ranks)
            if len(ranks) > 1 and _mixture(group.model):
                lockstep.append(Lockstep(ranks))
    control = scenario.policies.control
    controller = None if control is None else _policy(control, "control", "policies.control")
    return Cluster(
        workers,
        _located(route.make, "policies.route"),
        records,
        hooks,
        network=_fabric(scenario.network, workers),
        lockstep=lockstep,
        control=None if controller is None else _located(controller.make, "policies.control"),
        route_name=route.name,
        control_name="control" if controller is None else controller.name,
    )


def memory_plans(scenario: Scenario) -> dict[str, MemoryPlan]:
    """Return how the memory of one device is shared out, for each group of workers by its name.

    Raises:
        InputError: As for :func:`build_cluster`.
    """
    plans = {}
    for number, spec in enumerate(scenario.workers):
        group = _group(scenario, spec, f"workers[{number}]")
        plans[f"{spec.name}: {group.model.name} on {group.device.name}"] = group.memory
    return plans


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
    place = "policies.schedule" if spec.schedule is None else f"{path}.schedule"
    schedule = _policy(spec.schedule or scenario.policies.schedule, "schedule", place)
    check_engine(engine, model, schedule, f"{path}.engine")
    plan = _plan(engine, model, f"{path}.engine")
    timing_path = path if spec.timing.model == "roofline" else f"{path}.timing"
    timing = _located(lambda: _timing(spec, model, device, plan), timing_path)
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
    return _Group(spec, device, model, timing, memory, schedule, place)


def _timing(spec: WorkerGroup, model: Model, device: Device, plan: Plan) -> TimingModel:
    """Return what prices the iterations of a group."""
    timing, engine, overheads = spec.timing, spec.engine, spec.timing.added()
    if timing.model == "roofline":
        return Roofline(model, device, dtype=engine.dtype, plan=plan, kv_cache_dtype=engine.kv_cache_dtype)
    if timing.model == "kernels":
        return KernelTiming(
            timing.path or "", model, device, dtype=engine.dtype, plan=plan, overheads=overheads, strict=timing.strict
        )
    return ProfileTiming(
        timing.path or "",
        model,
        tp=plan.tensor_parallel,
        all_reduce=timing.all_reduce,
        ep=plan.expert_ranks if plan.expert_parallel else 1,
        overheads=overheads,
        strict=timing.strict,
    )


def _plan(engine: Engine, model: Model, path: str) -> Plan:
    """Return how a worker's engine spreads the model over devices; refuse what would have no effect."""
    if (found := engine.pipeline_parallel_size) > 1:
        reason = "workers do not run stages yet"
        raise InputError(f"found {found}, expected 1: {reason}", path=f"{path}.pipeline_parallel_size")
    if engine.enable_expert_parallel:
        mixture = _mixture(model)
        if not mixture or engine.tensor_parallel_size * engine.data_parallel_size == 1:
            reason = "one device holds all experts anyway" if mixture else f"{model.name} has no experts"
            raise InputError(f"found true, expected false: {reason}", path=f"{path}.enable_expert_parallel")
    return Plan(
        tensor_parallel=engine.tensor_parallel_size,
        data_parallel=engine.data_parallel_size if _mixture(model) else 1,
        expert_parallel=engine.enable_expert_parallel,
    )


def _mixture(model: Model) -> bool:
    return any(isinstance(operator, Experts) for operator, _ in model.operators())


def _engine(
    scenario: Scenario, group: _Group, place: int, index: int, records: Recorder, hooks: Hooks, check: bool
) -> list[Worker]:
    """Return the workers of one engine: its data-parallel ranks."""
    name, ranks = f"{group.spec.name}-{place}", group.spec.engine.data_parallel_size
    names = [name] if ranks == 1 else [f"{name}.{rank}" for rank in range(ranks)]
    return [_worker(scenario, group, name, index + rank, records, hooks, check) for rank, name in enumerate(names)]


def _worker(
    scenario: Scenario, group: _Group, name: str, index: int, records: Recorder, hooks: Hooks, check: bool
) -> Worker:
    overheads = group.spec.timing.added()
    return Worker(
        name=name,
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
        schedule=_located(group.schedule.make, group.schedule_path),
        policy_name=group.schedule.name,
        records=records,
        hooks=hooks,
        sample_interval_ns=round(scenario.sample_interval_s * 1e9),
        check=check_worker if check else None,
        async_scheduling=overheads is not None and overheads.async_scheduling,
        warm_up_ns=round(1e3 * overheads.first_step_us) if overheads is not None else 0,
        request_ns=round(1e3 * overheads.request_us) if overheads is not None else 0,
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
        raise InputError(error.message, path=path if error.path is None else f"{path}.{error.path}") from error
