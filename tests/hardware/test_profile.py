"""Layer profiles: against a slow reference, at the ends of what was measured, and read from bad files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError, SimulationError
from simloop.hardware import Shape
from simloop.hardware.profile import DomainWarning, MeasuredTime, Overheads, ProfileTiming, RingLink, load_bundle
from simloop.hardware.profile.moe import expert_load
from simloop.model import Balanced, Experts, Recorded, load_model
from tests.hardware.profile_reference import Reference, rows
from tests.hardware.profile_tables import BINS, write_bundle, write_csv

MODEL = load_model("llama-3.1-8b")
LAYERS = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("profiles") / "bundle")


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    labels = BINS[0], BINS[1], BINS[2], ["kp=0", "kp<=512"]
    names = ("n_label", "skew_rate_label", "kv_big_label", "kp_label")
    bins = {}
    for row in rows(folder / "tp1" / "skew_fit.csv"):
        places = [known.index(row[name]) for name, known in zip(names, labels, strict=True)]
        bins[int(row["pc"]), places[0], places[1], places[2], places[3]] = float(row["alpha"])
    return Reference(folder / "tp1", LAYERS, bins, 0.0543)


@pytest.fixture(scope="module")
def timing(folder: Path) -> ProfileTiming:
    return ProfileTiming(folder, MODEL)


def shape(step: list[tuple[int, int]], *, decodes: int) -> Shape:
    """Return a step whose first requests decode; the others are prompt chunks, also if they have one token left."""
    return Shape.mixed(step[decodes:], [cached + 1 for _, cached in step[:decodes]])


contexts = st.integers(0, 290)
steps = st.tuples(
    st.lists(contexts.map(lambda cached: (1, cached)), max_size=7),
    st.lists(st.tuples(st.sampled_from([1, 2, 16, 31, 64]), st.integers(0, 60)), max_size=1),
).filter(any)


@settings(max_examples=400, deadline=None)
@given(st.lists(steps, min_size=1, max_size=5))
def test_against_the_slow_reference(
    reference: Reference, timing: ProfileTiming, sequence: list[tuple[list[tuple[int, int]], list[tuple[int, int]]]]
) -> None:
    """Cutting to whole nanoseconds may fall the other way where a float differs in its last digit: once a block."""
    for decodes, chunks in sequence:
        expected = reference.iteration_ns(decodes + chunks)
        assert abs(timing.iteration_ns(shape(decodes + chunks, decodes=len(decodes))) - expected) <= LAYERS


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 130), st.integers(0, 200), st.integers(0, 12), st.integers(0, 400))
def test_attention_is_linear_in_everything(
    reference: Reference, timing: ProfileTiming, chunk: int, history: int, decodes: int, context: int
) -> None:
    """On, between and beyond the measured points, and where the table has holes."""
    grid = timing.bundle.attention
    assert grid.at(chunk, history, decodes, context) == pytest.approx(
        reference.lookup(chunk, history, decodes, context)
    )
    assert grid.prompt(chunk, history) == pytest.approx(reference.lookup(chunk, history, 0, 0))
    assert grid.at(chunk, history, 0, 0) == grid.prompt(chunk, history)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(2, 30), st.integers(0, 30)), min_size=2, max_size=3), st.lists(contexts, max_size=3)
)
def test_prompts_by_themselves(
    reference: Reference, timing: ProfileTiming, chunks: list[tuple[int, int]], decodes: list[int]
) -> None:
    """The sum of the prompts, and what the decodes add to one chunk of all their tokens."""
    split = ProfileTiming(timing.bundle, MODEL, overheads=Overheads(attention_per_prompt=True))
    asked = Shape.mixed(chunks, [context + 1 for context in decodes])
    new, cached = sum(new for new, _ in chunks), sum(cached for _, cached in chunks)
    expected = sum(reference.lookup(*chunk, 0, 0) for chunk in chunks)
    if decodes:
        mean = sum(decodes) // len(decodes)
        expected += reference.lookup(new, cached, len(decodes), mean) - reference.lookup(new, cached, 0, 0)
    (line,) = [line for line in split.explain(asked) if line.operator == "attention"]
    assert line.ns == pytest.approx(LAYERS * max(1, int(expected)), abs=LAYERS)
    assert sum(line.ns for line in split.explain(asked)) == split.iteration_ns(asked)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_an_explanation_adds_up(
    timing: ProfileTiming, step: tuple[list[tuple[int, int]], list[tuple[int, int]]]
) -> None:
    asked = shape(step[0] + step[1], decodes=len(step[0]))
    lines = timing.explain(asked)
    assert sum(line.ns for line in lines) == timing.iteration_ns(asked)
    assert abs(lines[-1].ns) <= LAYERS  # the host's part: nothing, but for the last digit of a float
    assert all(isinstance(line, MeasuredTime) and line.inside and line.source for line in lines)


def test_beyond_the_measured_domain_it_warns_once_for_each_axis(folder: Path) -> None:
    timing = ProfileTiming(folder, MODEL)
    with pytest.warns(DomainWarning, match=r"kv_decode 399 is beyond the measured 300 of a card, vLLM 0.19.0 \(tp 1\)"):
        timing.iteration_ns(Shape.decode(2, 400))
    timing.iteration_ns(Shape.decode(2, 500))
    with pytest.warns(DomainWarning, match="^tokens 200"), pytest.warns(DomainWarning, match="prefill_chunk 200"):
        timing.iteration_ns(Shape.prefill(100, 100))
    assert timing.domain.left == {"kv_decode": 399, "tokens": 200, "prefill_chunk": 200}
    assert not all(line.inside for line in timing.explain(Shape.prefill(200)) if isinstance(line, MeasuredTime))


@pytest.mark.filterwarnings("ignore::simloop.hardware.profile.DomainWarning")
def test_beyond_the_measured_domain_lines_go_on(folder: Path) -> None:
    timing = ProfileTiming(folder, MODEL)
    near, far, farther = (timing.iteration_ns(Shape.decode(2, context)) for context in (301, 401, 501))
    assert farther - far == pytest.approx(far - near, abs=2 * LAYERS)


def test_strict_timing_refuses_to_leave(folder: Path) -> None:
    timing = ProfileTiming(folder, MODEL, strict=True)
    timing.iteration_ns(Shape.decode(2, 301))
    with pytest.raises(SimulationError, match="n_decode 9 is beyond the measured 8"):
        timing.iteration_ns(Shape.decode(9, 10))


def test_skew_is_fitted_where_only_its_experiments_are_given(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    (folder / "tp1" / "skew_fit.csv").unlink()
    header = "regime,n,nb,ratio,skew,pc,kp,kvs,kv_big,kv_mean,t_mean_us,t_max_us,t_skew_us,alpha"
    experiments = [
        ("pure", 2, 1, 0.5, 4.0, 0, 0, 100, 400, 250, 10.0, 20.0, 12.0, 0.2),
        ("pure", 2, 1, 0.5, 4.0, 0, 0, 120, 480, 300, 10.0, 12.0, 11.0, 0.5),
        ("pure", 2, 1, 0.5, 4.0, 0, 0, 200, 800, 500, 10.0, 10.0, 11.0, ""),
    ]
    write_csv(folder / "tp1" / "skew.csv", header, experiments)
    skew = load_bundle(folder).skew
    assert skew is not None
    assert skew.alpha(0, 0, 2, 0.5, 400) == round((10 * 2 + 2 * 1) / (10 * 10 + 2 * 2), 4)
    assert skew.alpha(0, 0, 4, 0.5, 400) == 0.0543


def test_tables_may_be_gzipped_and_lie_in_the_folder_itself(
    folder: Path, tmp_path: Path, timing: ProfileTiming
) -> None:
    for file in (folder / "tp1").iterdir():
        with gzip.open(tmp_path / f"{file.name}.gz", "wb") as stream:
            stream.write(file.read_bytes())
    (tmp_path / "meta.yaml").write_bytes((folder / "meta.yaml").read_bytes())
    asked = Shape.mixed([(20, 3)], [50, 60, 200])
    assert ProfileTiming(tmp_path, MODEL).iteration_ns(asked) == timing.iteration_ns(asked)


def test_a_split_model_pays_for_two_all_reduces_a_block(folder: Path, tmp_path: Path, timing: ProfileTiming) -> None:
    (tmp_path / "tp2").symlink_to(folder / "tp1")
    (tmp_path / "tp1").symlink_to(folder / "tp1")
    (tmp_path / "meta.yaml").write_text((folder / "meta.yaml").read_text().replace("    1: {", "    2: {"))
    link = RingLink(bandwidth_gib_s=16, latency_us=20, memory_bandwidth_gb_s=1597)
    split = ProfileTiming(tmp_path, MODEL, tp=2, all_reduce=link)
    asked, half = Shape.decode(2, 70), 2 * 4096 * 2 / 2
    one = int(2 * (20_000 + half / (16 * 2**30 / 1e9)) + 3 * half / 1597 + 27)
    assert split.iteration_ns(asked) - timing.iteration_ns(asked) == 2 * LAYERS * one
    with pytest.raises(InputError, match="needs to know what an all-reduce takes"):
        ProfileTiming(tmp_path, MODEL, tp=2)


@pytest.mark.parametrize("shape", [Shape.prefill(40, 7), Shape.decode(5, 60), Shape.mixed([(20, 16)], [30, 90])])
def test_stages_are_parts_of_the_whole(folder: Path, timing: ProfileTiming, shape: Shape) -> None:
    stages = [ProfileTiming(folder, timing.model, pp=3, stage=stage) for stage in range(3)]
    assert sum(stage.iteration_ns(shape) for stage in stages) == timing.iteration_ns(shape)
    for stage in stages:
        assert sum(line.ns for line in stage.explain(shape)) == stage.iteration_ns(shape)
    named = [{line.operator for line in stage.explain(shape)} for stage in stages]
    assert [("embedding" in names, "lm_head" in names) for names in named] == [
        (True, False),
        (False, False),
        (False, True),
    ]
    with pytest.raises(InputError, match="a plan of 3 pipeline stages: choose one of them"):
        ProfileTiming(folder, timing.model, pp=3)


def test_profiles_of_another_model_are_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path)
    (folder / "meta.yaml").write_text("model: Qwen/Qwen3-32B\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"the profiles are of Qwen/Qwen3-32B, whose layers have other sizes"):
        ProfileTiming(folder, MODEL)
    for name in ("meta-llama/Llama-3.1-8B", "somebody/my-own"):  # the same; one that nobody here knows
        (folder / "meta.yaml").write_text(f"model: {name}\n", encoding="utf-8")
        ProfileTiming(folder, MODEL)


def test_layers_by_pytorch_are_no_profiles_of_an_engine(tmp_path: Path) -> None:
    (tmp_path / "tp1").mkdir()
    write_csv(tmp_path / "tp1" / "layers.csv", "layer_name,input,tp_size,latency(ns)", [("o_proj", 1, 1, 5.0)])
    with pytest.raises(InputError, match="has layers by PyTorch: give model: kernels"):
        ProfileTiming(tmp_path, MODEL)


def test_experts_are_looked_up_by_tokens_and_activated_experts(tmp_path: Path) -> None:
    folder, model = write_bundle(tmp_path / "b"), load_model("qwen3-30b-a3b")  # 128 experts, 8 a token, 48 blocks
    with pytest.raises(InputError, match="the model has experts, the profiles have none"):
        ProfileTiming(folder, model)
    rows = [(1, 8, 50.0), (2, 8, 52.0), (2, 16, 130.0), (4, 16, 134.0), (4, 32, 200.0)]
    write_csv(folder / "tp1" / "moe.csv", "tokens,activated_experts,time_us", rows)
    with pytest.raises(InputError, match="the profiles have experts, the model has none"):
        ProfileTiming(folder, MODEL)
    (line,) = [line for line in ProfileTiming(folder, model).explain(Shape.decode(3, 70)) if line.operator == "experts"]
    assert line.ns == 48 * 1000 * (132 + 200) / 2  # 3 tokens: half way between 16 and 32 experts
    (line,) = [
        line for line in ProfileTiming(folder, model, ep=4).explain(Shape.decode(3, 70)) if line.operator == "experts"
    ]
    assert line.ns == 48 * 54_000  # 3 tokens have an expert here, of which 6 are activated: fewer than any measured


def test_ranks_in_step_share_experts_and_exchange_tokens(tmp_path: Path) -> None:
    folder, model = write_bundle(tmp_path / "b"), load_model("qwen3-30b-a3b")
    rows = [(tokens, active, tokens + 10.0 * active) for tokens in (1, 64, 256) for active in (16, 64, 128)]
    write_csv(folder / "tp1" / "moe.csv", "tokens,activated_experts,time_us", rows)
    link = RingLink(bandwidth_gib_s=16, latency_us=20, memory_bandwidth_gb_s=1000, fixed_ns=0)
    alone = ProfileTiming(folder, model)
    shared = ProfileTiming(folder, model, dp=2, ep=2, all_reduce=link)
    padded = Shape(100, 3, (), 3, 3 * 70, 70, 70)  # three decodes, beside a rank that has 100 tokens
    lines = {line.operator: line for line in shared.explain(padded)}
    before = {line.operator: line.ns for line in alone.explain(padded)}
    assert sum(line.ns for line in lines.values()) == shared.iteration_ns(padded)
    assert lines["qkv_proj"].ns == before["qkv_proj"]  # at 100 tokens
    own = {line.operator: line.ns for line in alone.explain(Shape.decode(3, 70))}
    assert [lines[name].ns for name in ("attention", "lm_head")] == [own["attention"], own["lm_head"]]  # at 3
    both = expert_load(load_experts(), 200, 2, None)
    assert lines["experts"].ns == 48 * 1000 * (both[0] + 10 * both[1])
    hop = 20_000 + 100 * 2 * (2048 + 128) / (16 * 2**30 / 1e9)  # what the other rank has
    assert lines["dispatch"].ns == 48 * int(hop)
    share = 100 * 2 * 2048
    assert lines["combine"].ns == 48 * int(20_000 + share / (16 * 2**30 / 1e9) + 3 * share / 1000)
    dummy = shared.iteration_ns(Shape(100, 0, (), 0, 0))  # the rank has nothing: no attention, no logits
    assert dummy == shared.iteration_ns(padded) - own["attention"] - own["lm_head"] - own["sampler"]
    with pytest.raises(InputError, match="dp 2 needs all_reduce: what its ranks exchange"):
        ProfileTiming(folder, model, dp=2, ep=2)
    with pytest.raises(InputError, match="has whole experts only: dp 2 takes enable_expert_parallel"):
        ProfileTiming(folder, model, dp=2, all_reduce=link)


def load_experts() -> Experts:
    (experts,) = {op for op, _ in load_model("qwen3-30b-a3b").operators() if isinstance(op, Experts)}
    return experts


@given(st.integers(1, 10**9), st.integers(2, 16), st.sampled_from([None, 2.0]))
def test_the_halves_of_an_all_reduce(num_bytes: int, ranks: int, small_us: float | None) -> None:
    link = RingLink(
        bandwidth_gib_s=16, latency_us=20, small_latency_us=small_us, memory_bandwidth_gb_s=1597, fixed_ns=0
    )
    halves = link.all_gather_ns(num_bytes, ranks) + link.reduce_scatter_ns(num_bytes, ranks)
    assert halves == pytest.approx(link.all_reduce_ns(num_bytes, ranks), abs=2)


def test_activated_experts() -> None:
    experts = load_experts()
    assert expert_load(experts, 100, 2, None) == (100, 64)
    assert expert_load(experts, 3, 2, None) == (3, 12)
    assert expert_load(experts, 3, 1, Balanced()) == (3, round(128 * (1 - (1 - 8 / 128) ** 3)))
    assert expert_load(experts, 100, 4, Balanced())[0] == expert_load(experts, 100, 4, None)[0]
    few = Recorded(((1.0,) * 10 + (0.0,) * 118,))
    assert expert_load(experts, 100, 2, few) == (100, 10)  # all of them on the first rank
    halves = Recorded(((3.0,) * 64 + (1.0,) * 64,))
    assert expert_load(experts, 100, 4, halves)[0] == round(100 * (1 - (1 - 3 / 8) ** 8))


BAD = [
    ("dense", "time_us", "time", "no column 'time_us'; did you mean 'time'? (there are: layer, tokens, time)"),
    ("dense", "qkv_proj", "qkv", "no layer 'qkv_proj' (there are: embedding"),
    ("attention", "0,0,1,16,", "0,0,1,-16,", "line 2: kv_decode: expected a whole number that is not negative"),
    ("skew_fit", "n<=2", "n<=3", "n_label: no bin 'n<=3'; did you mean"),
    ("per_sequence", "lm_head,1,", "lm_head,1,9,", "line 2: has 4 cells, the header has 3"),
]


@pytest.mark.parametrize(("table", "old", "new", "message"), BAD)
def test_bad_tables(tmp_path: Path, table: str, old: str, new: str, message: str) -> None:
    file = write_bundle(tmp_path / "b") / "tp1" / f"{table}.csv"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(InputError) as caught:
        load_bundle(tmp_path / "b")
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["", "x", "nan", "inf", "0", "-1"])
def test_bad_times(tmp_path: Path, cell: str) -> None:
    folder = write_bundle(tmp_path / "b")
    write_csv(folder / "tp1" / "dense.csv", "layer,tokens,time_us", [("o_proj", 1, cell)])
    with pytest.raises(InputError, match="line 2: time_us: expected a time above zero, found"):
        load_bundle(folder)


def test_a_folder_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "b")
    before = load_bundle(folder)
    assert load_bundle(folder) is before
    file = folder / "tp1" / "dense.csv"
    file.write_text(file.read_text().replace("embedding,1,", "embedding,1,1"))
    assert load_bundle(folder).dense["embedding"].values[0] > before.dense["embedding"].values[0]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder of measured kernels"):
        load_bundle(tmp_path / "none")
    folder = write_bundle(tmp_path / "b")
    with pytest.raises(InputError, match="expected a folder tp4, found tp1"):
        load_bundle(folder, tp=4)
    (folder / "tp1" / "attention.csv").unlink()
    with pytest.raises(InputError, match=r"has neither attention.csv nor attention.csv.gz"):
        load_bundle(folder)
    (folder / "meta.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"meta.yaml: is not YAML"):
        load_bundle(folder)
    (folder / "meta.yaml").write_text("skew_fit: {per_tp: {1: {alpha_default: much}}}")
    with pytest.raises(InputError, match=r"meta.yaml: Expected `float`, got `str` - at `\$.skew_fit.per_tp"):
        load_bundle(folder)
