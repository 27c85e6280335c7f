"""Plans, mixtures and quantised weights against a slow sum over every operator of every layer."""

from __future__ import annotations

import itertools
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.hardware import Device, Pipeline, Roofline, Shape, load_device, memory_plan
from simloop.hardware.calibration import GemmFit
from simloop.model import (
    Attention,
    Balanced,
    Collective,
    Elementwise,
    Experts,
    Gemm,
    LatentAttention,
    Model,
    Plan,
    RandomRouting,
    Recorded,
    load_model,
    shard,
)
from tests.hardware.tiles_reference import takes_tiles, tiles_ns

PLANS = {
    "llama-3.1-8b": [Plan(), Plan(tensor_parallel=4)],
    "qwen3-30b-a3b-fp8": [Plan(), Plan(tensor_parallel=8), Plan(data_parallel=4, expert_parallel=True)],
    "deepseek-v2-lite": [Plan(tensor_parallel=2, expert_parallel=True)],
    "gpt-oss-20b": [Plan(), Plan(tensor_parallel=2, data_parallel=2, all2all_backend="all_to_all")],
    "gemma-3-1b": [Plan()],
    "llama-3.1-8b-w8a8": [Plan(tensor_parallel=2)],
    "qwen2.5-7b-awq": [Plan()],
}
CASES = [(name, plan) for name, plans in PLANS.items() for plan in plans]
DEVICES = ["h100-sxm-80gb", "a100-sxm-80gb", "h200-sxm-141gb"]

shapes = st.builds(
    Shape.mixed,
    st.lists(st.tuples(st.integers(1, 700), st.integers(0, 5000)), max_size=2),
    st.lists(st.integers(1, 9000), min_size=1, max_size=70),
)


def product_s(device: Device, fit: GemmFit, dtype: str, flops: float, moved: float) -> float:
    compute = flops / (fit.compute_efficiency * device.peak_tflops.get(dtype, device.peak_tflops["bfloat16"]) * 1e12)
    memory = moved / (fit.memory_efficiency * device.memory_bandwidth_gb_s * 1e9)
    busy: float = (compute**fit.sharpness + memory**fit.sharpness) ** (1 / fit.sharpness)
    return fit.overhead_us * 1e-6 + busy


def decode_s(operator: Attention | LatentAttention, device: Device, shape: Shape, kv: int) -> float:
    fits = device.calibration
    latent = isinstance(operator, LatentAttention) and fits.latent_decode is not None
    fit = fits.latent_decode if latent and fits.latent_decode is not None else fits.decode_attention
    n, context = shape.num_decodes, shape.decode_context
    if takes_tiles(operator, device, mixed=False, kv=kv):
        assert isinstance(operator, Attention)
        return tiles_ns(operator, device, n, context) / 1e9
    if operator.window is not None:
        context = min(context, n * operator.window)
    if isinstance(operator, LatentAttention):
        flops, moved = 2 * operator.num_heads * (576 + 512) * context, context * 576 * kv
        moved += n * operator.num_heads * (576 + 512) * 2
    else:
        flops = 4 * operator.num_heads * operator.head_dim * context
        moved = context * 2 * operator.num_kv_heads * operator.head_dim * kv
        moved += n * 2 * operator.num_heads * operator.head_dim * 2
    compute = flops / (fit.compute_efficiency * device.peak_flops("bfloat16"))
    memory = moved / (fit.memory_efficiency * device.memory_bandwidth_gb_s * 1e9)
    return fit.overhead_us * 1e-6 + max(compute, memory)


