"""Kernel tables: small ones whose answers can be computed by hand, and the real ones (where they are here)."""

from __future__ import annotations

import random
from math import exp, log
from pathlib import Path

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError, SimulationError
from simloop.hardware import Roofline, Shape, load_device
from simloop.hardware.profile import (
    DomainWarning,
    KernelTables,
    KernelTiming,
    MeasuredTime,
    Overheads,
    RingLink,
    load_layers,
    read_all_reduce,
    read_mlp,
)
from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.kernels import AttentionTable, by_power
from simloop.model import Plan, load_model
from tests.hardware.measured import DATA
from tests.hardware.profile_tables import write_csv

MODEL, DEVICE = load_model("llama-3.2-1b"), load_device("h100-sxm-80gb")
"""The model has 16 layers, 32 query heads and 8 key-value heads of 64, width 2,048."""

CALIB = DATA / "aiconfigurator" / "calib"


def write_tables(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    rng = random.Random(1)
    gemm = [
        ("VLLM", "1.0", "a card", "bfloat16", m, n, k, round(rng.uniform(0.01, 0.09), 4))
        for k in (1024, 2048, 8192)
        for n in (1024, 2048, 4096, 200_000)
        for m in (1, 4, 64, 4096)
    ]
    write_csv(folder / "gemm.csv", "framework,version,device,gemm_dtype,m,n,k,latency", gemm)
    heads = "num_heads,num_key_value_heads,head_dim,attn_dtype,kv_cache_dtype"
    own = (32, 8, 64, "bfloat16", "bfloat16")
    context = [(batch, isl, *own, 1e-6 * isl * (isl + 300) * batch) for batch in (1, 2) for isl in (1, 64, 1024, 8192)]
    context.append((1, 64, 32, 8, 64, "bfloat16", "fp8", 99.0))
    write_csv(folder / "context_attention.csv", f"batch_size,isl,{heads},latency", context)
    steps = [(batch, step, *own, round(rng.uniform(0.2, 0.9), 4)) for batch in (1, 8, 64) for step in (1, 63, 4095)]
    write_csv(folder / "generation_attention.csv", f"batch_size,step,{heads},latency", steps)
    nccl = [("all_reduce", "half", 2, size, size / 1e6) for size in (1024, 1_048_576)]
    write_csv(folder / "nccl.csv", "op_name,nccl_dtype,num_gpus,message_size,latency", nccl)
    custom = [
        ("all_reduce", f"vllm_{how}", "bfloat16", 2, 1024 * size, 0.01 * size)
        for how in ("eager", "graph")
        for size in (1, 3)
    ]
    write_csv(folder / "custom_allreduce.csv", "op_name,backend,allreduce_dtype,num_gpus,message_size,latency", custom)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def tables(folder: Path) -> KernelTables:
    return KernelTables.load(folder)


@pytest.fixture(scope="module")
def timing(tables: KernelTables) -> KernelTiming:
    return KernelTiming(tables, MODEL, DEVICE)


def line(timing: KernelTiming, shape: Shape, operator: str) -> MeasuredTime:
    (found,) = [line for line in timing.explain(shape) if line.operator == operator]
    assert isinstance(found, MeasuredTime)
    return found


def test_products_between_widths_go_as_powers(tables: KernelTables, timing: KernelTiming) -> None:
    curves = tables.gemm["bfloat16"].curves[2048]
    asked = Shape.decode(34, 100)
    assert line(timing, asked, "o_proj").ns == pytest.approx(16 * (curves[2048].values[1] + curves[2048].values[2]) / 2)
    low, high = curves[2048].at(34), curves[4096].at(34)
    share = (log(3072) - log(2048)) / (log(4096) - log(2048))
    expected = 16 * exp(log(low) + share * (log(high) - log(low)))
    qkv = line(timing, asked, "qkv_proj")
    assert qkv.ns == pytest.approx(expected)
    assert (qkv.source, qkv.inside) == ("kernels of a card, VLLM 1.0", True)
    assert line(timing, asked, "act_fn").source == "roofline of h100-sxm-80gb"


def test_powers() -> None:
    points, values = [10, 100], [2.0, 8.0]
    assert [by_power(points, values, x) for x in (5, 10, 100, 250)] == [2.0, 2.0, 8.0, 20.0]
    assert by_power(points, values, 10**1.5) == pytest.approx(4.0)


def test_attention_of_prompts_is_a_sum_over_prompts(tables: KernelTables, timing: KernelTiming) -> None:
    whole = tables.context[32, 8, 64, 0].curves[0]
    asked = Shape.mixed([(64, 0), (448, 576)])
    lines = [line.ns for line in timing.explain(asked) if line.operator == "attention (prefill)"]
    assert lines == pytest.approx([16 * whole.at(64), 16 * (whole.at(1024) - whole.at(576))])
    assert line(timing, Shape.mixed([(1000, 1)]), "attention (prefill)").ns >= 16 * whole.at(1000)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(2, 4000)), min_size=1, max_size=8))
