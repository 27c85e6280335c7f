"""From what a scenario says to a cluster that can serve."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any

from simloop.errors import InputError
from simloop.hardware import MemoryPlan, Pipeline, TokenSim
from simloop.hardware.tokensim import TOKENSIM_HOST_GB_S, TOKENSIM_HOST_NS
from simloop.network import Fabric
from simloop.scenario.fabric import build_fabric
from simloop.scenario.groups import Group, has_experts, read_group
from simloop.scenario.located import located, policy_source
from simloop.scenario.structs import HookRef, Network, Scenario, SignalSpec
from simloop.serving import (
    Cluster,
    Hooks,
    KVBlocks,
    Lockstep,
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
    route = policy_source(scenario.policies.route, "route", "policies.route")
    workers: list[Worker] = []
    lockstep: list[Lockstep] = []
    for number, spec in enumerate(scenario.workers):
        group = read_group(scenario, spec, f"workers[{number}]")
        for place in range(spec.count):
            ranks = _engine(scenario, group, place, len(workers), records, hooks, check)
            workers.extend(ranks)
            if len(ranks) > 1 and has_experts(group.model):
                lockstep.append(Lockstep(ranks, *group.exchanged_bytes))
    control = scenario.policies.control
    controller = None if control is None else policy_source(control, "control", "policies.control")
    cluster = Cluster(
        workers,
        located(route.make, "policies.route"),
        records,
        hooks,
        network=_network(scenario.network, workers),
        kv_by="whole" if scenario.network is None else scenario.network.send_kv,
        first_layers=None if scenario.network is None else scenario.network.first_layers,
        lockstep=lockstep,
        signals=_signals(scenario.policies.signals),
        control=None if controller is None else located(controller.make, "policies.control"),
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
        group = read_group(scenario, spec, f"workers[{number}]")
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


def _engine(
    scenario: Scenario, group: Group, place: int, index: int, records: Recorder, hooks: Hooks, check: bool
) -> list[Worker]:
    """Return the workers of one engine: its data-parallel ranks."""
    name, ranks = f"{group.spec.name}-{place}", group.spec.engine.data_parallel_size
    names = [name] if ranks == 1 else [f"{name}.{rank}" for rank in range(ranks)]
    return [_worker(scenario, group, name, index + rank, records, hooks, check) for rank, name in enumerate(names)]


def _worker(
    scenario: Scenario, group: Group, name: str, index: int, records: Recorder, hooks: Hooks, check: bool
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
        schedule=located(group.schedule.make, group.schedule_path),
        policy_name=group.schedule.name,
        records=records,
        hooks=hooks,
        sample_interval_ns=round(scenario.sample_interval_s * 1e9),
        check=check_worker if check else None,
        async_scheduling=overheads.async_scheduling,
        warm_up_ns=round(1e3 * overheads.first_step_us),
        request_ns=round(1e3 * overheads.request_us),
    )
    if isinstance(group.timing, Pipeline):
        Stages.of(worker, group.timing, group.spec.engine.pipeline_parallel_size)
    return worker


def _swap_space(group: Group) -> SwapSpace | None:
    """Return the host memory that a worker may swap to."""
    block_bytes = group.memory.block_bytes
    total = int(group.spec.engine.swap_space * 2**30) // block_bytes
    if group.spec.timing.model == "tokensim":
        return SwapSpace(total, block_bytes, TOKENSIM_HOST_GB_S, TOKENSIM_HOST_NS, free_return=True)
    gb_s = group.device.host_link_gb_s
    return None if gb_s is None else SwapSpace(total, block_bytes, gb_s)


def _hook(cluster: Cluster, ref: HookRef, path: str) -> None:
    """Register a breakpoint."""
    if ref.group is not None:
        group = ref.group
        located(lambda: cluster.check_group(group), f"{path}.group")
    source = located(lambda: load_policy(ref.call, "hook", params=ref.params), f"{path}.call")
    call = located(source.make, path)
    options: dict[str, Any] = {"group": ref.group, "background": ref.background, "name": ref.call}
    for key, register in (("at", cluster.hook), ("before", cluster.before), ("after", cluster.after)):
        if (where := getattr(ref, key)) is not None:
            located(partial(register, where, call, **options), f"{path}.{key}")