def prefill_s(operator: Attention | LatentAttention, device: Device, shape: Shape, kv: int) -> float:
    fit, heads = device.calibration.prefill_attention, operator.num_heads
    seconds = fit.overhead_us * 1e-6
    for new, cached in shape.chunks:
        pairs = sum(min(cached + i, operator.window or math.inf) + fit.ramp_tokens / 2 for i in range(1, new + 1))
        if isinstance(operator, LatentAttention):
            flops = 2 * heads * (192 + 128) * pairs + 2 * 512 * heads * (128 + 128) * cached
            moved = heads * (192 + 128) * (2 * new + kv * (new + cached))
        else:
            flops = 4 * heads * operator.head_dim * pairs
            moved = 2 * operator.head_dim * (2 * new * heads + kv * (new + cached) * operator.num_kv_heads)
        compute = flops / (fit.compute_efficiency * device.peak_flops("bfloat16"))
        seconds += max(compute, moved / (fit.memory_efficiency * device.memory_bandwidth_gb_s * 1e9))
    return seconds


def reference_ns(name: str, device: Device, plan: Plan, shape: Shape, kv: int = 2) -> float:
    """Sum over the operators of one rank, written apart from the roofline."""
    fits, model = device.calibration, load_model(name).with_dtype("bfloat16")
    links = device.links()
    seconds, launching = 0.0, 0.0
    for operator, calls in shard(model, plan)[0].operators:
        rows = shape.num_sequences if operator.per == "sequence" else shape.num_tokens
        launching += calls * fits.launch.kernel_us
        if isinstance(operator, Attention | LatentAttention):
            one = decode_s(operator, device, shape, kv) + (
                prefill_s(operator, device, shape, kv) if shape.chunks else 0
            )
        elif isinstance(operator, Collective):
            launching += calls * max(0, links.launch_us - fits.launch.kernel_us)
            fit = next(fit for fit in getattr(links, operator.kind) if fit.ranks == operator.ranks)
            share = (operator.ranks - 1) / operator.ranks * (2 if operator.kind == "all_reduce" else 1)
            skew_us = links.skew_us * len(bin(operator.ranks)[3:])  # powers of two alone
            one = (fit.alpha_us + skew_us) * 1e-6 + share * rows * operator.elements * 2 / (fit.bus_gb_s * 1e9)
        elif isinstance(operator, Elementwise):
            moved = 2 * rows * operator.moved
            one = fits.elementwise.overhead_us * 1e-6
            one += moved / (fits.elementwise.memory_efficiency * device.memory_bandwidth_gb_s * 1e9)
        elif isinstance(operator, Experts):
            tokens, share = rows * plan.data_parallel, operator.top_k / operator.num_experts
            pairs, active = tokens * share * operator.local, operator.local * (1 - (1 - share) ** tokens)
            stored = operator.quantization
            weights = active * operator.weight_bytes(2) / operator.local
            bytes_moved = weights + pairs * (2 * operator.hidden + 3 * operator.width) * 2
            dtype = (stored.arithmetic if stored else None) or "bfloat16"
            gemm = (fits.moe_quantized.get(stored.kernel) if stored else None) or fits.moe or fits.gemm
            one = product_s(device, gemm, dtype, 6 * pairs * operator.hidden * operator.width, bytes_moved)
        else:
            assert isinstance(operator, Gemm)
            stored = operator.quantization
            gemm = (fits.gemm_quantized.get(stored.kernel) if stored else None) or fits.gemm
            weight = stored.stored_bytes(operator.k, operator.n) if stored else 2 * operator.k * operator.n
            dtype = (stored.arithmetic if stored else None) or "bfloat16"
            moved = weight + 2 * rows * (operator.k + operator.n)
            one = product_s(device, gemm, dtype, 2 * rows * operator.k * operator.n, moved)
        seconds += calls * one
    if shape.chunks:
        return max(seconds * 1e9, launching * 1e3)
    return seconds * 1e9 + fits.launch.kernel_us * 1e3


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(CASES), st.sampled_from(DEVICES), shapes, st.sampled_from(["auto", "fp8"]))
def test_equal_to_the_slow_sum(case: tuple[str, Plan], device_name: str, shape: Shape, kv: str) -> None:
    (name, plan), device = case, load_device(device_name)
    roofline = Roofline(load_model(name), device, dtype="bfloat16", plan=plan, kv_cache_dtype=kv)
    expected = reference_ns(name, device, plan, shape, 1 if kv == "fp8" else 2)
    assert roofline.iteration_ns(shape) == pytest.approx(expected, rel=1e-9, abs=0.51)
    lines = roofline.explain(shape)
    assert sum(line.ns for line in lines) == pytest.approx(expected, rel=1e-9, abs=0.51)
    assert len({line.operator for line in lines}) == len(lines)


