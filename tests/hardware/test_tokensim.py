"""TokenSim's price of an iteration and its KV memory, against the tables of its public code."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from simloop.errors import InputError
from simloop.hardware import Shape, TokenSim, load_device, tokensim_memory
from simloop.model import load_model
from tests.hardware.measured import DATA

LLAMA, A100 = load_model("llama-7b"), load_device("a100-sxm-80gb")
TABLES = DATA / "tokensim"
# Its hardware table: 2^40 FLOP/s and 2^40 bytes/s, the former as its prefill times, the latter as its decode times say.
HARDWARE = {
    "A100": (312, 2.0),
    "A100-40G": (312, 1.555),
    "A100-80G": (312, 0.7),
    "G6AiM": (32, 32.0),
    "H100": (1000, 3.0),
    "V100": (125, 0.9),
}
needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason="the public code's outputs are not here (SIMLOOP_DATA)")


def rows(table: Path, hardware: str) -> list[tuple[int, int, float]]:
    with table.open() as lines:
        found = [list(row.values()) for row in csv.DictReader(lines) if row["hardware"] == hardware]
    return [(int(batch), int(tokens), float(seconds)) for _, _, batch, tokens, seconds in found]


@needs_tables
@pytest.mark.parametrize("hardware", HARDWARE)
def test_iterations(hardware: str) -> None:
    tflops, tb_s = HARDWARE[hardware]
    timing = TokenSim(LLAMA, A100, peak_tflops=tflops, memory_bandwidth_tb_s=tb_s)
    decodes = rows(TABLES / "iter_decode_llama7b.csv", hardware)
    prefills = rows(TABLES / "iter_prefill_llama7b.csv", hardware)
    assert min(len(decodes), len(prefills)) > 50
    for batch, context, seconds in decodes:
        assert timing.iteration_ns(Shape.decode(batch, context)) == pytest.approx(seconds * 1e9, abs=1)
    for batch, prompt, seconds in prefills:
        assert timing.iteration_ns(Shape.prefill(*[prompt] * batch)) == pytest.approx(seconds * 1e9, abs=1)


def test_a_prompt_of_one_token_is_a_prompt_although_kernels_see_a_decode() -> None:
    timing = TokenSim(LLAMA, A100)
    as_chunk, as_decode = Shape.prefill(1), Shape.decode(1, 1)
    assert timing.iteration_ns(as_decode) == pytest.approx(timing.iteration_ns(as_chunk), abs=1)
    assert timing.iteration_ns(as_decode) > 17e6
    assert timing.iteration_ns(Shape.decode(1, 2)) < 11e6


def test_rounding_does_not_add_up() -> None:
    timing = TokenSim(LLAMA, A100, memory_bandwidth_tb_s=2)
    shape = Shape.decode(3, 777)
    exact_ns = ((2 * 6_476_005_376 + 3 * 777 * 4 * 4096 * 32) / (2 * 2**40)) / 0.55 * 1e9
    assert exact_ns != round(exact_ns)
    assert sum(timing.iteration_ns(shape) for _ in range(10_000)) == pytest.approx(10_000 * exact_ns, abs=1)


def test_a_mixed_iteration_reads_all_tokens_as_prompts_and_attends_to_both() -> None:
    timing = TokenSim(LLAMA, A100)
    prompts, mixed = Shape.mixed([(60, 20)]), Shape.mixed([(60, 20)], [500, 600])
    attention_ns = 1100 * 4 * 4096 * 32 / (2.039 * 2**40) / 0.55 * 1e9
    assert timing.iteration_ns(mixed) - timing.iteration_ns(prompts) == pytest.approx(attention_ns, abs=2)


def test_its_blocks() -> None:
    plan = tokensim_memory(LLAMA, A100)
    assert plan.num_blocks == 8655
    assert tokensim_memory(LLAMA, load_device("a100-sxm-40gb")).num_blocks == 3535
    assert plan.weight_bytes + plan.kv_bytes == plan.device_bytes
    assert tokensim_memory(LLAMA, A100, num_gpu_blocks_override=10).num_blocks == 10
    with pytest.raises(InputError, match=r"needs .* GB of weights and a KV block; v100-sxm-16gb has"):
        tokensim_memory(load_model("llama-13b"), load_device("v100-sxm-16gb"))


def test_experts_are_refused() -> None:
    with pytest.raises(InputError, match="has experts, which TokenSim does not know"):
        TokenSim(load_model("mixtral-8x7b"), A100)
