"""From a Hugging Face ``config.json`` to a :class:`~simloop.model.Model`, one small reader for each kind of block."""

from __future__ import annotations

from collections.abc import Callable

from simloop.errors import did_you_mean
from simloop.model.architecture import Model
from simloop.model.config import Config
from simloop.model.operators import Attention, Elementwise, Gemm, Operator

__all__ = ["FAMILIES", "read_model"]

_SAMPLER_PASSES = 5
"""Elements moved for each logit to sample a token: it is widened to float32 (read 1, write 2) and reduced (read 2)."""

_NOT_YET = {
    "mixtral": "mixture of experts",
    "qwen2_moe": "mixture of experts",
    "qwen3_moe": "mixture of experts",
    "phimoe": "mixture of experts",
    "gpt_oss": "mixture of experts",
    "glm4_moe": "mixture of experts",
    "llama4": "mixture of experts",
    "llama4_text": "mixture of experts",
    "deepseek_v2": "multi-head latent attention",
    "deepseek_v3": "multi-head latent attention",
    "kimi_k2": "multi-head latent attention",
    "qwen3_next": "linear attention",
    "mamba": "a state-space model",
}


def read_model(name: str, config: Config) -> Model:
    """Build a model from its configuration.

    Args:
        name: What the model is to be called.
        config: The configuration, with the file it came from.

    Raises:
        InputError: The architecture is not supported, or a key is missing, of the wrong type, or contradicts another.
    """
    family = config.text("model_type")
    if family in _NOT_YET:
        raise config.error(f"{family}: {_NOT_YET[family]} is not supported yet")
    if family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise config.error(f"unknown architecture {family!r}{did_you_mean(family, FAMILIES)} (there are: {known})")
    if config.get("quantization_config") is not None:
        raise config.error(f"{family}: quantised weights are not supported yet", path="quantization_config")
    return FAMILIES[family](name, config)


def _gated(name: str, config: Config) -> Model:
    """Read the Llama kind: RMS norm, rotary positions, gated feed-forward, grouped queries."""
    family = config.text("model_type")
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    kv_heads, width = config.positive("num_key_value_heads", heads), config.positive("intermediate_size")
    head_dim = config.positive("head_dim", 0) or config.quotient(hidden, heads)
    if heads % kv_heads:
        raise config.error(f"{heads} attention heads cannot share {kv_heads}", path="num_key_value_heads")
    layers, vocab = config.positive("num_hidden_layers"), config.positive("vocab_size")
    tied = config.flag("tie_word_embeddings", False)
    bias = config.flag("attention_bias", False)
    queries, pairs = heads * head_dim, 2 * kv_heads * head_dim
    norm = Elementwise("input_layernorm", 4 * hidden, hidden)
    mlp_bias = config.flag("mlp_bias", False)
    block: list[Operator] = [
        norm,
        Gemm("qkv_proj", hidden, queries + pairs, bias=bias or family == "qwen2"),
        *([Elementwise("qk_norm", 2 * (queries + pairs // 2), 2 * head_dim)] if family == "qwen3" else []),
        Elementwise("rotary_emb", 2 * (queries + pairs // 2)),
        Attention("attention", heads, kv_heads, head_dim, _window(config)),
        Gemm("o_proj", queries, hidden, bias=bias),
        Elementwise("post_attention_layernorm", 4 * hidden, hidden),
        Gemm("gate_up_proj", hidden, 2 * width, bias=mlp_bias),
        Elementwise("act_fn", 3 * width),
        Gemm("down_proj", width, hidden, bias=mlp_bias),
    ]
    return Model(
        name=name,
        family=family,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=width,
        vocab_size=vocab,
        max_model_len=config.context_length("max_position_embeddings"),
        tie_word_embeddings=tied,
        dtype=config.dtype(),
        prologue=(Elementwise("embedding", 2 * hidden, vocab * hidden),),
        block=tuple(block),
        epilogue=_epilogue(hidden, vocab, tied=tied, norm_parameters=hidden),
        source=config.text("_source", "no source given"),
    )


def _window(config: Config) -> int | None:
    """Return the sliding window, or ``None`` where there is none or it is switched off."""
    if config.get("sliding_window") is None or not config.flag("use_sliding_window", True):
        return None
    return config.positive("sliding_window")


def _opt(name: str, config: Config) -> Model:
    """Read OPT: layer norm before each half, learned positions (two more than the context), ReLU, biases everywhere."""
    hidden = config.positive("hidden_size")
    if config.positive("word_embed_proj_dim", hidden) != hidden or not config.flag("do_layer_norm_before", True):
        raise config.error("opt: an embedding narrower than the model and norms after the block are not supported")
    positions = config.positive("max_position_embeddings")
    return _plain(
        name,
        config,
        hidden=hidden,
        heads=config.positive("num_attention_heads"),
        layers=config.positive("num_hidden_layers"),
        width=config.positive("ffn_dim"),
        context=positions,
        positions=positions + 2,
    )


def _gpt2(name: str, config: Config) -> Model:
    """Read GPT-2 and GPT-3: layer norm before each half, learned positions, GELU, biases everywhere."""
    hidden, positions = config.positive("n_embd"), config.positive("n_positions")
    return _plain(
        name,
        config,
        hidden=hidden,
        heads=config.positive("n_head"),
        layers=config.positive("n_layer"),
        width=config.positive("n_inner", 4 * hidden),
        context=positions,
        positions=positions,
    )


def _plain(
    name: str, config: Config, *, hidden: int, heads: int, layers: int, width: int, context: int, positions: int
) -> Model:
    """Build the classic block: one key and value head for each query head, and an ungated feed-forward layer."""
    head_dim, vocab = config.quotient(hidden, heads), config.positive("vocab_size")
    tied = config.flag("tie_word_embeddings", True)
    block: tuple[Operator, ...] = (
        Elementwise("input_layernorm", 4 * hidden, 2 * hidden),
        Gemm("qkv_proj", hidden, 3 * hidden, bias=True),
        Attention("attention", heads, heads, head_dim),
        Gemm("o_proj", hidden, hidden, bias=True),
        Elementwise("post_attention_layernorm", 4 * hidden, 2 * hidden),
        Gemm("up_proj", hidden, width, bias=True),
        Elementwise("act_fn", 2 * width),
        Gemm("down_proj", width, hidden, bias=True),
    )
    return Model(
        name=name,
        family=config.text("model_type"),
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=head_dim,
        intermediate_size=width,
        vocab_size=vocab,
        max_model_len=context,
        tie_word_embeddings=tied,
        dtype=config.dtype(),
        prologue=(Elementwise("embedding", 3 * hidden, (vocab + positions) * hidden),),
        block=block,
        epilogue=_epilogue(hidden, vocab, tied=tied, norm_parameters=2 * hidden),
        source=config.text("_source", "no source given"),
    )


def _epilogue(hidden: int, vocab: int, *, tied: bool, norm_parameters: int) -> tuple[Operator, ...]:
    """Return what follows the last block; logits are computed only for the tokens that are sampled."""
    return (
        Elementwise("final_layernorm", 4 * hidden, norm_parameters),
        Gemm("lm_head", hidden, vocab, per="sequence", tied=tied),
        Elementwise("sampler", _SAMPLER_PASSES * vocab, per="sequence"),
    )


FAMILIES: dict[str, Callable[[str, Config], Model]] = {
    "llama": _gated,
    "mistral": _gated,
    "qwen2": _gated,
    "qwen3": _gated,
    "opt": _opt,
    "gpt2": _gpt2,
}
"""Readers by ``model_type``."""