def test_more_ranks_are_faster_and_never_as_fast_as_ideal() -> None:
    model, device, shape = load_model("llama-3.1-70b"), load_device("h100-sxm-80gb"), Shape.decode(32, 2048)
    times = [Roofline(model, device, plan=Plan(tensor_parallel=ranks)).iteration_ns(shape) for ranks in (1, 2, 4, 8)]
    for before, after in itertools.pairwise(times):
        assert before / 2 < after < before


def pipeline_of(model: Model, device: Device, plan: Plan) -> Pipeline:
    return Pipeline(model, device, plan, lambda stage: Roofline(model, device, plan=plan, stage=stage))


def test_a_pipeline_is_the_sum_of_its_stages_and_sends() -> None:
    model, device, plan = load_model("llama-3.1-8b"), load_device("a100-sxm-80gb"), Plan(pipeline_parallel=4)
    pipeline, shape = pipeline_of(model, device, plan), Shape.prefill(512)
    stages = [pipeline.stage_ns(shape, stage) for stage in range(4)]
    sends = [pipeline.send_ns(shape, stage) for stage in range(4)]
    assert pipeline.iteration_ns(shape) == sum(stages) + sum(sends)
    assert sends[3] == 0
    assert sends[0] == sends[2] == round(device.links().send_ns(512 * 2 * 4096 * 2))
    whole = Roofline(model, device).iteration_ns(shape)
    assert sum(stages) == pytest.approx(whole, rel=1e-6)


def test_tensor_parallel_stages_send_their_part_and_gather() -> None:
    model, device = load_model("llama-3.1-8b"), load_device("a100-sxm-80gb")
    pipeline = pipeline_of(model, device, Plan(tensor_parallel=2, pipeline_parallel=2))
    size = 64 * 2 * 4096 * 2
    expected = device.links().send_ns(size / 2) + sum(device.links().collective_ns("all_gather", 2, size))
    assert pipeline.send_ns(Shape.prefill(64), 0) == round(expected)


def test_a_stage_has_to_be_chosen() -> None:
    model, device, plan = load_model("llama-3.1-8b"), load_device("a100-sxm-80gb"), Plan(pipeline_parallel=2)
    with pytest.raises(InputError, match="a plan of 2 pipeline stages takes a Pipeline, or a stage of it"):
        Roofline(model, device, plan=plan)
    with pytest.raises(InputError, match=r"there is no stage 2 \(there are: 0 to 1\)"):
        Roofline(model, device, plan=plan, stage=2)


def test_a_plan_needs_links() -> None:
    device = load_device("a100-sxm-80gb").with_(interconnect=None)
    model = load_model("llama-3.1-8b")
    assert Roofline(model, device).iteration_ns(Shape.decode(1, 1)) > 0
    with pytest.raises(InputError, match="states no interconnect"):
        Roofline(model, device, plan=Plan(tensor_parallel=2))
    with pytest.raises(InputError, match="states no interconnect"):
        pipeline_of(model, device, Plan(pipeline_parallel=2))


def test_skewed_routing_costs_time_where_experts_are_on_ranks() -> None:
    model, device, shape = load_model("qwen3-30b-a3b"), load_device("h100-sxm-80gb"), Shape.prefill(4096)
    plan = Plan(tensor_parallel=4, expert_parallel=True)
    skewed = Recorded((tuple(1.0 / (place + 1) for place in range(128)),))
    even, drawn, recorded = (
        Roofline(model, device, plan=plan, routing=routing).iteration_ns(shape)
        for routing in (Balanced(), RandomRouting(3), skewed)
    )
    assert even < drawn < recorded
    assert Roofline(model, device, plan=plan, routing=RandomRouting(3)).iteration_ns(shape) == drawn


