"""Breakpoints at operators: which a pattern means, when they are called, and what waiting there does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import simloop
from simloop.errors import InputError
from simloop.hardware import OperatorCall, Pipeline, Roofline, Shape, Timeline, load_device
from simloop.model import Plan, load_model
from simloop.serving import Cluster, Engine, Lockstep, Moment, OperatorMoment, Request
from simloop.serving.patterns import find_operators
from tests.serving.world import make_cluster, serve, token_times

LLAMA, A100 = load_model("llama-3.1-8b"), load_device("a100-sxm-80gb")
TIMING = Roofline(LLAMA, A100)
CALLS = Timeline(TIMING).calls
BURST = [(0, 50, 4), (0, 20, 2)]


@pytest.mark.parametrize(
    ("pattern", "count", "first", "last"),
    [
        ("lm_head", 1, "lm_head", "lm_head"),
        ("*", 4, "embedding", "sampler"),
        ("layers.*.o_proj", 32, "layers.0.o_proj", "layers.31.o_proj"),
        ("layers.*.*_proj", 4 * 32, "layers.0.qkv_proj", "layers.31.down_proj"),
        ("layers[::4].o_proj", 8, "layers.0.o_proj", "layers.28.o_proj"),
        ("layers[3::4].o_proj", 8, "layers.3.o_proj", "layers.31.o_proj"),
        ("layers[-1].attention", 1, "layers.31.attention", "layers.31.attention"),
        ("layers[:].attention", 32, "layers.0.attention", "layers.31.attention"),
        ("layers.7.*", 9, "layers.7.input_layernorm", "layers.7.down_proj"),
        ("layers.7", 1, "layers.7", "layers.7"),
        ("layers.*", 32, "layers.0", "layers.31"),
        ("layers[30:]", 2, "layers.30", "layers.31"),
    ],
)
def test_patterns(pattern: str, count: int, first: str, last: str) -> None:
    found = find_operators(pattern, CALLS, LLAMA)
    assert (len(found), found[0].path, found[-1].path) == (count, first, last)
    for place in found:
        inside = CALLS[place.first : place.last]
        assert all(call.path == place.path or call.path.startswith(f"{place.path}.") for call in inside)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (
            "layers.*.out_proj",
            "fits no operator of llama-3.1-8b; did you mean 'o_proj'? (there are: embedding",
        ),
        ("layers[::4].atention", "did you mean 'attention'?"),
        ("o_proj", "did you mean 'layers.*.o_proj'?"),
        ("layer.3.o_proj", "did you mean 'layers.*.o_proj'?"),
        ("lm_heat", "did you mean 'lm_head'?"),
        ("layers.o_proj", "did you mean 'layers.*.o_proj'?"),
        ("layers", "fits no operator"),
        ("layers.32", "fits no layer: llama-3.1-8b has layers 0 to 31"),
        ("layers[-33]", "fits no layer"),
        ("layers[]", "expected a layer or a slice as in layers[0], layers[-1], layers[::4]"),
        ("layers[a]", "expected a layer or a slice"),
        ("layers[::0]", "expected a layer or a slice"),
        ("layers[1:2:3:4]", "expected a layer or a slice"),
        ("layers[0]o_proj", "fits no operator"),
        ("", "fits no operator"),
        ("layers.0.", "fits no operator"),
    ],
)
def test_patterns_that_fit_nothing_say_what_there_is(pattern: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        find_operators(pattern, CALLS, LLAMA)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_operator_that_only_other_layers_have_is_not_proposed() -> None:
    mixture = load_model("deepseek-v2-lite")  # its first layer is dense
    calls = Timeline(Roofline(mixture, A100)).calls
    assert len(find_operators("layers.*.experts", calls, mixture)) == 26
    with pytest.raises(
        InputError, match=r"no operator of deepseek-v2-lite \(there are: .*; in layers\.0: input_layernorm"
    ):
        find_operators("layers.0.experts", calls, mixture)


def cluster_of(**options: Any) -> Cluster:
    return make_cluster(timing=TIMING, **options)


def test_hooks_are_called_in_the_order_of_execution_at_the_times_of_the_model() -> None:
    cluster = cluster_of()
    seen: list[OperatorMoment] = []

    async def note(moment: OperatorMoment) -> None:
        assert simloop.now_ns() == moment.time_ns
        assert moment.worker.executing
        assert moment.cluster is cluster
        assert moment.batch.num_tokens == 50
        seen.append(moment)

    for pattern in ("layers.*", "layers[0].*", "*"):
        cluster.after(pattern, note)
        cluster.before(pattern, note)
    (request,) = serve(cluster, [(0, 50, 1)])
    assert [str(moment) for moment in seen[:4]] == [
        "before embedding on gpu-0",
        "after embedding on gpu-0",
        "before layers.0 on gpu-0",
        "before layers.0.input_layernorm on gpu-0",
    ]
    assert [str(moment) for moment in seen if moment.layer == 0][-2:] == [
        "after layers.0.down_proj on gpu-0",
        "after layers.0 on gpu-0",
    ]
    times = {(moment.name, moment.operator): moment.time_ns for moment in seen}
    shape, paths = Shape.prefill(50), [call.path for call in CALLS]
    total_ns = TIMING.iteration_ns(shape)
    marks = Timeline(TIMING).marks_ns(shape, total_ns, range(len(CALLS) + 1))
    for (name, path), time_ns in times.items():
        if path in paths:
            assert time_ns == marks[paths.index(path) + (name == "after")]
    assert times["after", "sampler"] == request.finish_ns == total_ns
    assert len(seen) == 2 * (32 + 9 + 4)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 60), st.integers(1, 10)), min_size=1, max_size=8),
    st.sampled_from(["layers.*.o_proj", "lm_head", "layers[::5]", "*"]),
)
def test_hooks_that_do_not_wait_change_nothing(rows: list[tuple[int, int, int]], pattern: str) -> None:
    arrivals = sorted((1_000_000 * at + 1, prompt, output) for at, prompt, output in rows)
    times = []
    for hooked in (False, True):
        cluster = cluster_of(blocks=8, workers=2, engine=Engine(max_num_seqs=4, max_num_batched_tokens=32))
        if hooked:
            cluster.after(pattern, quiet)
            cluster.before(pattern, quiet, background=True)
        serve(cluster, arrivals)
        times.append(token_times(cluster))
    assert times[0] == times[1]


async def quiet(moment: OperatorMoment) -> None: ...


def test_a_hook_that_waits_moves_all_that_is_behind_it() -> None:
    """Four layers wait 1 ms each: every iteration lasts 4 ms longer; in the background it lasts as long as ever."""

    async def wait(moment: OperatorMoment) -> None:
        await simloop.sleep(0.001)

    finish_ns: list[int] = []
    for background in (None, True, False):
        cluster = cluster_of()
        if background is not None:
            cluster.after("layers[::8]", wait, background=background)
        finish_ns += [request.finish_ns for request in serve(cluster, [(0, 50, 4)])]
        assert cluster.workers[0].busy_ns == finish_ns[-1]
    assert finish_ns[1] == finish_ns[0]
    assert finish_ns[2] == finish_ns[0] + 4 * 4 * 1_000_000


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3_000_000), min_size=1, max_size=9), st.integers(1, 3))
def test_every_call_comes_so_much_later_as_hooks_before_it_waited(waits: list[int], tokens: int) -> None:
    cluster, seen = cluster_of(), list[int]()
    begun_ns = late_ns = wanted = 0
    places = [place.last for place in find_operators("layers[::4].o_proj", CALLS, LLAMA)]

    async def wait(moment: OperatorMoment) -> None:
        nonlocal late_ns, wanted, begun_ns
        if len(seen) % len(places) == 0:
            begun_ns, late_ns = cluster.workers[0].busy_ns, 0
        total_ns = TIMING.iteration_ns(moment.batch)
        (mark_ns,) = Timeline(TIMING).marks_ns(moment.batch, total_ns, [places[len(seen) % len(places)]])
        assert moment.time_ns == begun_ns + mark_ns + late_ns
        seen.append(moment.time_ns)
        late_ns += waits[len(seen) % len(waits)]
        wanted += waits[len(seen) % len(waits)]
        await simloop.sleep_ns(waits[len(seen) % len(waits)])

    cluster.after("layers[::4].o_proj", wait)
    (request,) = serve(cluster, [(0, 50, tokens)])
    (plain,) = serve(cluster_of(), [(0, 50, tokens)])
    assert len(seen) == 8 * tokens
    assert request.finish_ns == plain.finish_ns + wanted


def test_hooks_may_be_added_while_the_cluster_runs() -> None:
    cluster, seen = cluster_of(), list[str]()

    async def note(moment: OperatorMoment) -> None:
        seen.append(moment.operator)

    async def control(cluster: Cluster) -> None:
        await simloop.sleep(0.03)
        cluster.after("lm_head", note)

    cluster.control = control
    (request,) = serve(cluster, [(0, 50, 20)])
    assert 0 < len(seen) < 20
    assert request.finish_ns > 30_000_000


def test_ranks_in_lockstep_are_told_together_and_wait_together() -> None:
    plain, hooked = (cluster_of(workers=2, route="round_robin") for _ in range(2))
    told: list[tuple[int, str, int]] = []

    async def note(moment: OperatorMoment) -> None:
        told.append((moment.time_ns, moment.worker.name, sum(tokens for _, tokens in moment.batch.prefills)))
        if moment.worker.index == 1:
            await simloop.sleep(0.002)

    hooked.after("layers[15]", note)
    ends = []
    for cluster in (plain, hooked):
        cluster.lockstep = [Lockstep(cluster.workers)]
        ends.append([request.finish_ns for request in serve(cluster, [(0, 30, 1), (0, 10, 1)])])
    (first_ns, *first), (second_ns, *second) = told
    assert (first, second) == (["gpu-0", 30], ["gpu-1", 10])
    assert first_ns == second_ns
    assert ends[1] == [end + 2_000_000 for end in ends[0]]


def staged() -> Cluster:
    """Return a worker of two pipeline stages, 16 layers each."""
    cluster = make_cluster(stages=2, check=False)
    plan = Plan(pipeline_parallel=2)
    timing = Pipeline(LLAMA, A100, plan, lambda stage: Roofline(LLAMA, A100, plan=plan, stage=stage))
    (worker,) = cluster.workers
    worker.timing = timing
    assert worker.stages is not None
    worker.stages.timing = timing
    return cluster


def test_stages_are_walked_each_by_itself() -> None:
    cluster, seen = staged(), list[tuple[str, int]]()
    (plain,) = serve(staged(), [(0, 50, 1)])

    async def note(moment: OperatorMoment) -> None:
        seen.append((moment.operator, moment.time_ns))
        if moment.operator == "layers.20":
            await simloop.sleep(0.001)

    cluster.after("layers.*", note)
    cluster.before("layers[-1].attention", note)
    cluster.after("sampler", note)
    (request,) = serve(cluster, [(0, 50, 1)])
    layers = [f"layers.{layer}" for layer in range(32)]
    assert [path for path, _ in seen] == [*layers[:31], "layers.31.attention", layers[31], "sampler"]
    times = dict(seen)
    pipeline, shape = cluster.workers[0].timing, Shape.prefill(50)
    assert isinstance(pipeline, Pipeline)
    assert times["layers.15"] == pipeline.stage_ns(shape, 0)
    sent_ns = pipeline.send_ns(shape, 0)
    assert times["layers.16"] - times["layers.15"] > sent_ns > 0
    assert times["sampler"] == request.finish_ns == plain.finish_ns + 1_000_000


def test_a_stage_without_hooks_is_not_walked() -> None:
    cluster, told = staged(), list[str]()

    async def note(moment: OperatorMoment) -> None:
        told.append(moment.operator)

    cluster.after("layers[20]", note)
    stages = cluster.workers[0].stages
    assert stages is not None
    assert [walk is not None for walk in stages.walks] == [False, True]
    with pytest.raises(InputError, match="there are: embedding, final_layernorm, lm_head, sampler; in layers"):
        cluster.after("nothing", note)
    with pytest.raises(InputError, match=r"ArbitraryPrice is no simloop\.hardware\.Pipeline"):
        make_cluster(stages=2).after("lm_head", note)
    assert all(request.generated == 4 for request in serve(cluster, [(0, 50, 4)] * 3))
    assert set(told) == {"layers.20"}


def test_all_reduces_and_experts_are_operators() -> None:
    calls = Timeline(Roofline(load_model("qwen3-30b-a3b"), A100, plan=Plan(tensor_parallel=2))).calls
    names = [call.path for call in calls if call.layer == 5]
    for name in ("o_proj_all_reduce", "router", "experts", "experts_all_reduce"):
        assert f"layers.5.{name}" in names


def test_a_worker_without_hooks_is_not_walked() -> None:
    cluster = cluster_of(workers=2)
    other = make_cluster(timing=Roofline(load_model("opt-13b"), A100)).workers[0]
    cluster.workers[1].timing, cluster.workers[1].model = other.timing, other.model
    cluster.after("layers.*.gate_up_proj", quiet)  # OPT has none
    assert [worker.walk is not None for worker in cluster.workers] == [True, False]
    with pytest.raises(InputError, match="fits no operator of llama"):
        cluster.after("nothing", quiet)
    serve(cluster, BURST)


def test_a_hook_for_a_group_leaves_the_others_alone() -> None:
    cluster, seen = make_cluster(workers=3, route="round_robin"), set[str]()
    for worker in cluster.workers:
        worker.timing, worker.group = Roofline(LLAMA, A100), "even" if worker.index % 2 == 0 else "odd"

    async def note(moment: Moment | OperatorMoment) -> None:
        assert moment.worker is not None
        seen.add(moment.worker.name)

    cluster.after("layers[::4]", note, group="odd")
    cluster.hook("admitted", note, group="odd")
    assert [worker.walk is not None for worker in cluster.workers] == [False, True, False]
    serve(cluster, BURST * 3)
    assert seen == {"gpu-1"}
    with pytest.raises(InputError, match=r"no group of workers is called 'add'; did you mean 'odd'\?"):
        cluster.before("lm_head", note, group="add")


def test_workers_of_two_groups_may_share_a_timing_model() -> None:
    cluster, seen = cluster_of(workers=2, route="round_robin"), set[str]()
    cluster.workers[1].group = "other"

    async def note(moment: OperatorMoment) -> None:
        seen.add(f"{moment.worker.group} {moment.operator}")

    cluster.after("layers[0]", note, group="other")
    cluster.after("lm_head", note)
    serve(cluster, BURST)
    assert seen == {"gpu lm_head", "other layers.0", "other lm_head"}


def test_a_timing_model_of_ones_own_says_what_it_lacks() -> None:
    with pytest.raises(
        InputError, match="timing model ArbitraryPrice has iteration_ns alone: breakpoints at operators"
    ):
        make_cluster().after("lm_head", quiet)


def test_a_timing_model_of_ones_own_may_know_its_operators() -> None:
    class Even:
        """Every operator takes a microsecond."""

        stage = TIMING.stage

        def operator_ns(self, operator: Any, shape: Any) -> float:
            return 1000

        def iteration_ns(self, shape: Any) -> int:
            return 1000 * len(CALLS)

    cluster, seen = make_cluster(timing=Even()), list[int]()

    async def note(moment: OperatorMoment) -> None:
        seen.append(moment.time_ns)

    cluster.after("layers.0.*", note)
    serve(cluster, [(0, 5, 1)])
    assert seen == [2000 + 1000 * place for place in range(9)]


@pytest.mark.parametrize("background", [False, True])
def test_errors_name_hook_operator_worker_and_time(background: bool) -> None:
    async def broken(moment: OperatorMoment) -> None:
        raise ValueError("no")

    cluster = cluster_of()
    cluster.before("lm_head", broken, background=background)
    with pytest.raises(simloop.PolicyError, match=r"broken before lm_head on gpu-0 raised ValueError: no .*\(t = 0\.0"):
        serve(cluster, BURST)


def test_a_hook_that_meddles_in_an_iteration_is_told() -> None:
    async def meddle(moment: OperatorMoment) -> None:
        moment.worker.preempt(next(iter(moment.worker.running)))

    cluster = cluster_of()
    cluster.after("embedding", meddle)
    with pytest.raises(
        simloop.PolicyError, match=r"after embedding on gpu-0 raised PolicyError: .* while an iteration"
    ):
        serve(cluster, BURST)


@pytest.mark.parametrize("background", [False, True])
def test_a_hook_that_never_returns_is_named_with_its_operator(background: bool) -> None:
    async def forever(moment: OperatorMoment) -> None:
        await simloop.Event("never").wait()

    cluster = cluster_of()
    cluster.after("layers[3]", forever, background=background)
    with pytest.raises(simloop.DeadlockError, match=r"forever after layers\.3 on gpu-0 has not returned since t = 0\."):
        serve(cluster, BURST)


def test_a_request_may_be_aborted_while_a_hook_waits() -> None:
    cluster = cluster_of()

    async def hang_up(moment: OperatorMoment) -> None:
        cluster.abort(requests[0])
        await simloop.sleep(0.001)

    cluster.after("layers[0]", hang_up)
    requests: list[Request] = []

    async def main() -> None:
        async with cluster:
            requests.append(cluster.submit(simloop.Arrival(0, 20, 3)))
            await cluster.drain()

    simloop.run(main())
    assert requests[0].reason == "aborted by the client"
    assert cluster.workers[0].kv.used == 0


def test_a_walk_in_real_time() -> None:
    cluster, seen = cluster_of(), list[str]()

    async def note(moment: OperatorMoment) -> None:
        seen.append(moment.operator)

    async def main() -> None:
        cluster.after("layers[15:17]", note)
        async with cluster:
            await cluster.generate(prompt_tokens=20, output_tokens=2)

    asyncio.run(main())
    assert seen == ["layers.15", "layers.16"] * 2


def test_calls_are_what_the_plan_runs() -> None:
    assert CALLS[0] == OperatorCall("embedding", None, LLAMA.prologue[0])
    assert len(CALLS) == 1 + 32 * 9 + 3
