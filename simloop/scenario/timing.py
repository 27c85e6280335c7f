"""What prices the iterations of a group of workers, and how the memory of its devices is shared out."""

from __future__ import annotations

from pathlib import Path

from simloop.errors import InputError
from simloop.hardware import (
    Device,
    MemoryPlan,
    Pipeline,
    Roofline,
    TimingModel,
    TokenSim,
    memory_plan,
    profile,
    serving_dtype,
    tokensim_memory,
)
from simloop.model import Balanced, Experts, Model, Plan, RandomRouting, Recorded, Routing
from simloop.scenario.structs import RecordedRouting, WorkerGroup

__all__ = ["expert_routing", "iteration_timing", "shared_memory"]


def shared_memory(spec: WorkerGroup, model: Model, device: Device, plan: Plan) -> MemoryPlan:
    """Return how a device's memory is shared out.

    Raises:
        InputError: The model does not fit.
    """
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


def expert_routing(spec: WorkerGroup, model: Model, seed: int) -> Routing | None:
    """Return how tokens spread over experts, or None for the timing model's own rule.

    Raises:
        InputError: The model has no experts, or the recorded choices are not right.
    """
    wanted = spec.timing.routing
    if wanted is None:
        return None
    layers = [(operator, calls) for operator, calls in model.operators() if isinstance(operator, Experts)]
    if not layers:
        raise InputError(f"says nothing: {model.name} has no experts")
    if isinstance(wanted, RecordedRouting):
        return Recorded.read(Path(wanted.recorded), layers[0][0], sum(calls for _, calls in layers))
    return RandomRouting(seed) if wanted == "random" else Balanced()


def iteration_timing(
    spec: WorkerGroup, model: Model, device: Device, plan: Plan, routing: Routing | None
) -> TimingModel:
    """Return what prices the iterations of a group.

    Raises:
        InputError: The measurements are not right, or do not go with the model, the device or the plan.
    """
    if plan.pipeline_parallel == 1:
        return _stage_timing(spec, model, device, plan, routing, None)
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
        return profile.KernelTiming(
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
    return profile.ProfileTiming(
        timing.path or "",
        model,
        tp=plan.tensor_parallel,
        all_reduce=timing.all_reduce,
        ep=plan.expert_ranks if plan.expert_parallel else 1,
        dp=plan.data_parallel,
        pp=plan.pipeline_parallel,
        stage=stage,
        routing=routing,
        overheads=overheads,
        strict=timing.strict,
        device=device,
    )
