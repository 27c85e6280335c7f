"""The bundled models are what their publishers say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from simloop.errors import InputError
from simloop.model import load_model, model_names

# The number of parameters that each model's published safetensors hold (tied weights once).
PARAMETERS = {
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "codellama-34b": 33_743_970_304,
    "mistral-7b-v0.1": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    "mistral-nemo-12b": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "opt-125m": 125_239_296,
    "opt-1.3b": 1_315_758_080,
    "opt-2.7b": 2_651_596_800,
    "opt-6.7b": 6_658_473_984,
    "opt-13b": 12_853_473_280,
    "opt-30b": 29_974_540_288,
    "yi-34b": 34_388_917_248,
    "qwen2-7b": 7_615_616_512,
    "phi-3-mini-4k": 3_821_079_552,
    "phi-4": 14_659_507_200,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952,
    "gemma-3-27b": 27_009_346_304,
    "mixtral-8x7b": 46_702_792_704,
    "mixtral-8x22b": 140_620_634_112,
    "qwen1.5-moe-a2.7b": 14_315_784_192,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-coder-480b-a35b": 480_154_875_392,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v2": 235_741_434_880,
    "deepseek-v3": 671_026_419_200,
    "kimi-k2": 1_026_408_232_448,
    "phi-3.5-moe": 41_873_153_344,
    "olmoe-1b-7b": 6_919_161_856,
}

# The same weights as another model, or another way to store them.
SAME = {
    "qwen3-30b-a3b-instruct-2507": "qwen3-30b-a3b",
    "deepseek-r1": "deepseek-v3",
    "llama-3.1-8b-fp8": "llama-3.1-8b",
    "llama-3.1-8b-w8a8": "llama-3.1-8b",
    "llama-3.1-70b-fp8": "llama-3.1-70b",
    "llama-3.1-70b-w4a16": "llama-3.1-70b",
    "qwen2.5-7b-awq": "qwen2.5-7b",
    "qwen2.5-72b-gptq-int4": "qwen2.5-72b",
    "qwen3-8b-fp8": "qwen3-8b",
    "qwen3-32b-fp8": "qwen3-32b",
    "qwen3-32b-awq": "qwen3-32b",
    "qwen3-30b-a3b-fp8": "qwen3-30b-a3b",
    "qwen3-235b-a22b-fp8": "qwen3-235b-a22b",
}
PARAMETERS |= {name: PARAMETERS[other] for name, other in SAME.items()}

# The families' names and papers round theirs; of multimodal models, without the encoder.
ROUNDED = {
    "opt-66b": 66e9,
    "gpt3-6.7b": 6.7e9,
    "gpt3-13b": 13e9,
    "gpt3-30b": 30e9,
    "gpt3-175b": 175e9,
    "qwen2-57b-a14b": 57.41e9,
    "phi-mini-moe": 7.6e9,
    "llama-4-scout-17b-16e": 108e9,
    "llama-4-maverick-17b-128e": 400e9,
    "glm-4.5-air": 106e9,
}

# Parameters that one token meets, as published (each counts embeddings in its own way).
ACTIVE = {
    "mixtral-8x7b": 12.9e9,
    "mixtral-8x22b": 39e9,
    "qwen3-30b-a3b": 3.3e9,
    "qwen3-235b-a22b": 22e9,
    "qwen1.5-moe-a2.7b": 2.7e9,
    "deepseek-v2": 21e9,
    "deepseek-v3": 37e9,
    "kimi-k2": 32e9,
    "phi-3.5-moe": 6.6e9,
    "olmoe-1b-7b": 1.3e9,
    "llama-4-scout-17b-16e": 17e9,
}

# Published sizes of checkpoints, GB, and what their files hold besides (embeddings and heads are not quantised).
WEIGHT_GB = {
    "gpt-oss-20b": 13.8,
    "gpt-oss-120b": 65.2,
    "llama-3.1-8b-fp8": 9.1,
    "llama-3.1-70b-fp8": 72.7,
    "qwen2.5-7b-awq": 5.6,
    "qwen3-32b-awq": 19.3,
    "qwen2.5-72b-gptq-int4": 41.6,
}

KV_BYTES = {
    "llama-2-7b": 524_288,
    "llama-3.1-8b": 131_072,
    "llama-2-70b": 327_680,
    "llama-3-70b": 327_680,
    "qwen3-32b": 262_144,
    "opt-13b": 819_200,
    "gpt3-175b": 4_718_592,
    "mixtral-8x7b": 131_072,
    "qwen3-30b-a3b": 98_304,
    "deepseek-v3": 70_272,
}


def test_every_bundled_model_is_checked() -> None:
    assert set(model_names()) == {*PARAMETERS, *ROUNDED}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_equal_the_published_count(name: str) -> None:
    assert load_model(name).num_parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_parameters_round_to_the_published_size(name: str) -> None:
    assert load_model(name).num_parameters == pytest.approx(ROUNDED[name], rel=0.015)


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_are_near_the_published_ones(name: str) -> None:
    assert load_model(name).num_active_parameters == pytest.approx(ACTIVE[name], rel=0.035)


@pytest.mark.parametrize("name", WEIGHT_GB)
def test_quantised_weights_are_as_large_as_their_files(name: str) -> None:
    assert load_model(name).weight_bytes / 1e9 == pytest.approx(WEIGHT_GB[name], rel=0.01)


@pytest.mark.parametrize("name", KV_BYTES)
def test_kv_bytes_per_token(name: str) -> None:
    assert load_model(name).kv_bytes_per_token == KV_BYTES[name]


@pytest.mark.parametrize("name", model_names())
def test_every_model_states_its_source(name: str) -> None:
    model = load_model(name)
    assert model.name == name
    assert "huggingface.co" in model.source or "arXiv" in model.source


def test_precision_changes_weights_and_cache() -> None:
    model = load_model("llama-3.1-8b")
    wide = model.with_dtype("float32")
    assert wide.weight_bytes == 2 * model.weight_bytes == 4 * model.num_parameters
    assert wide.kv_bytes_per_token == 2 * model.kv_bytes_per_token
    assert model.with_dtype("auto") is model
    assert model.with_dtype("half").dtype == "float16"
    with pytest.raises(InputError, match=r"unknown dtype 'bfloat61'; did you mean 'bfloat16'"):
        model.with_dtype("bfloat61")


def test_a_model_by_path_is_the_bundled_one(tmp_path: Path) -> None:
    bundled = json.loads(_bundled_file("qwen3-8b").read_text())
    folder = tmp_path / "my-qwen"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(bundled))
    by_folder, by_file = load_model(str(folder)), load_model(str(folder / "config.json"))
    assert by_folder == by_file
    assert by_folder.name == "my-qwen"
    assert by_folder.block == load_model("qwen3-8b").block


def test_sliding_window_is_read_only_where_it_is_on() -> None:
    assert load_model("mistral-7b-v0.1").attention.window == 4096
    assert load_model("mistral-7b-v0.3").attention.window is None
    assert load_model("qwen2.5-7b").attention.window is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("llama-3.1-8", r"no bundled model is called 'llama-3.1-8'; did you mean 'llama-3.1-8b'\?"),
        ("meta-llama/Llama-2-7B-hf", "did you mean 'llama-2-7b'"),
        ("nowhere/config.json", "nowhere/config.json: cannot be read: No such file"),
    ],
)
def test_unknown_models(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(name)
    assert "\n" not in str(caught.value)


BAD = [
    ({"model_type": "qwen3_next"}, "qwen3_next: linear attention is not supported yet"),
    ({"model_type": "qwen3_moe"}, "moe_intermediate_size is missing; did you mean 'intermediate_size'"),
    ({"model_type": "mixtral"}, "num_local_experts is missing"),
    ({"model_type": "mixtral", "num_local_experts": 8}, "num_experts_per_tok is missing"),
    (
        {"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 9},
        "num_experts_per_tok: 9 experts a token, of 8",
    ),
    ({"kv_lora_rank": 512}, "qk_rope_head_dim is missing"),
    ({"layer_types": ["full_attention"]}, "layer_types: 1 kinds for 32 layers"),
    ({"layer_types": "full"}, "layer_types: expected a list of strings, found 'full'"),
    (
        {"layer_types": ["linear_attention"] * 32},
        r"layer_types: 'linear_attention' is not supported \(there are: full_a",
    ),
    ({"layer_types": ["sliding_attention"] * 32}, "sliding_window is missing"),
    ({"model_type": "lama"}, r"unknown architecture 'lama'; did you mean 'llama'\?"),
    ({"model_type": None}, "model_type is missing"),
    ({"hidden_size": None}, "hidden_size is missing"),
    ({"hidden_size": "4096"}, "hidden_size: expected a whole number above 0, found '4096'"),
    ({"num_hidden_layers": 0}, "num_hidden_layers: expected a whole number above 0, found 0"),
    ({"num_attention_heads": True}, "num_attention_heads: expected a whole number above 0, found True"),
    ({"num_attention_heads": 30}, "30 attention heads do not divide a width of 4096"),
    ({"num_key_value_heads": 5}, "num_key_value_heads: 32 attention heads cannot share 5"),
    ({"tie_word_embeddings": "no"}, "tie_word_embeddings: expected true or false, found 'no'"),
    ({"torch_dtype": "int4"}, "torch_dtype: unknown dtype 'int4'"),
    ({"quantization_config": 4}, "quantization_config: expected an object, found 4"),
    ({"quantization_config": {"bits": 4}}, "quantization_config.quant_method|quant_method is missing"),
    (
        {"quantization_config": {"quant_method": "awk"}},
        r"quantization_config.quant_method: unknown method 'awk'; did you mean 'awq'\?",
    ),
    ({"quantization_config": {"quant_method": "awq", "bits": 3}}, "quantization_config.bits: expected 4 or 8, found 3"),
    (
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": 128}},
        "quantization_config.weight_block_size: expected two whole numbers, found 128",
    ),
    ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "X"}}, "quant_algo: expected FP8 or NVFP4"),
    (
        {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {}}},
        "quantization_config.config_groups: expected one group",
    ),
    ({"rope_scaling": "yarn"}, "rope_scaling: expected an object, found 'yarn'"),
    ({"rope_scaling": {"rope_type": "yarn"}}, "rope_scaling.factor: expected a number above 0, found None"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_configurations_are_one_line_that_names_the_key(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    values = json.loads(_bundled_file("llama-3.1-8b").read_text()) | changes
    file = tmp_path / "config.json"
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    with pytest.raises(InputError, match=message) as caught:
        load_model(str(file))
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "expected a JSON object")])
def test_files_that_are_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "model.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        load_model(str(file))


def test_yarn_stretches_the_context(tmp_path: Path) -> None:
    values = json.loads(_bundled_file("qwen2.5-7b").read_text())
    values["rope_scaling"] = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    file = tmp_path / "long.json"
    file.write_text(json.dumps(values))
    assert load_model(str(file)).max_model_len == 131_072


def test_opt_with_a_narrow_embedding_is_refused(tmp_path: Path) -> None:
    values = json.loads(_bundled_file("opt-125m").read_text()) | {"word_embed_proj_dim": 512}
    file = tmp_path / "opt-350m.json"
    file.write_text(json.dumps(values))
    with pytest.raises(InputError, match="opt: an embedding narrower than the model"):
        load_model(str(file))


def _bundled_file(name: str) -> Path:
    import simloop.model

    return Path(simloop.model.__path__[0]) / "catalog" / f"{name}.json"
