"""From what a scenario says to a cluster that can serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs

from simloop.errors import InputError
from simloop.hardware import (
    Device,
    MemoryPlan,
    Pipeline,
    Roofline,
    TimingModel,
    TokenSim,
    load_device,
    memory_plan,
    serving_dtype,
    tokensim_memory,
)
from simloop.hardware.profile import KernelTiming, ProfileTiming
from simloop.hardware.tokensim import TOKENSIM_HOST_GB_S, TOKENSIM_HOST_NS
from simloop.model import Balanced, Experts, Model, Plan, RandomRouting, Recorded, Routing, exchanged_bytes, load_model
from simloop.network import Fabric
from simloop.scenario.engines import check_engine
from simloop.scenario.fabric import build_fabric
from simloop.scenario.structs import (
    HookRef,
    Network,
    PolicyRef,
    RecordedRouting,
    Scenario,
    SignalSpec,
    WorkerGroup,
)
from simloop.serving import (
    Cluster,
    Engine,
    Hooks,
    KVBlocks,
    Lockstep,
    PolicySource,
    Preload,
    Recorder,
    Signals,
    Stages,
    SwapSpace,
    Worker,
    load_policy,
)
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
    exchanged_bytes: tuple[int, int]


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
                lockstep.append(Lockstep(ranks, *group.exchanged_bytes))
    control = scenario.policies.control
    controller = None if control is None else _policy(control, "control", "policies.control")
    cluster = Cluster(
        workers,
        _located(route.make, "policies.route"),
        records,
        hooks,
        network=_network(scenario.network, workers),
        kv_by="whole" if scenario.network is None else scenario.network.send_kv,
        first_layers=None if scenario.network is None else scenario.network.first_layers,
        lockstep=lockstep,
        signals=_signals(scenario.policies.signals),
        control=None if controller is None else _located(controller.make, "policies.control"),
        route_name=route.name,
        control_name="control" if controller is None else controller.name,
    )
    for number, ref in enumerate(scenario.hooks):
        _hook(cluster, ref, f"hooks[{number}]")
    return cluster


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


def _signals(spec: SignalSpec | None) -> Signals | None:
    if spec is None:
        return None
    interval_ns, delay_ns = round(spec.interval_s * 1e9), round(spec.delay_s * 1e9)
    return Signals(interval_ns, delay_ns, spec.loss, spec.own_requests, spec.requests)


def _network(network: Network | None, workers: Sequence[Worker]) -> Fabric | None:
    """Return what links the workers, and give each its preload buffer."""
    if network is None or len(workers) < 2:
        return None
    layers = min(worker.model.num_layers for worker in workers)
    if network.first_layers is not None and network.first_layers > layers:
        message = f"found {network.first_layers}, expected at most {layers}, the layers of the model"
        raise InputError(message, path="network.first_layers")
    if network.preload is not None:
        for worker in workers:
            worker.preload = Preload(network.preload, worker.name)
    return build_fabric(network, [(worker.group, worker.name) for worker in workers])


def _group(scenario: Scenario, spec: WorkerGroup, path: str) -> _Group:
    engine = spec.engine
    device = _located(lambda: load_device(spec.device), f"{path}.device")
    model_path = "model" if spec.model is None else f"{path}.model"
    model = _located(lambda: load_model(spec.model or scenario.model), model_path)
    place = "policies.schedule" if spec.schedule is None else f"{path}.schedule"
    schedule = _policy(spec.schedule or scenario.policies.schedule, "schedule", place)
    check_engine(engine, model, schedule, f"{path}.engine", timing=spec.timing.model)
    plan = _plan(engine, model, f"{path}.engine")
    timing_path = path if spec.timing.model == "roofline" else f"{path}.timing"
    routing = _located(lambda: _routing(spec, model, scenario.seed), f"{path}.timing.routing")
    timing = _located(lambda: _timing(spec, model, device, plan, routing), timing_path)
    memory = _located(lambda: _memory(spec, model, device, plan), path)
    exchanged = _exchanged(model.with_dtype(serving_dtype(model, device, engine.dtype)), plan, f"{path}.engine")
    return _Group(spec, device, model, timing, memory, schedule, place, exchanged)


def _memory(spec: WorkerGroup, model: Model, device: Device, plan: Plan) -> MemoryPlan:
    """Return how a device's memory is shared out."""
    engine = spec.engine
    if spec.timing.model == "tokensim":
        override = engine.num_gpu_blocks_override
        return tokensim_memory(model, device, block_size=engine.block_size, num_gpu_blocks_override=override)
    return memory_plan(
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
    )


def _exchanged(model: Model, plan: Plan, path: str) -> tuple[int, int]:
    return (0, 0) if plan.data_parallel == 1 else _located(lambda: exchanged_bytes(model, plan), path)


def _routing(spec: WorkerGroup, model: Model, seed: int) -> Routing | None:
    """Return how tokens spread over experts, or None for the timing model's own rule."""
    wanted = spec.timing.routing
    if wanted is None:
        return None
    layers = [(operator, calls) for operator, calls in model.operators() if isinstance(operator, Experts)]
    if not layers:
        raise InputError(f"says nothing: {model.name} has no experts")
    if isinstance(wanted, RecordedRouting):
        return Recorded.read(Path(wanted.recorded), layers[0][0], sum(calls for _, calls in layers))
    return RandomRouting(seed) if wanted == "random" else Balanced()


