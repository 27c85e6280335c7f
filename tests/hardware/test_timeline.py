"""An iteration operator by operator: the times that the timing models say, to the nanosecond of the whole."""

from __future__ import annotations

import warnings
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.hardware import OperatorTiming, Roofline, Shape, Timeline, TimingModel, load_device
from simloop.hardware.profile import VLLM_0_19, DomainWarning, KernelTiming, ProfileTiming, RingLink
from simloop.model import Plan, load_model, model_names, shard
from tests.hardware.profile_tables import write_bundle, write_csv
from tests.hardware.test_profile_kernels import write_tables

H100 = load_device("h100-sxm-80gb")
KINDS = [
    "dense",
    "overheads",
    "tp2",
    "windows",
    "mla",
    "moe",
    "profile",
    "profile with overheads",
    "profile moe",
    "kernels",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measured")
    for name in ("dense", "moe"):
        write_bundle(folder / name)
    dense = folder / "moe" / "tp1" / "dense.csv"
    lines = dense.read_text().splitlines(keepends=True)
    dense.write_text("".join(line for line in lines if not line.startswith(("gate_up", "act_fn", "down_proj"))))
    rows = [(tokens, count, tokens + count) for tokens in (1, 64) for count in (8, 128)]
    write_csv(folder / "moe" / "tp1" / "moe.csv", "tokens,activated_experts,time_us", rows)
    write_tables(folder / "kernels")
    return folder


@cache
def timing_of(kind: str, folder: Path) -> Any:
    """Return a timing model of each sort."""
    llama, moe = load_model("llama-3.1-8b"), load_model("qwen3-30b-a3b")
    if kind == "kernels":
        return KernelTiming(folder / "kernels", load_model("llama-3.2-1b"), H100)
    if kind == "profile moe":
        return ProfileTiming(folder / "moe", moe, ep=2)
    if kind.startswith("profile"):
        overheads = VLLM_0_19 if "overheads" in kind else None
        return ProfileTiming(folder / "dense", llama, overheads=overheads)
    models = {
        "dense": llama,
        "overheads": llama,
        "tp2": llama,
        "windows": load_model("gpt-oss-20b"),
        "mla": load_model("deepseek-v2-lite"),
    }
    plan = Plan(tensor_parallel=2 if kind in ("tp2", "moe") else 1)
    overheads = VLLM_0_19 if kind == "overheads" else None
    return Roofline(models.get(kind, moe), H100, plan=plan, overheads=overheads)


shapes = st.builds(
    Shape.mixed,
    st.lists(st.tuples(st.integers(2, 60), st.integers(0, 60)), max_size=3),
    st.lists(st.integers(1, 200), max_size=6),
).filter(lambda shape: shape.num_tokens > 0)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(shape=shapes)
def test_the_ends_rise_to_the_whole_iteration_and_are_those_of_a_slow_walk(
    folder: Path, kind: str, shape: Shape
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        timing = timing_of(kind, folder)
        timeline, total_ns = Timeline(timing), timing.iteration_ns(shape)
        marks = timeline.marks_ns(shape, total_ns, range(len(timeline.calls) + 1))
        assert marks[-1] == total_ns
        assert marks == sorted(marks)
        assert min(marks) >= 0
        by_call = [timing.operator_ns(call.operator, shape) for call in timeline.calls]
        now_ns = total_ns - sum(by_call)
        assert now_ns > -1
        for mark, ns in zip(marks, [0.0, *by_call], strict=True):
            now_ns += ns
            assert abs(mark - now_ns) <= 1
        check_explained(timing, timeline, shape, by_call)


def check_explained(timing: Any, timeline: Timeline, shape: Shape, by_call: list[float]) -> None:
    """What is walked is what ``explain`` says, operator by operator, but for the host."""
    walked: defaultdict[str, float] = defaultdict(float)
    for call, ns in zip(timeline.calls, by_call, strict=True):
        walked[NAMES.get(call.operator.name, call.operator.name)] += ns
    explained: defaultdict[str, float] = defaultdict(float)
    for line in timing.explain(shape):
        name = line.operator.partition(" (")[0]
        explained[NAMES.get(name, name)] += line.ns
    for name in set(walked) | set(explained) - {"launch", "host", "token ids"}:
        assert walked[name] == pytest.approx(explained[name]), name


NAMES = {"input_layernorm": "layernorm", "post_attention_layernorm": "layernorm"}


def test_the_first_operator_waits_for_what_is_no_operator() -> None:
    timing = Roofline(load_model("llama-3.1-8b"), H100)
    timeline, shape = Timeline(timing), Shape.decode(8, 100)
    (begin,) = timeline.marks_ns(shape, timing.iteration_ns(shape), [0])
    assert begin == pytest.approx(1e3 * H100.calibration.launch.kernel_us, abs=1)
    (later,) = timeline.marks_ns(shape, timing.iteration_ns(shape) + 5000, [0])
    assert later == begin + 5000


def test_all_reduces_of_a_measured_model_stand_behind_the_products(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / "tp1").rename(folder / "tp2")
    timing = ProfileTiming(folder, load_model("llama-3.1-8b"), tp=2, all_reduce=RingLink(bandwidth_gib_s=50))
    shape = Shape.decode(4, 50)
    times = {call.path: timing.operator_ns(call.operator, shape) for call in Timeline(timing).calls}
    assert times["layers.3.o_proj_all_reduce"] == times["layers.31.down_proj_all_reduce"] > 0
    assert times["embedding_all_reduce"] == times["logits_all_gather"] == 0


def test_every_call_of_every_model_has_a_path_of_its_own() -> None:
    for name in model_names():
        for plan in (Plan(), Plan(tensor_parallel=2, data_parallel=2, expert_parallel=True)):
            model = load_model(name)
            try:
                (stage,) = shard(model, plan)
            except InputError:  # heads that two ranks cannot share
                continue
            paths = [path for path, _, _ in stage.walk()]
            assert len(paths) == len(set(paths)) == sum(calls for _, calls in stage.operators)


def test_stages_keep_the_numbers_of_their_layers() -> None:
    first, second = shard(load_model("llama-3.1-8b"), Plan(pipeline_parallel=2))
    assert [layer for _, layer, op in first.walk() if op.name == "attention"] == [*range(16)]
    assert next(path for path, _, op in second.walk() if op.name == "attention") == "layers.16.attention"
    assert [path for path, layer, _ in second.walk() if layer is None] == ["final_layernorm", "lm_head", "sampler"]


def test_a_timing_model_without_operators_is_refused() -> None:
    class Constant:
        def iteration_ns(self, shape: Any) -> int:
            return 7

    timing: TimingModel = Constant()
    assert not isinstance(timing, OperatorTiming)
    with pytest.raises(InputError, match="timing model Constant has iteration_ns alone: breakpoints at operators"):
        Timeline(timing)