def test_decodes_are_read_at_their_mean_context(
    tables: KernelTables, timing: KernelTiming, batches: list[tuple[int, int]]
) -> None:
    table = tables.generation[32, 8, 64, 0]
    for batch, context in batches:
        asked = Shape.decode(batch, context)
        low, high = (0, 1) if batch < 8 else (1, 2)
        ends = [table.curves[place].at(context) for place in (low, high)]
        weight = (batch - table.batches[low]) / (table.batches[high] - table.batches[low])
        expected = 16 * (ends[0] + weight * (ends[1] - ends[0]))
        assert line(timing, asked, "attention (decode)").ns == pytest.approx(expected)
        rest = sum(line.ns for line in timing.explain(asked) if line.operator not in ("attention (decode)", "host"))
        assert timing.iteration_ns(asked) == pytest.approx(rest + expected, abs=1)


def test_what_lies_beyond_is_said_once_or_refused(tables: KernelTables) -> None:
    timing, strict = (KernelTiming(tables, MODEL, DEVICE, strict=strict) for strict in (False, True))
    with pytest.warns(
        DomainWarning, match="kv_decode 9,000 is beyond the measured 4,096 of kernels of a card, VLLM 1.0"
    ):
        timing.iteration_ns(Shape.decode(2, 9000))
    timing.iteration_ns(Shape.decode(2, 9100))
    with pytest.raises(SimulationError, match="requests that decode 65 is beyond the measured 64"):
        strict.iteration_ns(Shape.decode(65, 100))


def test_operators_that_were_not_measured_cost_what_the_card_says(tables: KernelTables) -> None:
    other = load_model("llama-3.1-8b")
    timing, roofline = KernelTiming(tables, other, DEVICE), Roofline(other, DEVICE)
    asked = Shape.mixed([(100, 30)], [200] * 7)
    by_roofline = {line.operator: line.ns for line in roofline.explain(asked)}
    for name in ("attention (prefill)", "attention (decode)"):
        assert line(timing, asked, name).bound == "roofline"
        assert line(timing, asked, name).ns == pytest.approx(by_roofline[name])


def test_ranks_reduce_by_the_custom_kernel_of_a_graph(tables: KernelTables) -> None:
    timing = KernelTiming(tables, MODEL, DEVICE, plan=Plan(tensor_parallel=2))
    reduce = [line for line in timing.explain(Shape.decode(1, 50)) if "all_reduce" in line.operator]
    bytes_ = 2048 * 2
    skew_ns = 2500  # of the H100's card
    assert all(line.ns / line.calls == pytest.approx(1e4 + (bytes_ - 2048) / 4096 * 2e4 + skew_ns) for line in reduce)
    assert sum(line.calls for line in reduce) >= 32


def test_overheads_are_added(tables: KernelTables, timing: KernelTiming) -> None:
    more = KernelTiming(tables, MODEL, DEVICE, overheads=Overheads(step_us=100, prefill_layer_us=10, largest_graph=256))
    mixed = Shape.mixed([(300, 30)], [200] * 7)
    assert more.iteration_ns(mixed) - timing.iteration_ns(mixed) == pytest.approx(
        100_000 + 10_000 * MODEL.num_layers, abs=1
    )
    assert line(more, Shape.decode(3, 70), "o_proj").ns == line(timing, Shape.decode(4, 70), "o_proj").ns


def test_sampling_is_added(tables: KernelTables, timing: KernelTiming) -> None:
    more = KernelTiming(tables, MODEL, DEVICE, overheads=Overheads(sampling_us=10))
    added = more.iteration_ns(Shape.decode(7, 70)) - timing.iteration_ns(Shape.decode(7, 70))
    assert added == pytest.approx(7 * 10_000 * MODEL.vocab_size / 100_000, abs=1)


