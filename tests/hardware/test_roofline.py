"""The fast roofline against a slow one that anyone can check."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.hardware import Device, IterationShape, Roofline, Shape, load_device, serving_dtype
from simloop.hardware import roofline as module
from simloop.hardware.profile import Overheads
from simloop.model import Attention, Elementwise, Gemm, Model, load_model
from tests.hardware.tiles_reference import takes_tiles, tiles_ns

MODELS = ["llama-3.1-8b", "llama-2-7b", "qwen3-0.6b", "opt-13b", "mistral-7b-v0.1", "gpt3-6.7b"]
DEVICES = ["a100-sxm-80gb", "h100-sxm-80gb", "rtx-3090-24gb"]


def reference_ns(model: Model, device: Device, shape: IterationShape, *, graphs: bool = True) -> float:
    """Sum over every operator of every layer, from the published formulas; nothing is remembered."""
    flops = device.peak_tflops[model.dtype] * 1e12
    bandwidth = device.memory_bandwidth_gb_s * 1e9
    fits = device.calibration
    seconds, kernels = 0.0, 0
    for operator, calls in model.operators():
        for _ in range(calls):
            kernels += 1
            rows = shape.num_sequences if operator.per == "sequence" else shape.num_tokens
            if isinstance(operator, Attention):
                if shape.chunks:
                    seconds += prefill_s(operator, device, shape, flops, bandwidth)
                if shape.num_decodes and takes_tiles(operator, device, mixed=False):
                    seconds += tiles_ns(operator, device, shape.num_decodes, shape.decode_context) / 1e9
                elif shape.num_decodes:
                    context = shape.decode_context
                    if operator.window:
                        context = min(context, shape.num_decodes * operator.window)
                    heads, dim, fit = operator.num_heads, operator.head_dim, fits.decode_attention
                    compute = 4 * heads * dim * context / (fit.compute_efficiency * flops)
                    moved = 2 * dim * (2 * operator.num_kv_heads * context + 2 * heads * shape.num_decodes)
                    memory = moved / (fit.memory_efficiency * bandwidth)
                    seconds += fit.overhead_us * 1e-6 + max(compute, memory)
            elif rows and isinstance(operator, Gemm):
                gemm, (m, k, n) = fits.gemm, (rows, operator.k, operator.n)
                compute = 2 * m * k * n / (gemm.compute_efficiency * flops)
                memory = 2 * (m * k + k * n + m * n) / (gemm.memory_efficiency * bandwidth)
                q = gemm.sharpness
                seconds += gemm.overhead_us * 1e-6 + (compute**q + memory**q) ** (1 / q)
            elif rows and isinstance(operator, Elementwise):
                rest = fits.elementwise
                seconds += rest.overhead_us * 1e-6 + 2 * rows * operator.moved / (rest.memory_efficiency * bandwidth)
    launch = fits.launch.kernel_us * 1e-6
    if graphs and not shape.chunks and shape.num_decodes <= 512:
        return (seconds + launch) * 1e9
    return max(seconds, kernels * launch) * 1e9


def prefill_s(operator: Attention, device: Device, shape: IterationShape, flops: float, bandwidth: float) -> float:
    """One prefill kernel, token by token."""
    fit = device.calibration.prefill_attention
    seconds = fit.overhead_us * 1e-6
    for new, cached in shape.chunks:
        limit = operator.window or math.inf
        pairs = sum(min(cached + i, limit) + fit.ramp_tokens / 2 for i in range(1, new + 1))
        compute = 4 * operator.num_heads * operator.head_dim * pairs / (fit.compute_efficiency * flops)
        moved = 2 * operator.head_dim * (2 * new * operator.num_heads + 2 * (new + cached) * operator.num_kv_heads)
        seconds += max(compute, moved / (fit.memory_efficiency * bandwidth))
    return seconds


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    chunks = draw(st.lists(st.tuples(st.integers(1, 700), st.integers(0, 5000)), max_size=3))
    contexts = draw(st.lists(st.integers(1, 9000), min_size=0 if chunks else 1, max_size=5))
    times = draw(st.sampled_from([1, 1, 60, 130])) if contexts else 0
    decodes = len(contexts) * times
    sequences = decodes + draw(st.integers(0, len(chunks)))
    tokens = decodes + sum(new for new, _ in chunks)
    return Shape(tokens, sequences, tuple(chunks), decodes, sum(contexts) * times)


@settings(max_examples=150, deadline=None)
@given(st.lists(shapes(), min_size=1, max_size=3), st.sampled_from(MODELS), st.sampled_from(DEVICES), st.booleans())
def test_equal_to_the_slow_sum(asked: list[Shape], model_name: str, device_name: str, graphs: bool) -> None:
    model, device = load_model(model_name), load_device(device_name)
    roofline = Roofline(model, device, cuda_graphs=graphs)
    for shape in [*asked, *asked]:  # the second time from memory
        ns = roofline.iteration_ns(shape)
        assert ns == pytest.approx(reference_ns(model, device, shape, graphs=graphs), rel=1e-9, abs=0.51)
        assert isinstance(ns, int)


@settings(max_examples=100, deadline=None)
@given(shapes(), st.sampled_from(MODELS))
def test_the_explanation_adds_up(shape: Shape, model_name: str) -> None:
    roofline = Roofline(load_model(model_name), load_device("a100-sxm-80gb"))
    lines = roofline.explain(shape)
    assert sum(line.ns for line in lines) == pytest.approx(roofline.iteration_ns(shape), abs=0.51)
    assert {line.bound for line in lines} <= {"compute", "memory", "overhead"}


@settings(max_examples=100, deadline=None)
@given(shapes(), st.integers(1, 4000))
def test_more_work_never_takes_less_time(shape: Shape, extra: int) -> None:
    roofline = Roofline(load_model("llama-3.1-8b"), load_device("h100-sxm-80gb"))
    chunked = Shape(
        shape.num_tokens + extra,
        shape.num_sequences,
        (*shape.chunks, (extra, 0)),
        shape.num_decodes,
        shape.decode_context,
    )
    assert roofline.iteration_ns(chunked) + 5_001 >= roofline.iteration_ns(shape)  # a graph's own launch: 5 us
    if shape.num_decodes:
        longer = Shape(
            shape.num_tokens,
            shape.num_sequences,
            shape.chunks,
            shape.num_decodes,
            shape.decode_context + extra,
        )
        assert roofline.iteration_ns(longer) >= roofline.iteration_ns(shape)


def test_bounds_of_the_usual_operators() -> None:
    roofline = Roofline(load_model("llama-3.1-8b"), load_device("a100-sxm-80gb"))
    decode = {line.operator: line.bound for line in roofline.explain(Shape.decode(32, 2048))}
    assert decode["gate_up_proj"] == decode["lm_head"] == decode["attention (decode)"] == "memory"
    prefill = {line.operator: line.bound for line in roofline.explain(Shape.prefill(2048))}
    assert prefill["gate_up_proj"] == prefill["attention (prefill)"] == "compute"


def test_decode_is_never_faster_than_streaming_the_weights() -> None:
    model, device = load_model("llama-3.1-8b"), load_device("a100-sxm-80gb")
    streamed = (model.weight_bytes - 2 * model.vocab_size * model.hidden_size) / device.memory_bandwidth_gb_s
    assert Roofline(model, device).iteration_ns(Shape.decode(1, 512)) > streamed


def test_iterations_outside_of_graphs_wait_for_their_launches() -> None:
    model, h100 = load_model("opt-125m"), load_device("h100-sxm-80gb")
    launch = msgspec.structs.replace(h100.calibration.launch, kernel_us=20.0)
    device = h100.with_(calibration=msgspec.structs.replace(h100.calibration, launch=launch))
    kernels = sum(calls for _, calls in model.operators())
    shape, eager, graphs = Shape.decode(1, 16), Roofline(model, device, cuda_graphs=False), Roofline(model, device)
    assert eager.iteration_ns(shape) == graphs.iteration_ns(Shape.prefill(16)) == kernels * 20_000
    assert graphs.iteration_ns(shape) < eager.iteration_ns(shape)
    assert graphs.iteration_ns(Shape.decode(512, 16)) < graphs.iteration_ns(Shape.decode(513, 16))
    assert eager.explain(shape)[-1].operator == "launch"


def test_attention_is_a_sum_over_prompts_not_the_square_of_the_sum() -> None:
    roofline = Roofline(load_model("llama-3.1-8b"), load_device("a100-sxm-80gb"))
    assert roofline.iteration_ns(Shape.prefill(4096, 4096)) < roofline.iteration_ns(Shape.prefill(8192))


def test_bfloat16_falls_back_where_the_device_lacks_it() -> None:
    model, v100 = load_model("llama-3.1-8b"), load_device("v100-sxm-32gb")
    assert serving_dtype(model, v100) == serving_dtype(model, v100, "auto") == "float16"
    assert Roofline(model, v100).model.dtype == "float16"
    with pytest.raises(InputError, match="v100-sxm-32gb has no peak for 'bfloat16'"):
        Roofline(model, v100, dtype="bfloat16")


def test_the_memo_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMO_SIZE", 8)
    roofline = Roofline(load_model("opt-125m"), load_device("a100-sxm-80gb"))
    fresh = Roofline(load_model("opt-125m"), load_device("a100-sxm-80gb"))
    for batch in [*range(1, 40), *range(1, 40)]:
        assert roofline.iteration_ns(Shape.decode(batch, 100)) == fresh.iteration_ns(Shape.decode(batch, 100))
        assert len(roofline._by_tokens) <= 8
        assert len(roofline._by_sequences) <= 8


def test_what_an_engine_adds() -> None:
    """Host time of a step, of one with a prompt, a floor, padding to captured sizes; the explanation sums up."""
    model, device = load_model("llama-3.1-8b"), load_device("a100-sxm-80gb")
    bare = Roofline(model, device)
    shapes = {"decode": Shape.decode(20, 500), "prompt": Shape.prefill(700), "large": Shape.decode(600, 50)}

    def added(overheads: Overheads) -> dict[str, int]:
        loaded = Roofline(model, device, overheads=overheads)
        for shape in shapes.values():
            assert sum(line.ns for line in loaded.explain(shape)) == pytest.approx(loaded.iteration_ns(shape), abs=1)
        return {name: loaded.iteration_ns(shape) - bare.iteration_ns(shape) for name, shape in shapes.items()}

    assert set(added(Overheads()).values()) == {0}
    assert added(Overheads(step_us=100)) == pytest.approx(dict.fromkeys(shapes, 100_000), abs=1)
    layers = model.num_layers
    prompts = added(Overheads(prefill_layer_us=5))
    assert prompts == pytest.approx({"decode": 0, "prompt": 5000 * layers, "large": 0}, abs=1)
    per_sequence = 2_000 * model.vocab_size / 100_000
    sampled = {name: shape.num_sequences * per_sequence for name, shape in shapes.items()}
    assert added(Overheads(sampling_us=2)) == pytest.approx(sampled, abs=1)
    hosted = {name: shape.num_sequences * 51_000 for name, shape in shapes.items()}
    assert added(Overheads(sequence_us=51)) == pytest.approx(hosted, abs=1)
    floor = added(Overheads(host_us=20_000, host_request_us=1000))
    assert floor["decode"] == 40_000_000 - bare.iteration_ns(shapes["decode"])
    padded = Roofline(model, device, overheads=Overheads(largest_graph=256))
    as_24 = bare.iteration_ns(Shape(24, 20, (), 20, 20 * 500, 500, 500))
    assert padded.iteration_ns(shapes["decode"]) == as_24 > bare.iteration_ns(shapes["decode"])
