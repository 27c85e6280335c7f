"""A plan cuts a model without losing or doubling anything."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.model import (
    Attention,
    Collective,
    Elementwise,
    Experts,
    Gemm,
    Plan,
    Stage,
    exchanged_bytes,
    load_model,
    shard,
)

MODELS = ["llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite", "mixtral-8x7b", "gpt-oss-20b", "opt-13b", "gemma-2-9b"]


def matrix_elements(stage: Stage) -> int:
    return sum(op.parameters * calls for op, calls in stage.operators if isinstance(op, Gemm | Experts))


def collectives(stage: Stage) -> dict[str, tuple[str, int, int]]:
    return {op.name: (op.kind, op.elements, op.ranks) for op, _ in stage.operators if isinstance(op, Collective)}


def test_one_device_is_the_model_itself() -> None:
    model = load_model("llama-3.1-8b")
    (stage,) = shard(model, Plan())
    assert list(stage.operators) == list(model.operators())
    assert stage.weight_bytes(2) == model.weight_bytes


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("ranks", [2, 4])
def test_the_ranks_hold_everything_once(name: str, ranks: int) -> None:
    model = load_model(name)
    (stage,) = shard(model, Plan(tensor_parallel=ranks))
    whole = {op.name: (op.parameters, op) for op, _ in model.operators() if isinstance(op, Gemm | Experts)}
    for operator, _ in stage.operators:
        if isinstance(operator, Gemm | Experts):
            full, original = whole[operator.name]
            copied = isinstance(original, Gemm) and original.split == "none"
            assert operator.parameters * (1 if copied else ranks) == pytest.approx(full, rel=0.002)


@pytest.mark.parametrize("name", MODELS)
def test_experts_whole_or_sliced_are_as_large(name: str) -> None:
    model = load_model(name)
    (sliced,) = shard(model, Plan(tensor_parallel=4))
    (whole,) = shard(model, Plan(tensor_parallel=4, expert_parallel=True))
    assert matrix_elements(sliced) == pytest.approx(matrix_elements(whole), rel=0.002)
    assert sliced.weight_bytes(2) == pytest.approx(whole.weight_bytes(2), rel=0.002)
    assert collectives(sliced) == collectives(whole)


def test_collectives_of_tensor_parallel_ranks() -> None:
    (stage,) = shard(load_model("llama-3.1-8b"), Plan(tensor_parallel=4))
    assert collectives(stage) == {
        "embedding_all_reduce": ("all_reduce", 4096, 4),
        "o_proj_all_reduce": ("all_reduce", 4096, 4),
        "down_proj_all_reduce": ("all_reduce", 4096, 4),
        "logits_all_gather": ("all_gather", 128_256, 4),
    }
    names = [op.name for op, _ in stage.operators]
    assert names.index("o_proj_all_reduce") == names.index("o_proj") + 1


def test_shared_experts_are_summed_with_the_others() -> None:
    (stage,) = shard(load_model("deepseek-v3"), Plan(tensor_parallel=8, expert_parallel=True))
    sums = [op.name for op, calls in stage.operators if isinstance(op, Collective) and calls == 58]
    assert sums == ["o_proj_all_reduce", "experts_all_reduce"]
    experts = next(op for op, _ in stage.operators if isinstance(op, Experts))
    assert (experts.local, experts.num_experts, experts.width) == (32, 256, 2048)


def test_data_parallel_ranks_exchange_tokens_with_experts() -> None:
    model = load_model("qwen3-30b-a3b")
    (stage,) = shard(model, Plan(data_parallel=2, expert_parallel=True))
    found = collectives(stage)
    assert found["dispatch"] == ("all_gather", 2 * (2048 + 128), 2)
    assert found["combine"] == ("reduce_scatter", 2 * 2048, 2)
    experts = next(op for op, _ in stage.operators if isinstance(op, Experts))
    assert (experts.local, experts.gathered) == (64, 2)
    (direct,) = shard(model, Plan(data_parallel=2, expert_parallel=True, all2all_backend="all_to_all"))
    assert collectives(direct)["combine"] == ("all_to_all", 8 * 2048, 2)
    (dense,) = shard(load_model("llama-3.1-8b"), Plan(data_parallel=2))
    assert collectives(dense) == {}


def test_key_value_heads_are_copied_where_there_are_too_few() -> None:
    model = load_model("qwen3-30b-a3b")  # 32 query heads, 4 key-value heads
    (stage,) = shard(model, Plan(tensor_parallel=8))
    attention = next(op for op, _ in stage.operators if isinstance(op, Attention))
    qkv = next(op for op, _ in stage.operators if op.name == "qkv_proj" and isinstance(op, Gemm))
    rotary = next(op for op, _ in stage.operators if op.name == "rotary_emb" and isinstance(op, Elementwise))
    assert (attention.num_heads, attention.num_kv_heads) == (4, 1)
    assert qkv.n == (4 + 2) * 128
    assert rotary.moved == 2 * (4 + 1) * 128


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(MODELS), st.integers(1, 9), st.sampled_from([1, 2]))
def test_stages_hold_everything_once(name: str, stages: int, ranks: int) -> None:
    model = load_model(name)
    cut = shard(model, Plan(tensor_parallel=ranks, pipeline_parallel=stages))
    (whole,) = shard(model, Plan(tensor_parallel=ranks))
    kept = sum(stage.weight_bytes(2) for stage in cut)
    tied = model.tie_word_embeddings and stages > 1
    copied = 2 * model.vocab_size * model.hidden_size / ranks if tied else 0
    assert kept == pytest.approx(whole.weight_bytes(2) + copied, rel=1e-3)
    assert [stage.last for stage in cut] == [False] * (stages - 1) + [True]
    layers = [sum(calls for op, calls in stage.operators if op.name == "attention") for stage in cut]
    assert sum(layers) == model.num_layers
    assert max(layers) - min(layers) <= 1


def test_layers_are_divided_as_vllm_does() -> None:
    sizes = [[len(span) for span in Plan(pipeline_parallel=p).stage_layers(n)] for n, p in ((61, 4), (30, 4), (5, 2))]
    assert sizes == [[15, 15, 16, 15], [7, 8, 8, 7], [3, 2]]


@pytest.mark.parametrize(
    ("name", "plan", "message"),
    [
        ("qwen2.5-7b", Plan(tensor_parallel=8), "qwen2.5-7b cannot be divided over 8 ranks: 4 key|28 attention heads"),
        ("llama-3.1-8b", Plan(tensor_parallel=3), "over 3 ranks: 8 key-value heads"),
        ("llama-3.1-8b", Plan(pipeline_parallel=33), "32 layers cannot make 33 pipeline stages"),
        ("gpt-oss-20b", Plan(tensor_parallel=128), "over 128 ranks: 64 attention heads"),
    ],
)
def test_plans_that_do_not_divide_a_model(name: str, plan: Plan, message: str) -> None:
    with pytest.raises(InputError, match=message):
        shard(load_model(name), plan)


def test_a_plan_counts_from_one() -> None:
    with pytest.raises(InputError, match="tensor_parallel: expected a whole number above 0, found 0"):
        Plan(tensor_parallel=0)


def test_what_data_parallel_ranks_exchange() -> None:
    model, elements = load_model("qwen3-30b-a3b"), 2  # 48 layers of width 2048, 128 experts, 8 a token
    assert exchanged_bytes(model, Plan()) == (0, 0)
    for ranks in (2, 4):
        plan = Plan(data_parallel=ranks, expert_parallel=True)
        others = 48 * (ranks - 1) * elements
        assert exchanged_bytes(model, plan) == (others * (2048 + 128), others * 2048)
    plan = Plan(data_parallel=4, expert_parallel=True, all2all_backend="all_to_all")
    assert exchanged_bytes(model, plan) == (48 * 8 * 2048 * 3 // 4 * elements,) * 2  # to 3 of 4 ranks, on average