def test_what_requests_share_is_read_faster(tables: KernelTables, timing: KernelTiming) -> None:
    once, half = (KernelTiming(tables, MODEL, DEVICE, overheads=Overheads(shared_read=share)) for share in (0, 0.5))
    shape = Shape.decode(8, 100)
    assert once.iteration_ns(shape) == timing.iteration_ns(shape)
    shared = attrs.evolve(shape, shared_context=240)
    assert timing.iteration_ns(shared) == timing.iteration_ns(shape)
    assert once.iteration_ns(shared) == timing.iteration_ns(Shape.decode(8, 70))
    assert sum(each.ns for each in once.explain(shared)) == pytest.approx(once.iteration_ns(shared))
    assert half.iteration_ns(shared) == timing.iteration_ns(Shape.decode(8, 85))
    everything = attrs.evolve(shape, shared_context=900)
    assert once.iteration_ns(everything) == timing.iteration_ns(Shape.decode(8, 1))


def test_small_messages_go_by_the_faster_protocol() -> None:
    plain, both = RingLink(bandwidth_gib_s=16, latency_us=14.5), RingLink(
        bandwidth_gib_s=16, latency_us=14.5, small_latency_us=2
    )  # fmt: skip
    moved = 2**20 / 2 / (16 * 2**30) * 1e9  # ns for half a MiB
    assert both.all_reduce_ns(2**20, 2) == plain.all_reduce_ns(2**20, 2) == int(2 * (14_500 + moved) + 27)
    assert both.all_reduce_ns(2**14, 2) == int(2 * (2_000 + 2 * moved / 64) + 27)


def test_all_reduce_tables_of_both_formats(folder: Path, tmp_path: Path) -> None:
    custom = read_all_reduce(folder / "custom_allreduce.csv", ranks=2)
    assert custom.all_reduce_ns(4096, 2) == 20_000
    with pytest.raises(InputError, match="measured for 2 ranks, asked for were 4"):
        custom.all_reduce_ns(4096, 4)
    rows = [(2, 2048, "all_reduce", 0.03), (2, 6144, "all_reduce", 0.05), (4, 2048, "all_reduce", 9.0)]
    write_csv(tmp_path / "v.csv", "num_workers,size,collective,time_stats.all_reduce.median", rows)
    assert read_all_reduce(tmp_path / "v.csv", ranks=2).all_reduce_ns(4096, 2) == 40_000
    with pytest.raises(InputError, match="no all-reduce of 8 ranks"):
        read_all_reduce(tmp_path / "v.csv", ranks=8)


def test_bad_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder of kernel tables"):
        KernelTables.load(tmp_path / "none")
    folder = write_tables(tmp_path / "tables")
    (folder / "generation_attention.csv").write_text("batch_size,stp,num_heads\n1,2,3\n")
    with pytest.raises(InputError, match=r"generation_attention.csv: no column 'num_key_value_heads'"):
        KernelTables.load(folder)
    (folder / "generation_attention.csv").unlink()
    with pytest.raises(InputError, match=r"has neither generation_attention.csv nor generation_attention.csv.gz"):
        KernelTables.load(folder)


@pytest.mark.skipif(not CALIB.is_dir(), reason="measured data are not here (SIMLOOP_DATA)")
@pytest.mark.filterwarnings("ignore:width of a matrix product:simloop.hardware.profile.DomainWarning")
def test_measured_kernels_and_the_calibrated_roofline_agree_in_the_large() -> None:
    """Within a fifth: the card was fitted to these kernels. A100: the smallest table."""
    device, model = load_device("a100-sxm-80gb"), load_model("llama-3.1-8b")
    timing, roofline = KernelTiming(CALIB / "a100_sxm", model, device), Roofline(model, device)
    for asked in (
        Shape.decode(1, 500),
        Shape.decode(128, 900),
        Shape.prefill(2048),
        Shape.mixed([(900, 99)], [500] * 9),
    ):
        assert timing.iteration_ns(asked) == pytest.approx(roofline.iteration_ns(asked), rel=0.2)


def test_a_curve_need_not_rise() -> None:
    curve = Curve.of([(8, 3.0), (2, 5.0), (4, 1.0)])
    assert [curve.at(x) for x in (1, 2, 3, 4, 6, 8, 10)] == [5.0, 5.0, 3.0, 1.0, 2.0, 3.0, 4.0]


