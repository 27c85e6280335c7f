"""What quantised weights occupy, and which operators they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simloop.errors import InputError
from simloop.model import Experts, Gemm, Model, Quantization, load_model


def quantised(tmp_path: Path, config: dict[str, Any], name: str = "llama-3.1-8b") -> Model:
    import simloop.model

    values = json.loads((Path(simloop.model.__path__[0]) / "catalog" / f"{name}.json").read_text())
    file = tmp_path / "config.json"
    file.write_text(json.dumps(values | {"quantization_config": config}))
    return load_model(str(file))


def kinds(model: Model) -> dict[str, Quantization | None]:
    return {op.name: op.quantization for op, _ in model.operators() if isinstance(op, Gemm | Experts)}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (Quantization("fp8", 8), 512 * 256 + 4),
        (Quantization("fp8_block", 8, (128, 128)), 512 * 256 + 4 * 2 * 4),
        (Quantization("int4", 4, (128, 1), 20, weight_only=True), 512 * 256 / 2 + 4 * 256 * 2.5),
        (Quantization("mxfp4", 4, (32, 1), 8, weight_only=True), 512 * 256 / 2 + 16 * 256),
        (Quantization("int8", 8, (0, 1), 16), 512 * 256 + 256 * 2),
    ],
)
def test_stored_bytes_include_scales(stored: Quantization, expected: float) -> None:
    assert stored.stored_bytes(512, 256) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"quant_method": "fp8"}, Quantization("fp8", 8)),
        ({"quant_method": "fp8", "weight_block_size": [64, 128]}, Quantization("fp8_block", 8, (128, 64))),
        ({"quant_method": "fbgemm_fp8"}, Quantization("fp8", 8, (0, 1))),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, Quantization("int4", 4, (64, 1), 20, True)),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, Quantization("int8", 8, (0, 1), 24, True)),
        ({"quant_method": "mxfp4"}, Quantization("mxfp4", 4, (32, 1), 8, True)),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, Quantization("nvfp4", 4, (16, 1), 8)),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, Quantization("fp8", 8)),
    ],
)
def test_methods(tmp_path: Path, config: dict[str, Any], expected: Quantization) -> None:
    model = quantised(tmp_path, config)
    found = kinds(model)
    assert found["gate_up_proj"] == found["qkv_proj"] == found["o_proj"] == found["down_proj"] == expected
    assert found["lm_head"] is None
    assert model.quantization == config["quant_method"]


@pytest.mark.parametrize(
    ("weights", "activations", "expected"),
    [
        ({"num_bits": 8, "type": "float", "strategy": "channel"}, {}, ("fp8", (0, 1), "fp8")),
        ({"num_bits": 8, "type": "float", "strategy": "block"}, {}, ("fp8_block", (128, 128), "fp8")),
        ({"num_bits": 8, "type": "float", "strategy": "tensor"}, None, ("fp8", (0, 0), None)),
        ({"num_bits": 8, "type": "int", "strategy": "channel"}, {}, ("int8", (0, 1), "int8")),
        ({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64}, None, ("int4", (64, 1), None)),
        ({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}, {}, ("nvfp4", (16, 1), "fp4")),
    ],
)
def test_compressed_tensors(tmp_path: Path, weights: Any, activations: Any, expected: Any) -> None:
    group = {"weights": weights, "input_activations": activations}
    model = quantised(tmp_path, {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}})
    stored = kinds(model)["down_proj"]
    assert stored is not None
    assert (stored.kernel, stored.group, stored.arithmetic) == expected


def test_odd_compressed_tensors(tmp_path: Path) -> None:
    group = {"weights": {"num_bits": 3, "type": "int"}, "input_activations": None}
    with pytest.raises(InputError, match=r"config_groups.g.weights.num_bits: weights of 3 bits \(int\)"):
        quantised(tmp_path, {"quant_method": "compressed-tensors", "config_groups": {"g": group}})


@pytest.mark.parametrize("pattern", ["re:.*self_attn.*", "model.layers.*.self_attn", "self_attn", "self_attn.q_proj"])
def test_modules_can_be_left_alone(tmp_path: Path, pattern: str) -> None:
    found = kinds(quantised(tmp_path, {"quant_method": "fp8", "ignored_layers": [pattern]}))
    assert found["qkv_proj"] is None
    assert found["gate_up_proj"] is not None


def test_layers_left_alone_are_a_kind_of_their_own(tmp_path: Path) -> None:
    names = ["model.layers.0.mlp.down_proj", "model.layers.31.mlp.down_proj", "lm_head"]
    model = quantised(tmp_path, {"quant_method": "fbgemm_fp8", "modules_to_not_convert": names})
    assert model.layers == (0, *(1,) * 30, 0)
    assert model.num_layers == 32


def test_experts_are_quantised_and_routers_are_not() -> None:
    found = kinds(load_model("deepseek-v3"))
    assert found["experts"] == found["shared_gate_up_proj"] == Quantization("fp8_block", 8, (128, 128))
    assert found["router"] is None
    oss = kinds(load_model("gpt-oss-20b"))
    assert oss["experts"] == Quantization("mxfp4", 4, (32, 1), 8, weight_only=True)
    assert oss["qkv_proj"] is None


def test_a_checkpoint_may_ask_for_a_small_cache(tmp_path: Path) -> None:
    model = quantised(tmp_path, {"quant_method": "fp8", "kv_cache_scheme": {"num_bits": 8}})
    assert model.kv_bytes_per_token == 65_536
    assert model.with_kv_cache_dtype("bfloat16").kv_bytes_per_token == 131_072
    assert model.with_kv_cache_dtype("auto") is model


def test_the_cache_has_its_own_precision() -> None:
    model = load_model("llama-3.1-8b")
    assert model.with_kv_cache_dtype("fp8").kv_bytes_per_token == 65_536
    assert model.with_kv_cache_dtype("fp8").with_dtype("float32").kv_bytes_per_token == 65_536
    with pytest.raises(InputError, match=r"unknown kv_cache_dtype 'fp9'; did you mean 'fp8'\?"):
        model.with_kv_cache_dtype("fp9")


def test_modelopt_writes_a_file_beside_the_configuration(tmp_path: Path) -> None:
    import simloop.model

    values = (Path(simloop.model.__path__[0]) / "catalog/llama-3.1-8b.json").read_text()
    (tmp_path / "config.json").write_text(values)
    side = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(side))
    model = load_model(str(tmp_path))
    assert kinds(model)["o_proj"] == Quantization("fp8", 8)
    assert model.kv_bytes_per_token == 65_536
