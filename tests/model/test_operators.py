"""Operators count their work right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simloop.model import Attention, Elementwise, Gemm, load_model


@given(
    new=st.integers(1, 60), cached=st.integers(0, 60), window=st.one_of(st.none(), st.integers(1, 80))
)  # fmt: skip
def test_attended_pairs_equal_the_sum_over_tokens(new: int, cached: int, window: int | None) -> None:
    attention = Attention("attention", 4, 2, 8, window)
    limit = window or 10**9
    assert attention.attended(new, cached) == sum(min(cached + i, limit) for i in range(1, new + 1))


def test_gemm_counts() -> None:
    gemm = Gemm("g", 3, 5, bias=True)
    assert gemm.parameters == 20
    assert gemm.flops(7) == 2 * 7 * 3 * 5
    assert gemm.moved_bytes(7, 2) == 2 * (7 * 3 + 3 * 5 + 7 * 5)
    assert gemm.weight_bytes(2) == 40
    assert Gemm("tied", 3, 5, tied=True).parameters == 0


def test_elementwise_counts() -> None:
    assert Elementwise("norm", 4 * 8, parameters=8).moved_bytes(3, 2) == 192


def test_names_and_order_of_a_llama_block() -> None:
    model = load_model("llama-3.1-8b")
    assert [operator.name for operator in model.block] == [
        "input_layernorm", "qkv_proj", "rotary_emb", "attention", "o_proj",
        "post_attention_layernorm", "gate_up_proj", "act_fn", "down_proj",
    ]  # fmt: skip
    assert [operator.name for operator in model.prologue] == ["embedding"]
    assert [operator.name for operator in model.epilogue] == ["final_layernorm", "lm_head", "sampler"]


def test_gemm_flops_are_twice_the_matrix_parameters() -> None:
    model = load_model("llama-3.1-8b")
    gemms = [(operator, calls) for operator, calls in model.operators() if isinstance(operator, Gemm)]
    flops = sum(operator.flops(1) * calls for operator, calls in gemms)
    embedding, norms = 128256 * 4096, (2 * 32 + 1) * 4096
    assert flops == 2 * (model.num_parameters - embedding - norms)


def test_every_operator_runs_as_often_as_there_are_layers() -> None:
    model = load_model("opt-13b")
    assert {calls for operator, calls in model.operators() if operator in model.block} == {40}
