"""What an engine adds to its kernels: each part alone, and all of them against real runs (where these are here)."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import polars as pl
import pytest

from simloop.hardware import Shape, load_device
from simloop.hardware.profile import VLLM_0_19, Overheads, ProfileTiming, load_bundle
from simloop.hardware.profile.attention import AttentionGrid
from simloop.hardware.profile.overheads import graph_sizes
from simloop.hardware.profile.tail import Tail
from simloop.model import load_model
from tests.benchmarks.fit_overheads import LATENCY, Case, errors, wanted
from tests.hardware.async_engine import AsyncEngine, Blocks, Run
from tests.hardware.measured import DATA, needs_data
from tests.hardware.profile_tables import write_bundle

MIXED = Shape.mixed([(20, 3), (30, 0)], [50, 60, 200])
DECODE = Shape.decode(3, 70)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("profiles") / "bundle")


def added(folder: Path, shape: Shape, **parts: Any) -> int:
    """Return what the parts add to an iteration, ns."""
    bundle, model = load_bundle(folder), load_model("llama-3.1-8b")
    plain, more = ProfileTiming(bundle, model), ProfileTiming(bundle, model, overheads=Overheads(**parts))
    return more.iteration_ns(shape) - plain.iteration_ns(shape)


def test_time_of_every_step_and_of_steps_with_prompts(folder: Path) -> None:
    assert [added(folder, shape, step_us=200) for shape in (DECODE, MIXED)] == [200_000, 200_000]
    assert [added(folder, shape, prefill_layer_us=100) for shape in (DECODE, MIXED)] == [0, 3_200_000]


def test_sampling_grows_with_sequences_and_vocabulary(folder: Path) -> None:
    vocabulary = load_model("llama-3.1-8b").vocab_size
    expected = [round(10_000 * shape.num_sequences * vocabulary / 100_000) for shape in (DECODE, MIXED)]
    assert [added(folder, shape, sampling_us=10) for shape in (DECODE, MIXED)] == expected


@pytest.mark.parametrize("shape", [DECODE, MIXED])
def test_the_host_is_a_floor(folder: Path, shape: Shape) -> None:
    plain = ProfileTiming(folder, load_model("llama-3.1-8b")).iteration_ns(shape)
    assert added(folder, shape, host_us=0.1, host_request_us=0.1) == 0
    floor = 50_000_000 + shape.num_sequences * 10_000
    assert added(folder, shape, host_us=50_000, host_request_us=10) == floor - plain


def test_steps_are_padded_to_captured_graphs(folder: Path) -> None:
    assert graph_sizes(512)[:6] == [1, 2, 4, 8, 16, 24]
    assert graph_sizes(512)[-3:] == [480, 496, 512]
    assert graph_sizes(20) == [1, 2, 4, 8, 16, 20]
    assert [Overheads(largest_graph=256).padded(tokens) for tokens in (3, 4, 9, 250, 256, 257)] == [
        4, 4, 16, 256, 256, 257,
    ]  # fmt: skip
    timing = ProfileTiming(folder, load_model("llama-3.1-8b"))
    row, padded = (sum(line.ns for line in timing.explain(shape) if line.operator == "o_proj") for shape in (
        DECODE, Shape.decode(4, 70),
    ))  # fmt: skip
    assert row != padded
    full = ProfileTiming(folder, load_model("llama-3.1-8b"), overheads=Overheads(largest_graph=256))
    assert [line.ns for line in full.explain(DECODE) if line.operator == "o_proj"] == [padded]


def test_prompts_by_themselves(folder: Path) -> None:
    """One prompt costs the same either way; two cost their sum, and what decodes add stays."""
    assert abs(added(folder, Shape.mixed([(20, 3)], [50, 60, 200]), attention_per_prompt=True)) < 32 * 50_000
    assert added(folder, Shape.mixed([(20, 3)]), attention_per_prompt=True) == 0
    timing = ProfileTiming(folder, load_model("llama-3.1-8b"), overheads=Overheads(attention_per_prompt=True))
    attention = [
        next(line.ns for line in timing.explain(Shape.mixed(chunks)) if line.operator == "attention")
        for chunks in ([(20, 3), (30, 0)], [(20, 3)], [(30, 0)])
    ]
    assert attention[0] == pytest.approx(attention[1] + attention[2], abs=3 * 32)


def test_the_longest_of_many_decodes_ends_alone(folder: Path) -> None:
    """Blocks of 8 KV heads: 47 requests fill 188 multiprocessors twice, fewer than 38 share the work evenly."""
    grid = load_bundle(folder).attention
    tail = Tail.of(grid, kv_heads=8, units=188)
    assert tail.places == 47
    assert tail.ns_per_token == max(0.0, (grid.at(16, 0, 1, 2048) - grid.at(16, 0, 1, 1024)) / 1024)
    assert [tail.waves(decodes) for decodes in (2, 37, 38, 47, 94)] == [0.0, 0.0, 1.0, 1.0, 2.0]


@pytest.mark.filterwarnings("ignore::simloop.hardware.profile.DomainWarning")
def test_the_tail_is_a_floor_of_unequal_contexts(folder: Path) -> None:
    points = [(16, 0, 1, 16, 9_000.0), (16, 0, 1, 4096, 9_000.0 + 20 * 4080)]
    points += [(0, 0, count, context, 9.0 * count * context) for count in (1, 128) for context in (16, 4096)]
    bundle = attrs.evolve(load_bundle(folder), attention=AttentionGrid(points), skew=None)
    device = load_device("rtx-pro-6000-96gb")
    plain, tailed = (
        ProfileTiming(bundle, load_model("llama-3.1-8b"), overheads=Overheads(attention_tail=on), device=device)
        for on in (False, True)
    )
    for decodes, stretch in ((30, None), (40, 1.0), (94, 2.0)):
        contexts = [101] * (decodes - 1) + [1001]
        shape, mean = Shape.mixed([], contexts), (sum(contexts) - decodes) // decodes
        more = 0.0 if stretch is None else 20 * max(0.0, 1000 - stretch * mean)
        assert tailed.iteration_ns(shape) - plain.iteration_ns(shape) == pytest.approx(32 * more, abs=64)
        assert sum(line.ns for line in tailed.explain(shape)) == tailed.iteration_ns(shape)


@needs_data
def test_the_tail_is_what_was_measured_of_unequal_contexts() -> None:
    """One to four of 64 requests are four times as long as the rest; times of `skew` are those of three calls."""
    folder = DATA / "llmservingsim/calib/vllm_profiler/RTXPRO6000/meta-llama/Llama-3.1-8B/bf16"
    rows = pl.read_csv(gzip.decompress((folder / "tp1/skew.csv.gz").read_bytes())).filter(
        pl.col("pc") == 0, pl.col("n") == 64, pl.col("nb") <= 2, pl.col("kv_big") >= 2048
    )
    tail = Tail.of(load_bundle(folder).attention, kv_heads=8, units=188)
    measured = 1e3 * (rows["t_skew_us"] - rows["t_mean_us"]) / 3
    ours = tail.ns_per_token * (rows["kv_big"] - tail.waves(64) * rows["kv_mean"])
    assert len(rows) == 8
    assert ((ours / measured - 1).abs() < 0.25).all()


def engine(depth: int) -> AsyncEngine:
    return AsyncEngine(lambda shape: 100, Blocks(100), max_num_seqs=2, depth=depth)


def test_with_asynchronous_scheduling_the_queue_is_read_between_steps() -> None:
    """B comes during A's second step; its own step is the fourth, as the third was scheduled when the second began."""
    for depth, first, end in ((1, 300, 400), (2, 400, 500)):
        runs = [Run(0, 0, 10, 5), Run(1, 150, 10, 2)]
        engine(depth).serve(runs)
        assert (runs[0].first_ns, runs[0].end_ns) == (100, 500)
        assert (runs[1].queued_ns, runs[1].first_ns, runs[1].end_ns) == (200, first, end)


def test_with_asynchronous_scheduling_a_place_is_given_away_a_step_later() -> None:
    for depth, first in ((1, 300), (2, 400)):
        runs = [Run(0, 0, 10, 9), Run(1, 0, 10, 2), Run(2, 10, 10, 1)]
        engine(depth).serve(runs)
        assert (runs[1].end_ns, runs[2].first_ns) == (200, first)


@needs_data
@pytest.mark.parametrize(
    ("name", "profile", "model", "blocks", "tp"),
    [
        ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B", "llama-3.1-8b", 36_578, 1),
        ("Qwen3-32B", "Qwen/Qwen3-32B", "qwen3-32b", 28_614, 2),
    ],
)
def test_against_real_runs(name: str, profile: str, model: str, blocks: int, tp: int) -> None:
    """All of the wanted accuracy; `fit_overheads.py --check` prints the errors."""
    case = Case.read(DATA, name, profile, model, blocks, tp)
    assert (np.abs(errors(case, VLLM_0_19, LATENCY)) < wanted(case)).all()