def test_small_weights_decode_faster() -> None:
    device, shape = load_device("h100-sxm-80gb"), Shape.decode(8, 1024)
    wide, narrow = (Roofline(load_model(f"llama-3.1-8b{end}"), device).iteration_ns(shape) for end in ("", "-fp8"))
    assert 0.5 < narrow / wide < 0.8
    small = Roofline(load_model("llama-3.1-8b"), device, kv_cache_dtype="fp8")
    assert small.iteration_ns(Shape.decode(64, 8000)) < Roofline(load_model("llama-3.1-8b"), device).iteration_ns(
        Shape.decode(64, 8000)
    )


def test_precisions_that_a_device_lacks_are_widened() -> None:
    """An A100 has no fp8 arithmetic: weights are still half as large, and prefill has the speed of bfloat16."""
    a100 = load_device("a100-sxm-80gb")
    wide, narrow = (Roofline(load_model(f"llama-3.1-8b{end}"), a100) for end in ("", "-fp8"))
    assert narrow.iteration_ns(Shape.prefill(4096)) == pytest.approx(wide.iteration_ns(Shape.prefill(4096)), rel=0.02)
    assert narrow.iteration_ns(Shape.decode(1, 100)) < 0.7 * wide.iteration_ns(Shape.decode(1, 100))


def test_blocks_of_a_real_engine_on_two_devices() -> None:
    """vLLM 0.15.1, CodeLlama-34B on two H100s: 26,602 blocks on each."""
    model, device = load_model("codellama-34b"), load_device("h100-sxm-80gb")
    plan = memory_plan(model, device, max_num_seqs=128, plan=Plan(tensor_parallel=2))
    assert plan.num_blocks == pytest.approx(26_602, rel=0.005)


def test_memory_of_a_rank() -> None:
    model, device = load_model("llama-3.1-70b"), load_device("h100-sxm-80gb")
    with pytest.raises(InputError, match=r"llama-3.1-70b needs 70.6 GB of weights on each of 2; h100-sxm-80gb at 0.8"):
        memory_plan(model, device, plan=Plan(tensor_parallel=2), gpu_memory_utilization=0.8)
    four, stages = (
        memory_plan(model, device, plan=plan) for plan in (Plan(tensor_parallel=4), Plan(pipeline_parallel=4))
    )
    assert four.block_bytes == stages.block_bytes == 16 * 327_680 // 4
    assert stages.weight_bytes == pytest.approx(four.weight_bytes, rel=0.05)
    fp8 = memory_plan(model, device, plan=Plan(tensor_parallel=4), kv_cache_dtype="fp8")
    assert fp8.num_blocks == pytest.approx(2 * four.num_blocks, abs=1)


def test_latent_caches_are_not_divided() -> None:
    model, device = load_model("deepseek-v2-lite"), load_device("h100-sxm-80gb")
    assert memory_plan(model, device, plan=Plan(tensor_parallel=4)).block_bytes == 16 * model.kv_bytes_per_token


def test_short_windows_are_kept_apart() -> None:
    model, device = load_model("gpt-oss-20b"), load_device("h100-sxm-80gb")
    plan = memory_plan(model, device)
    assert plan.block_bytes == 16 * model.kv_bytes_per_token // 2
    assert plan.window_bytes == 12 * 2 * 8 * 64 * 2 * (256 * 128 + 2048)
    assert "KV of sliding windows" in str(plan)
    gemma = memory_plan(load_model("gemma-3-27b"), device)
    assert gemma.window_bytes == 0
    assert gemma.block_bytes == 16 * load_model("gemma-3-27b").kv_bytes_per_token


def test_kernels_that_no_card_knows_take_the_next_best() -> None:
    fits = load_device("h100-sxm-80gb").calibration
    assert fits.for_gemm("nvfp4") is fits.gemm
    assert fits.for_experts("nvfp4") is fits.moe
    bare = msgspec.structs.replace(fits, moe=None, moe_quantized={})
    assert bare.for_experts("fp8") is bare.for_experts(None) is bare.gemm
