"""From a Hugging Face ``config.json`` to a :class:`~simloop.model.Model`."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from simloop.errors import did_you_mean
from simloop.model.architecture import Block, Model
from simloop.model.attention import LatentAttention
from simloop.model.config import Config
from simloop.model.halves import Traits, dense_half, grouped_half, latent_half, sparse_half
from simloop.model.operators import Elementwise, Operator
from simloop.model.plain import epilogue, read_gpt2, read_opt
from simloop.model.schemes import read_scheme
from simloop.model.windows import layer_windows

__all__ = ["FAMILIES", "read_model"]

_NOT_YET = {
    "qwen3_next": "linear attention",
    "deepseek_v32": "sparse attention",
    "mamba": "a state-space model",
    "jamba": "a state-space model",
}

_NO_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "gpt_oss")
"""Families whose float32 or unnamed precision vLLM replaces by bfloat16, not float16."""

_LLAMA = Traits()
_DEEPSEEK = Traits(router_bias=True)
_GEMMA = Traits(post_norms=True, tied=True)
_OWN_WIDTH = "intermediate_size"
_LLAMA4 = Traits(sparse_width=_OWN_WIDTH, dense_width="intermediate_size_mlp")
_GPT_OSS = Traits(sinks=True, router_bias=True, expert_bias=True, sparse_width=_OWN_WIDTH)

_TRAITS = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "phi3": _LLAMA,
    "qwen2": Traits(qkv_bias=True),
    "qwen3": Traits(qk_norm="head"),
    "gemma2": _GEMMA,
    "gemma3_text": attrs.evolve(_GEMMA, qk_norm="head"),
    "gemma3": attrs.evolve(_GEMMA, qk_norm="head"),
    "mixtral": Traits(sparse_width=_OWN_WIDTH),
    "phimoe": Traits(sparse_width=_OWN_WIDTH, norm_weights=2),
    "olmoe": Traits(sparse_width=_OWN_WIDTH, qk_norm="all"),
    "qwen2_moe": Traits(qkv_bias=True, shared_gate=True),
    "qwen3_moe": Traits(qk_norm="head"),
    "gpt_oss": _GPT_OSS,
    "glm4_moe": Traits(router_bias=True, output_bias=False),
    "llama4": _LLAMA4,
    "llama4_text": _LLAMA4,
    "deepseek_v2": _LLAMA,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
}
"""What sets each family apart, by ``model_type``."""


def read_model(name: str, config: Config) -> Model:
    """Build a model from its configuration; of a multimodal one, the language model.

    Args:
        name: What the model is to be called.
        config: The configuration, with the file it came from.

    Raises:
        InputError: The architecture is not supported, or a key is missing, of the wrong type, or contradicts another.
    """
    config = config.text_model()
    family = config.text("model_type")
    if family in _NOT_YET:
        raise config.error(f"{family}: {_NOT_YET[family]} is not supported yet")
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise config.error(f"unknown architecture {family!r}{did_you_mean(family, FAMILIES)} (there are: {known})")
    return _quantised(FAMILIES[family](name, config), config)


def _decoder(name: str, config: Config) -> Model:
    """Read the Llama kind and its descendants: RMS norm, rotary positions, gated feed-forward or experts."""
    family = config.text("model_type")
    traits = _TRAITS[family]
    windows = layer_windows(config, config.positive("num_hidden_layers"))
    sparse = [_is_sparse(config, layer) for layer in range(len(windows))]
    if family == "glm4_moe" and config.flag("use_qk_norm", False):
        traits = attrs.evolve(traits, qk_norm="head")
    made = {
        kind: (*_attention_half(config, traits, kind[0]), *(sparse_half if kind[1] else dense_half)(config, traits))
        for kind in dict.fromkeys(zip(windows, sparse, strict=True))
    }
    blocks, layers = _kinds([made[kind] for kind in zip(windows, sparse, strict=True)])
    hidden, vocab, heads = (config.positive(key) for key in ("hidden_size", "vocab_size", "num_attention_heads"))
    tied = config.flag("tie_word_embeddings", traits.tied)
    attention = next(operator for operator in blocks[0] if operator.name == "attention")
    latent = isinstance(attention, LatentAttention)
    bias = config.flag("lm_head_bias", False)
    return Model(
        name=name,
        family=family,
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=heads if latent else config.positive("num_key_value_heads", heads),
        head_dim=attention.nope + attention.rope if isinstance(attention, LatentAttention) else _head_dim(config),
        intermediate_size=config.positive(traits.dense_width),
        vocab_size=vocab,
        max_model_len=config.context_length("max_position_embeddings"),
        tie_word_embeddings=tied,
        dtype=config.dtype(instead="bfloat16" if family in _NO_FLOAT16 else "float16"),
        prologue=(Elementwise("embedding", 2 * hidden, vocab * hidden, split="vocab"),),
        blocks=blocks,
        layers=layers,
        epilogue=epilogue(hidden, vocab, tied=tied, norm_parameters=traits.norm_weights * hidden, bias=bias),
        source=config.text("_source", "no source given"),
    )


def _attention_half(config: Config, traits: Traits, window: int | None) -> list[Operator]:
    return latent_half(config, traits) if config.get("kv_lora_rank") else grouped_half(config, traits, window)


def _head_dim(config: Config) -> int:
    return config.positive("head_dim", 0) or config.quotient(
        config.positive("hidden_size"), config.positive("num_attention_heads")
    )


def _is_sparse(config: Config, layer: int) -> bool:
    """Return whether a layer is a mixture of experts."""
    family = config.text("model_type")
    if family in ("mixtral", "phimoe", "olmoe", "gpt_oss"):
        return True
    if family in ("qwen2_moe", "qwen3_moe"):
        dense = config.get("mlp_only_layers") or []
        return layer not in dense and (layer + 1) % config.positive("decoder_sparse_step", 1) == 0
    if family in ("llama4", "llama4_text"):
        return (layer + 1) % config.positive("interleave_moe_layer_step", 1) == 0
    if family in ("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe"):
        first = config.get("first_k_dense_replace") or 0
        return layer >= first and layer % config.positive("moe_layer_freq", 1) == 0
    return False


def _kinds(blocks: list[Block]) -> tuple[tuple[Block, ...], tuple[int, ...]]:
    """Return the different blocks, and which of them each layer is."""
    kinds = list(dict.fromkeys(blocks))
    numbers = {kind: number for number, kind in enumerate(kinds)}
    return tuple(kinds), tuple(numbers[block] for block in blocks)


def _quantised(model: Model, config: Config) -> Model:
    """Return the model with its weights as ``quantization_config`` says; layers that it treats differently part."""
    scheme = read_scheme(config)
    if scheme is None:
        return model
    blocks, layers = _kinds([scheme.apply(model.blocks[kind], layer) for layer, kind in enumerate(model.layers)])
    return attrs.evolve(
        model, blocks=blocks, layers=layers, quantization=scheme.method, kv_cache_dtype=scheme.kv_cache_dtype
    )


FAMILIES: dict[str, Callable[[str, Config], Model]] = {
    **dict.fromkeys(_TRAITS, _decoder),
    "opt": read_opt,
    "gpt2": read_gpt2,
}
"""Readers by ``model_type``."""
