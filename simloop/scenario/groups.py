"""A group of workers as a scenario describes it: what its workers share."""

from __future__ import annotations

import attrs

from simloop.errors import InputError
from simloop.hardware import Device, MemoryPlan, TimingModel, load_device, serving_dtype
from simloop.model import Experts, Model, Plan, exchanged_bytes, load_model
from simloop.scenario.engines import check_engine
from simloop.scenario.located import located, policy_source
from simloop.scenario.structs import Scenario, WorkerGroup
from simloop.scenario.timing import expert_routing, iteration_timing, shared_memory
from simloop.serving import Engine, PolicySource

__all__ = ["Group", "has_experts", "read_group"]


@attrs.frozen
class Group:
    """What the workers of one group share."""

    spec: WorkerGroup
    device: Device
    model: Model
    timing: TimingModel
    memory: MemoryPlan
    schedule: PolicySource
    schedule_path: str
    exchanged_bytes: tuple[int, int]


def read_group(scenario: Scenario, spec: WorkerGroup, path: str) -> Group:
    """Return what the workers of a group share; ``path`` is where the scenario describes them.

    Raises:
        InputError: A model, device or policy does not exist or does not fit.
    """
    engine = spec.engine
    device = located(lambda: load_device(spec.device), f"{path}.device")
    model_path = "model" if spec.model is None else f"{path}.model"
    model = located(lambda: load_model(spec.model or scenario.model), model_path)
    place = "policies.schedule" if spec.schedule is None else f"{path}.schedule"
    schedule = policy_source(spec.schedule or scenario.policies.schedule, "schedule", place)
    check_engine(engine, model, schedule, f"{path}.engine", timing=spec.timing.model)
    plan = _plan(engine, model, f"{path}.engine")
    timing_path = path if spec.timing.model == "roofline" else f"{path}.timing"
    routing = located(lambda: expert_routing(spec, model, scenario.seed), f"{path}.timing.routing")
    timing = located(lambda: iteration_timing(spec, model, device, plan, routing), timing_path)
    memory = located(lambda: shared_memory(spec, model, device, plan), path)
    exchanged = _exchanged(model.with_dtype(serving_dtype(model, device, engine.dtype)), plan, f"{path}.engine")
    return Group(spec, device, model, timing, memory, schedule, place, exchanged)


def _exchanged(model: Model, plan: Plan, path: str) -> tuple[int, int]:
    return (0, 0) if plan.data_parallel == 1 else located(lambda: exchanged_bytes(model, plan), path)


def _plan(engine: Engine, model: Model, path: str) -> Plan:
    """Return how a worker's engine spreads the model over devices; refuse what would have no effect."""
    if engine.pipeline_parallel_size > 1 < engine.data_parallel_size and has_experts(model):
        reason = "data-parallel ranks that share experts iterate together, which stages cannot"
        raise InputError(
            f"found {engine.pipeline_parallel_size}, expected 1: {reason}", path=f"{path}.pipeline_parallel_size"
        )
    if engine.enable_expert_parallel:
        mixture = has_experts(model)
        if not mixture or engine.tensor_parallel_size * engine.data_parallel_size == 1:
            reason = "one device holds all experts anyway" if mixture else f"{model.name} has no experts"
            raise InputError(f"found true, expected false: {reason}", path=f"{path}.enable_expert_parallel")
    return Plan(
        tensor_parallel=engine.tensor_parallel_size,
        pipeline_parallel=engine.pipeline_parallel_size,
        data_parallel=engine.data_parallel_size if has_experts(model) else 1,
        expert_parallel=engine.enable_expert_parallel,
    )


def has_experts(model: Model) -> bool:
    """Return whether a model has a mixture of experts."""
    return any(isinstance(operator, Experts) for operator, _ in model.operators())
