"""Decodes in the kernel for prompts: each query head a tile of its own, beside prompts and with a sliding window."""

from __future__ import annotations

import csv
import gzip
import statistics
from pathlib import Path

import msgspec
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.hardware import Device, Shape, load_device
from simloop.hardware.prices import Prices
from simloop.hardware.profile import KernelTables, KernelTiming, load_layers
from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.kernels import AttentionTable
from simloop.model import Attention, Plan, load_model, shard
from tests.hardware.measured import DATA, needs_data
from tests.hardware.tiles_reference import tiles_ns

CARD, HOPPER = load_device("rtx-4090-24gb"), load_device("h100-sxm-80gb")
NO_TABLES = KernelTables(Path(), "nothing")
PROFILES, CALIB = DATA / "llmservingsim/calib", DATA / "aiconfigurator/calib"


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 300), st.integers(1, 9000), st.sampled_from([(32, 8), (64, 8), (16, 16), (32, 4)]))
def test_equal_to_the_sum_over_tiles(requests: int, mean: int, heads: tuple[int, int]) -> None:
    operator, prices = Attention("attention", *heads, 128), Prices(CARD, "bfloat16")
    cost = prices.running_decode(operator, requests, requests * mean, beside_prompts=True)
    assert cost.total == pytest.approx(tiles_ns(operator, CARD, requests, requests * mean), rel=1e-9)
    assert cost.total >= prices.decode(operator, requests, requests * mean).total * (1 - 1e-9)


def test_a_window_bounds_it() -> None:
    prices = Prices(CARD, "bfloat16")
    whole, windowed = Attention("a", 32, 8, 128), Attention("a", 32, 8, 128, window=1000)
    whole_ns = prices.running_decode(whole, 8, 8000, beside_prompts=True).total
    costs = [prices.running_decode(windowed, 8, 8 * mean, beside_prompts=False).total for mean in (999, 1000, 9000)]
    assert costs[0] < costs[1] == costs[2] == whole_ns


@pytest.mark.parametrize(
    ("model", "device", "alone", "beside"),
    [
        ("llama-3.1-8b", CARD, False, True),
        ("llama-3.1-8b", HOPPER, False, False),
        ("mistral-7b-v0.1", CARD, True, True),
        ("mistral-7b-v0.1", HOPPER, False, False),
        ("deepseek-v3", CARD, False, False),
    ],
)
def test_who_takes_it(model: str, device: Device, alone: bool, beside: bool) -> None:
    """FlashAttention 2 beside prompts and with a window; no other kernel."""
    prices = Prices(device, "bfloat16")
    operator, _ = next(shard(load_model(model), Plan())[0].attentions())
    assert (prices.tiles(operator, beside_prompts=False) is not None) is alone
    assert (prices.tiles(operator, beside_prompts=True) is not None) is beside


@pytest.mark.parametrize("model", ["llama-3.1-8b", "mistral-7b-v0.1", "gemma-3-1b"])
def test_an_iteration_pays_for_it(model: str) -> None:
    """By so much as the lines of attention tell; full layers only beside prompts."""
    windowed = model != "llama-3.1-8b"
    packs = msgspec.structs.replace(CARD, calibration=msgspec.structs.replace(CARD.calibration, unpacked=None))
    timing, plain = (KernelTiming(NO_TABLES, load_model(model), device) for device in (CARD, packs))
    for shape, pays in ((Shape.decode(64, 700), windowed), (Shape.mixed([(300, 20)], [700] * 64), True)):
        lines = timing.explain(shape)
        assert sum(line.ns for line in lines) == pytest.approx(timing.iteration_ns(shape))
        assert abs(next(line.ns for line in lines if line.operator == "host")) <= 1
        more = timing.iteration_ns(shape) - plain.iteration_ns(shape)
        assert more > 1e5 if pays else more == 0


def test_tables_without_a_window_serve_one_that_nothing_reaches(tmp_path: Path) -> None:
    """Decodes at most at the window; prompts only while all of them lies in it."""
    heads = (32, 8, 128, 0)
    table = AttentionTable.of([(1, 1, 1e6), (1, 8192, 1e6)])
    tables = KernelTables(tmp_path, "mine", generation={heads: table}, context={heads: table})
    timing = KernelTiming(tables, load_model("mistral-7b-v0.1"), HOPPER)
    for shape, kind, source in (
        (Shape.prefill(4096), "prefill", "mine"),
        (Shape.prefill(4097), "prefill", "roofline of h100-sxm-80gb"),
        (Shape.mixed([(10, 4090)]), "prefill", "roofline of h100-sxm-80gb"),
        (Shape.decode(1, 8000), "decode", "mine"),
    ):
        line = next(line for line in timing.explain(shape) if line.operator == f"attention ({kind})")
        assert getattr(line, "source", None) == source


