"""Experts, latent attention, windows: the blocks of models that are not all alike."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.model import (
    Attention,
    Balanced,
    Experts,
    LatentAttention,
    RandomRouting,
    Recorded,
    load_model,
)


def test_layers_that_differ_are_kinds_with_a_count() -> None:
    deepseek, maverick, oss = (
        load_model(name) for name in ("deepseek-v3", "llama-4-maverick-17b-128e", "gpt-oss-120b")
    )
    assert [deepseek.layers.count(kind) for kind in range(2)] == [3, 58]
    assert deepseek.layers[:4] == (0, 0, 0, 1)
    assert sorted(maverick.layers.count(kind) for kind in range(len(maverick.blocks))) == [12, 12, 24]
    assert oss.layers == (0, 1) * 18
    windows = [operator.window for block in oss.blocks for operator in block if isinstance(operator, Attention)]
    assert windows == [128, None]


def test_gemma_looks_back_by_turns() -> None:
    gemma = load_model("gemma-3-27b")
    reach = [next(op for op in gemma.blocks[kind] if isinstance(op, Attention)).window for kind in gemma.layers]
    assert reach[:7] == [1024] * 5 + [None, 1024]
    assert reach.count(None) == 10


def test_latent_attention_has_the_published_shapes() -> None:
    attention = load_model("deepseek-v3").attention
    assert isinstance(attention, LatentAttention)
    assert attention.kv_elements == 576
    assert attention.decode_flops == 2 * 128 * (576 + 512)
    assert attention.pair_flops == 2 * 128 * (192 + 128)
    assert attention.attended(3, 10) == 11 + 12 + 13


def test_the_experts_of_a_token_read_little() -> None:
    experts = Experts("experts", 2048, 768, 128, 8)
    assert experts.parameters == 128 * 3 * 2048 * 768
    assert experts.flops(8) == 2 * 8 * 3 * 2048 * 768
    assert Balanced().load(experts, 1) == pytest.approx((8, 8))


def brute_force_distinct(experts: int, top_k: int, tokens: int, shares: list[float] | None = None) -> float:
    """Let every token draw its experts, many times."""
    rng = np.random.default_rng(7)
    seen = [
        len({int(e) for _ in range(tokens) for e in rng.choice(experts, top_k, replace=False, p=shares)})
        for _ in range(300)
    ]
    return float(np.mean(seen))


@pytest.mark.parametrize(("experts", "top_k", "tokens"), [(8, 2, 1), (8, 2, 3), (16, 4, 5), (32, 4, 20)])
def test_expected_experts_equal_brute_force(experts: int, top_k: int, tokens: int) -> None:
    layer = Experts("experts", 64, 64, experts, top_k)
    expected = brute_force_distinct(experts, top_k, tokens)
    assert Balanced().load(layer, tokens).active == pytest.approx(expected, rel=0.03)
    assert Recorded(((1.0,) * experts,)).load(layer, tokens).active == pytest.approx(expected, rel=0.03)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([(8, 2), (64, 6), (128, 8), (16, 1)]),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 5000),
    st.integers(0, 5),
)
def test_the_busiest_rank_has_at_least_its_share(kind: tuple[int, int], ranks: int, tokens: int, seed: int) -> None:
    layer = Experts("experts", 64, 64, *kind, local=kind[0] // ranks)
    fair = Balanced().load(layer, tokens)
    shares = tuple(1.0 + (number * 7919 + seed) % 5 for number in range(kind[0]))
    for routing in (RandomRouting(seed), Recorded((shares,)), Recorded((shares, shares[::-1]))):
        load = routing.load(layer, tokens)
        assert load == routing.load(layer, tokens)
        assert load.pairs >= fair.pairs * (1 - 1e-9)
        assert load.pairs <= tokens * kind[1] * (1 + 1e-9)
        assert load.active <= layer.local
    if ranks == 1:
        assert RandomRouting(seed).load(layer, tokens).pairs == pytest.approx(tokens * kind[1])


def test_a_favourite_is_in_the_choice_of_every_token() -> None:
    layer = Experts("experts", 64, 64, 4, 2, local=2)
    load = Recorded(((100.0, 1.0, 1.0, 1.0),)).load(layer, 30)
    assert load.pairs == pytest.approx(30 * (1 + 1 / 3))
    assert Recorded(((1.0, 0.0, 0.0, 0.0),)).load(layer, 30) == pytest.approx((30, 1))


LAYER = Experts("experts", 64, 64, 4, 2)
RECORDS: dict[str, tuple[str, list[tuple[float, ...]]]] = {
    "alike.json": ("[3, 1, 0, 4]", [(3, 1, 0, 4)]),
    "layers.json": ("[[3, 1, 0, 4], [1, 1, 1, 1]]", [(3, 1, 0, 4), (1, 1, 1, 1)]),
    "tokens.jsonl": ('{"experts": [3, 0]}\n{"experts": [3, 1]}\n', [(1, 1, 0, 2)]),
    "by_layer.jsonl": (
        '{"layer": 7, "experts": [1, 2]}\n\n{"layer": 3, "counts": [9, 0, 4, 1]}\n{"layer": 7, "experts": [2, 3]}',
        [(9, 0, 4, 1), (0, 1, 2, 1)],
    ),
    "counts.csv": ("layer,expert,count\n0,3,5\n1,0,2.5\n0,1,1\n0,3,1\n", [(0, 1, 0, 6), (2.5, 0, 0, 0)]),
    "choices.csv": ("expert\n3\n0\n3\n2\n", [(1, 0, 1, 2)]),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", RECORDS)
def test_recorded_routing_is_read(name: str, packed: bool, tmp_path: Path) -> None:
    text, layers = RECORDS[name]
    file = tmp_path / (f"{name}.gz" if packed else name)
    file.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    recorded = Recorded.read(file, LAYER, 2)
    assert recorded.layers == tuple(layers)
    with pytest.raises(InputError, match="recorded routing is of 4 experts, the model has 8"):
        recorded.load(Experts("experts", 64, 64, 8, 2), 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", "expected a JSON list with a number for each expert"),
        ("a.json", "[1, 2", "expected a JSON list"),
        ("a.json", "[]", "found 0 numbers, the model has 4 experts"),
        ("a.json", "[[1, 1, 1, 1], [0, 0, 0, 0]]", "no expert was chosen in layer 1"),
        ("a.json", "[[1, 1, 1, 1], [1, 1, 1]]", "[1]: found 3 numbers, the model has 4 experts"),
        ("a.json", "[-1, 2, 0, 0]", "found count -1.0, expected a number of at least 0"),
        ("a.json", "[[1, 1, 1, 1]]", "has 1 layers, the model has 2 with experts"),
        ("a.jsonl", "", "no expert was chosen"),
        ("a.jsonl", '{"experts": [0, 1]}\n{"experts": [0, 4]}', "line 2: found expert 4, the model has 0 to 3"),
        ("a.jsonl", '{"experts": [0, 0]}', "line 1: expected the 2 different experts of one token, found 1"),
        ("a.jsonl", '{"expert": [0, 1]}', "line 1: Object contains unknown field `expert`"),
        ("a.jsonl", '{"layer": 1}', "line 1: expected either 'experts' or 'counts'"),
        ("a.jsonl", '{"experts": [0, 1]}\n{"layer": 0, "experts": [0, 1]}', "line 2: expected a layer everywhere"),
        ("a.csv", "layer,exprt\n", "line 1: unknown column 'exprt'; did you mean 'expert'?"),
        ("a.csv", "layer,count\n", "line 1: no column 'expert'"),
        ("a.csv", "expert,count\n0,1\n1,nan\n", "line 3: found count nan, expected a number of at least 0"),
        ("a.csv", "expert,count\n0,1\n1\n", "line 3: has 1 cells, the header has 2"),
        ("a.csv", "expert,count\n0,x\n", "line 2: expected numbers, found '0, x'"),
        ("a.csv", "layer,expert\n-1,0\n", "line 2: found layer -1, expected a number of at least 0"),
        ("a.txt", "", "expected a .json, .jsonl or .csv file of recorded routing"),
    ],
)
def test_routing_that_cannot_be_read(name: str, text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        Recorded.read(file, LAYER, 2)
    assert str(caught.value).startswith(f"{file}: ")
    assert message in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        Recorded.read(tmp_path / "nothing.json", LAYER, 2)


def test_layers_that_differ_count_with_their_mean() -> None:
    shares = (8.0, 1.0, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0)
    layer = Experts("experts", 64, 64, 4, 1, local=2)
    one, other = (Recorded((mine,)).load(layer, 9) for mine in shares)
    both = Recorded(shares).load(layer, 9)
    assert both == pytest.approx([(a + b) / 2 for a, b in zip(one, other, strict=True)])
    assert one.pairs == pytest.approx(9 * 9 / 11)  # the rank with the favourite
    assert other.active == pytest.approx(2 * (1 - 0.75**9))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0.01, 9), min_size=6, max_size=6), min_size=1, max_size=3),
    st.integers(1, 300),
    st.sampled_from([1, 2, 3]),
)
def test_recorded_loads_against_a_loop(shares: list[list[float]], tokens: int, local: int) -> None:
    loads, tied = [], False
    for mine in shares:
        share = [number / sum(mine) for number in mine]  # one expert a token: no chance is above 1
        ranks = [share[first : first + local] for first in range(0, 6, local)]
        by_rank = sorted((tokens * sum(rank), sum(1 - (1 - p) ** tokens for p in rank)) for rank in ranks)
        tied = tied or by_rank[-1][0] - by_rank[-2][0] < 1e-6
        loads.append(by_rank[-1])
    found = Recorded(tuple(map(tuple, shares))).load(Experts("experts", 8, 8, 6, 1, local=local), tokens)
    assert found.pairs == pytest.approx(sum(pairs for pairs, _ in loads) / len(loads))
    assert tied or found.active == pytest.approx(sum(active for _, active in loads) / len(loads))


def test_layers_of_a_qwen_mixture_can_be_dense(tmp_path: Path) -> None:
    import simloop.model

    values = json.loads((Path(simloop.model.__path__[0]) / "catalog/qwen3-30b-a3b.json").read_text())
    values["mlp_only_layers"], values["decoder_sparse_step"] = [3], 2
    file = tmp_path / "mixed.json"
    file.write_text(json.dumps(values))
    model = load_model(str(file))
    sparse = [any(isinstance(op, Experts) for op in model.blocks[kind]) for kind in model.layers]
    assert sparse[:6] == [False, True, False, False, False, True]