def _timing(spec: WorkerGroup, model: Model, device: Device, plan: Plan, routing: Routing | None) -> TimingModel:
    """Return what prices the iterations of a group."""
    if plan.pipeline_parallel == 1:
        return _stage_timing(spec, model, device, plan, routing, None)
    if spec.timing.model == "profile":
        raise InputError(
            "found 'profile', expected 'kernels' or 'roofline': profiles are of whole models, not of stages",
            path="model",
        )
    served = model.with_dtype(serving_dtype(model, device, spec.engine.dtype))
    return Pipeline(served, device, plan, lambda stage: _stage_timing(spec, model, device, plan, routing, stage))


def _stage_timing(
    spec: WorkerGroup, model: Model, device: Device, plan: Plan, routing: Routing | None, stage: int | None
) -> TimingModel:
    """Return what prices one pipeline stage; without a number, the whole model."""
    timing, engine, overheads = spec.timing, spec.engine, spec.timing.added()
    if timing.model == "roofline":
        return Roofline(
            model,
            device,
            dtype=engine.dtype,
            plan=plan,
            stage=stage,
            kv_cache_dtype=engine.kv_cache_dtype,
            routing=routing,
            overheads=overheads,
        )
    if timing.model == "tokensim":
        return TokenSim(
            model, device, peak_tflops=timing.peak_tflops, memory_bandwidth_tb_s=timing.memory_bandwidth_tb_s
        )
    if timing.model == "kernels":
        return KernelTiming(
            timing.path or "",
            model,
            device,
            dtype=engine.dtype,
            plan=plan,
            stage=stage,
            routing=routing,
            overheads=overheads,
            strict=timing.strict,
        )
    return ProfileTiming(
        timing.path or "",
        model,
        tp=plan.tensor_parallel,
        all_reduce=timing.all_reduce,
        ep=plan.expert_ranks if plan.expert_parallel else 1,
        dp=plan.data_parallel,
        routing=routing,
        overheads=overheads,
        strict=timing.strict,
    )


def _plan(engine: Engine, model: Model, path: str) -> Plan:
    """Return how a worker's engine spreads the model over devices; refuse what would have no effect."""
    if engine.pipeline_parallel_size > 1 < engine.data_parallel_size and _mixture(model):
        reason = "data-parallel ranks that share experts iterate together, which stages cannot"
        raise InputError(
            f"found {engine.pipeline_parallel_size}, expected 1: {reason}", path=f"{path}.pipeline_parallel_size"
        )
    if engine.enable_expert_parallel:
        mixture = _mixture(model)
        if not mixture or engine.tensor_parallel_size * engine.data_parallel_size == 1:
            reason = "one device holds all experts anyway" if mixture else f"{model.name} has no experts"
            raise InputError(f"found true, expected false: {reason}", path=f"{path}.enable_expert_parallel")
    return Plan(
        tensor_parallel=engine.tensor_parallel_size,
        pipeline_parallel=engine.pipeline_parallel_size,
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
    worker = Worker(
        name=name,
        index=index,
        group=group.spec.name,
        device=group.device,
        model=group.model,
        engine=group.spec.engine,
        timing=copy(group.timing) if isinstance(group.timing, TokenSim) else group.timing,  # it keeps a remainder
        kv=KVBlocks(
            group.memory.num_blocks,
            group.spec.engine.block_size,
            prefix_caching=group.spec.engine.enable_prefix_caching,
        ),
        swap=_swap_space(group),
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
    if isinstance(group.timing, Pipeline):
        Stages.of(worker, group.timing, group.spec.engine.pipeline_parallel_size)
    return worker


def _hook(cluster: Cluster, ref: HookRef, path: str) -> None:
    """Register a breakpoint."""
    if ref.group is not None:
        group = ref.group
        _located(lambda: cluster.check_group(group), f"{path}.group")
    source = _located(lambda: load_policy(ref.call, "hook", params=ref.params), f"{path}.call")
    call = _located(source.make, path)
    options: dict[str, Any] = {"group": ref.group, "background": ref.background, "name": ref.call}
    for key, register in (("at", cluster.hook), ("before", cluster.before), ("after", cluster.after)):
        if (where := getattr(ref, key)) is not None:
            _located(partial(register, where, call, **options), f"{path}.{key}")


def _swap_space(group: _Group) -> SwapSpace | None:
    """Return the host memory that a worker may swap to."""
    block_bytes = group.memory.block_bytes
    total = int(group.spec.engine.swap_space * 2**30) // block_bytes
    if group.spec.timing.model == "tokensim":
        return SwapSpace(total, block_bytes, TOKENSIM_HOST_GB_S, TOKENSIM_HOST_NS, free_return=True)
    gb_s = group.device.host_link_gb_s
    return None if gb_s is None else SwapSpace(total, block_bytes, gb_s)


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