# -- what was measured -------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(
    ("tables", "card", "heads", "worst"),
    [
        ("RTX4090/meta-llama/Llama-3.1-8B/bf16/tp1", "rtx-4090-24gb", (32, 8), 0.10),
        ("RTXPRO6000/meta-llama/Llama-3.1-8B/bf16/tp1", "rtx-pro-6000-96gb", (32, 8), 0.14),
        ("RTXPRO6000/Qwen/Qwen3-32B/bf16/tp1", "rtx-pro-6000-96gb", (64, 8), 0.09),
    ],
)
def test_mixed_batches_of_vllm(tables: str, card: str, heads: tuple[int, int], worst: float) -> None:
    """What decodes add to a prompt chunk, against layer profiles that no part of it was fitted to."""
    file = PROFILES / "vllm_profiler" / tables / "attention.csv.gz"
    names = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")
    with gzip.open(file, "rt") as stream:
        times = {tuple(int(row[name]) for name in names): float(row["time_us"]) for row in csv.DictReader(stream)}
    operator, prices = Attention("attention", *heads, 128), Prices(load_device(card), "bfloat16")
    packed: list[float] = []
    unpacked: list[float] = []
    for (chunk, history, decodes, context), time in times.items():
        alone = times.get((chunk, 0, 0, 0))
        if alone is None or history or not 0 < chunk <= 256 or decodes * context < 2048 or time - alone <= 20:
            continue
        asked = operator, decodes, decodes * (context + 1)
        for errors, mixed in ((packed, False), (unpacked, True)):
            price = prices.running_decode(*asked, beside_prompts=mixed)
            errors.append(abs(price.total / 1e3 / (time - alone) - 1))
    assert statistics.median(unpacked) < worst
    assert statistics.median(packed) > 0.4


@needs_data
def test_experts_one_by_one_are_as_fast_as_fused_ones() -> None:
    """Mixtral on H100: whole experts of the first profiler against quarters of aiconfigurator's fused kernel."""
    folder = PROFILES / "v0_profiler/H100/mistralai/Mixtral-8x7B-v0.1/tp4"
    with gzip.open(folder / "layers.csv.gz", "rt") as stream:
        times = {(row["layer_name"], int(row["input"])): float(row["latency(ns)"]) for row in csv.DictReader(stream)}
    sizes = {"hidden_size": 4096, "inter_size": 14336, "topk": 2, "num_experts": 8, "moe_tp_size": 4, "moe_ep_size": 1}
    rows = pl.read_csv(CALIB / "h100_sxm/moe.csv.gz").filter(moe_dtype="bfloat16", distribution="balanced", **sizes)
    fused = Curve.of((tokens, 1e6 * ms) for tokens, ms in rows.select("num_tokens", "latency").iter_rows())
    for tokens in (8, 64, 256, 1024, 4096):
        one = sum(times[name, tokens // 4] for name in ("expert.w1", "expert.w3", "act_fn", "expert.w2"))
        assert 8 * one / 4 == pytest.approx(fused.at(tokens), rel=0.3)
    assert load_layers(folder, tp=4).expert is None


@needs_data
@pytest.mark.parametrize("device", ["a100_sxm", "h100_sxm", "l40s"])
def test_tables_of_aiconfigurator_are_believed(device: str) -> None:
    tables = KernelTables.load(CALIB / device)
    card = load_device({"a100_sxm": "a100-sxm-80gb", "h100_sxm": "h100-sxm-80gb", "l40s": "l40s-48gb"}[device])
    assert card.onchip_memory_mb is not None
    assert tables.believed(card.memory_bandwidth_gb_s, 1e6 * card.onchip_memory_mb, 2) is tables


@needs_data
@pytest.mark.parametrize("model", ["meta-llama/Llama-3.1-8B", "microsoft/Phi-mini-MoE-instruct"])
def test_decodes_of_the_first_profiler_are_not(model: str) -> None:
    tables = load_layers(PROFILES / "v0_profiler/A6000" / model / "tp1")
    assert tables.generation
    assert not tables.believed(768, 6e6, 2).generation
