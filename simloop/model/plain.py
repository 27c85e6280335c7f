"""OPT, GPT-2 and GPT-3: the classic block, read from a configuration."""

from __future__ import annotations

from simloop.model.architecture import Block, Model
from simloop.model.attention import Attention
from simloop.model.config import Config
from simloop.model.operators import Elementwise, Gemm

__all__ = ["epilogue", "read_gpt2", "read_opt"]

_SAMPLER_PASSES = 5
"""Elements moved for each logit to sample a token: it is widened to float32 (read 1, write 2) and reduced (read 2)."""


def read_opt(name: str, config: Config) -> Model:
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


def read_gpt2(name: str, config: Config) -> Model:
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
    block: Block = (
        Elementwise("input_layernorm", 4 * hidden, 2 * hidden),
        Gemm("qkv_proj", hidden, 3 * hidden, bias=True, split="qkv"),
        Attention("attention", heads, heads, head_dim),
        Gemm("o_proj", hidden, hidden, bias=True, split="row"),
        Elementwise("post_attention_layernorm", 4 * hidden, 2 * hidden),
        Gemm("up_proj", hidden, width, bias=True, split="column"),
        Elementwise("act_fn", 2 * width, split="column"),
        Gemm("down_proj", width, hidden, bias=True, split="row"),
    )
    return Model(
        name=name,
        family=config.text("model_type"),
        hidden_size=hidden,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=head_dim,
        intermediate_size=width,
        vocab_size=vocab,
        max_model_len=context,
        tie_word_embeddings=tied,
        dtype=config.dtype(),
        prologue=(Elementwise("embedding", 3 * hidden, (vocab + positions) * hidden, split="vocab"),),
        blocks=(block,),
        layers=(0,) * layers,
        epilogue=epilogue(hidden, vocab, tied=tied, norm_parameters=2 * hidden),
        source=config.text("_source", "no source given"),
    )


def epilogue(hidden: int, vocab: int, *, tied: bool, norm_parameters: int, bias: bool = False) -> Block:
    """Return what follows the last block; logits are computed only for the tokens that are sampled."""
    return (
        Elementwise("final_layernorm", 4 * hidden, norm_parameters),
        Gemm("lm_head", hidden, vocab, per="sequence", tied=tied, bias=bias, split="vocab"),
        Elementwise("sampler", _SAMPLER_PASSES * vocab, per="sequence"),
    )
