"""What remains for the KV cache."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.hardware import load_device, memory_plan
from simloop.model import load_model


def test_blocks_of_a_real_engine() -> None:
    """vLLM 0.15.1 on an H100 with Llama-2-7B in float16: 7,462 blocks (128 sequences, 2,048 tokens, 0.9)."""
    plan = memory_plan(
        load_model("llama-2-7b"),
        load_device("h100-sxm-80gb"),
        gpu_memory_utilization=0.9,
        max_num_batched_tokens=2048,
        max_num_seqs=128,
        block_size=16,
    )
    assert plan.num_blocks == pytest.approx(7462, rel=0.005)


@given(st.floats(0.3, 1), st.integers(1, 16_384), st.integers(1, 1024), st.sampled_from([8, 16, 32]))
def test_the_parts_add_up(utilization: float, tokens: int, sequences: int, block_size: int) -> None:
    plan = memory_plan(
        load_model("llama-3.1-8b"),
        load_device("a100-sxm-80gb"),
        gpu_memory_utilization=utilization,
        max_num_batched_tokens=tokens,
        max_num_seqs=sequences,
        block_size=block_size,
    )
    assert plan.weight_bytes + plan.activation_bytes + plan.other_bytes + plan.kv_bytes == plan.usable_bytes
    assert plan.num_blocks == plan.kv_bytes // (block_size * 131_072)
    assert plan.num_tokens == plan.num_blocks * block_size


def test_a_readable_breakdown() -> None:
    text = str(memory_plan(load_model("llama-3.1-8b"), load_device("a100-sxm-80gb")))
    assert "- weights                     14.96 GiB" in text
    assert "KV blocks of 16 tokens" in text
    assert max(len(line) for line in text.splitlines()) < 80


def test_weights_that_do_not_fit() -> None:
    expected = "llama-3.1-70b needs 141.1 GB of weights; rtx-4090-24gb at 0.9 has 23.2 GB"
    with pytest.raises(InputError) as caught:
        memory_plan(load_model("llama-3.1-70b"), load_device("rtx-4090-24gb"), gpu_memory_utilization=0.9)
    assert str(caught.value) == expected


def test_no_room_for_a_block() -> None:
    with pytest.raises(InputError, match=r"leave no room for KV cache in 26.1 GB"):
        memory_plan(load_model("opt-13b"), load_device("l40s-48gb"), gpu_memory_utilization=0.54)


def test_the_number_of_blocks_can_be_given() -> None:
    model, device = load_model("llama-3.1-70b"), load_device("a100-sxm-80gb")
    plan = memory_plan(model, device, num_gpu_blocks_override=100)
    assert plan.num_blocks == 100
    assert plan.overridden
    assert "as given" in str(plan)


def test_precision_decides_what_fits() -> None:
    model, device = load_model("llama-3.1-8b"), load_device("v100-sxm-32gb")
    assert memory_plan(model, device).weight_bytes == 2 * model.num_parameters