def write_layers(folder: Path) -> Path:
    folder.mkdir()
    names = ("q_proj", "k_proj", "v_proj", "rope", "o_proj", "lm_head")
    rows = [(name, tokens, 0, 1, 100 * (place + 1) * tokens) for place, name in enumerate(names) for tokens in (1, 9)]
    write_csv(folder / "layers.csv", "layer_name,input,kv_cache,tp_size,latency(ns)", rows)
    kinds = "time_stats.attn_prefill.median,time_stats.attn_decode.median"
    sizes = "n_embd,n_q_head,n_kv_head,num_tensor_parallel_workers,batch_size,prefill_chunk_size,kv_cache_size"
    header = f"{kinds},{sizes},is_prefill"
    size = (2048, 32, 8, 1)
    chunks = [(0.001 * new * total, "", *size, 1, new, total, True) for new in (32, 64) for total in (64, 128)]
    decodes = [
        ("", 0.002 * batch * context, *size, batch, 0, context, False) for batch in (1, 4) for context in (8, 16)
    ]
    write_csv(folder / "attention.csv", header, [*chunks, *decodes])
    return folder


def test_layers_of_the_first_profiler(tmp_path: Path) -> None:
    timing = KernelTiming(write_layers(tmp_path / "a"), MODEL, DEVICE)
    asked = Shape.mixed([(48, 48)], [12, 12])
    with pytest.warns(DomainWarning, match="tokens of"):
        assert line(timing, asked, "qkv_proj").ns == pytest.approx(16 * 600 * 50)
    assert line(timing, asked, "lm_head").ns == 600 * 3
    assert line(timing, asked, "attention (prefill)").ns == pytest.approx(16 * 48 * 96 * 1000)
    assert line(timing, asked, "attention (decode)").ns == pytest.approx(16 * 2 * 12 * 2000)
    assert {line(timing, asked, name).source for name in ("gate_up_proj", "rotary_emb")} == {
        "roofline of h100-sxm-80gb"
    }
    with pytest.raises(InputError, match=r"layers.csv: has no rows of tp 2"):
        load_layers(tmp_path / "a", tp=2)


def test_experts_of_the_first_profiler_are_priced_one_by_one(tmp_path: Path) -> None:
    """Two experts of 16 have one token each; many tokens reach all of them."""
    parts = ("expert.w1", "expert.w3", "act_fn", "expert.w2")
    rows = [(name, tokens, 0, tp, 1000 + 10 * tokens) for name in parts for tokens in (1, 64) for tp in (1, 2)]
    (tmp_path / "a").mkdir()
    write_csv(tmp_path / "a" / "layers.csv", "layer_name,input,kv_cache,tp_size,latency(ns)", rows)
    timing = KernelTiming(tmp_path / "a", load_model("phi-mini-moe"), DEVICE)
    assert line(timing, Shape.decode(1, 99), "experts").ns == pytest.approx(32 * 2 * 4040)
    assert line(timing, Shape.prefill(256), "experts").ns == pytest.approx(32 * 16 * (4000 + 40 * 32))
    assert load_layers(tmp_path / "a", tp=2).expert is None


def test_decodes_that_beat_the_memory_are_not_believed() -> None:
    """128 requests of 4,096 tokens are 537 MB: at 3,350 GB/s they take 160 us, unless they lie in a cache."""
    heads = (32, 8, 64, 0)
    for microseconds, believed in ((150, False), (170, True)):
        table = AttentionTable.of([(1, 16, 100.0), (64, 4096, microseconds * 1e3)])
        timing = KernelTiming(KernelTables(Path(), "mine", generation={heads: table}), MODEL, DEVICE)
        source = "mine" if believed else "roofline of h100-sxm-80gb"
        assert line(timing, Shape.decode(64, 4096), "attention (decode)").source == source
        windowed = KernelTables(Path(), "mine", generation={(*heads[:3], 128): table})
        assert windowed.believed(3350, 50e6, 2) is windowed


def test_tables_of_vidur(tmp_path: Path) -> None:
    times = ",".join(f"time_stats.{name}.median" for name in ("emb", "attn_pre_proj", "add"))
    header = f"{times},num_tokens,num_tensor_parallel_workers"
    rows = [(0.2, 1.0, 0.1, 8, 1), (0.4, 3.0, 0.1, 16, 1), (0.4, 5.0, 0.1, 16, 1), (9.0, 9.0, 9.0, 8, 2)]
    write_csv(tmp_path / "mlp.csv", header, rows)
    curves = read_mlp(tmp_path / "mlp.csv")
    assert set(curves) == {"embedding", "qkv_proj"}
    assert curves["qkv_proj"].at(12) == pytest.approx(2.5e6)
    with pytest.raises(InputError, match="has no rows of 4 tensor-parallel workers"):
        read_mlp(tmp_path / "mlp.csv", tp=4)
