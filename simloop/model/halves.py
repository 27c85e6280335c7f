"""The two halves of a decoder block, attention and feed-forward, read from a configuration."""

from __future__ import annotations

import attrs

from simloop.model.attention import Attention, LatentAttention
from simloop.model.config import Config
from simloop.model.experts import Experts
from simloop.model.operators import Elementwise, Gemm, Operator

__all__ = ["Traits", "dense_half", "grouped_half", "latent_half", "sparse_half"]


@attrs.frozen
class Traits:
    """What sets a family's block apart from Llama's and its configuration does not say.

    Attributes:
        qkv_bias: The query, key and value projections have biases even where ``attention_bias`` is not set.
        output_bias: ``attention_bias`` holds for the output projection, too.
        qk_norm: Queries and keys are normalised: ``head`` with a weight for each element of a head, ``all`` for each
            element of all heads.
        sinks: Attention has a learned sink for each head.
        norm_weights: Weights of a norm for each element: 2 for a layer norm with a bias.
        post_norms: Both halves end with another norm.
        router_bias: The router has a bias, or a correction for each expert.
        expert_bias: The experts' products have biases.
        shared_gate: The shared expert's output is scaled by a gate.
        sparse_width: Key of the inner width of an expert.
        dense_width: Key of the inner width of a dense layer.
        tied: Whether embeddings are tied where the configuration does not say.
    """

    qkv_bias: bool = False
    output_bias: bool = True
    qk_norm: str | None = None
    sinks: bool = False
    norm_weights: int = 1
    post_norms: bool = False
    router_bias: bool = False
    expert_bias: bool = False
    shared_gate: bool = False
    sparse_width: str = "moe_intermediate_size"
    dense_width: str = "intermediate_size"
    tied: bool = False


def grouped_half(config: Config, traits: Traits, window: int | None) -> list[Operator]:
    """Return attention with grouped queries: norm, projections, rotary positions, attention, output projection."""
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    kv_heads = config.positive("num_key_value_heads", heads)
    head_dim = config.positive("head_dim", 0) or config.quotient(hidden, heads)
    if heads % kv_heads:
        raise config.error(f"{heads} attention heads cannot share {kv_heads}", path="num_key_value_heads")
    bias = config.flag("attention_bias", False)
    queries, keys = heads * head_dim, kv_heads * head_dim
    normed = {"head": 2 * head_dim, "all": queries + keys}.get(traits.qk_norm or "", 0)
    return [
        _norm("input_layernorm", hidden, traits),
        Gemm("qkv_proj", hidden, queries + 2 * keys, bias=bias or traits.qkv_bias, split="qkv"),
        *([Elementwise("qk_norm", 2 * (queries + keys), normed, split="qk")] if normed else []),
        Elementwise("rotary_emb", 2 * (queries + keys), split="qk"),
        Attention("attention", heads, kv_heads, head_dim, window, parameters=heads * traits.sinks),
        Gemm("o_proj", queries, hidden, bias=bias and traits.output_bias, split="row"),
        *([_norm("attention_output_layernorm", hidden, traits)] if traits.post_norms else []),
    ]


def latent_half(config: Config, traits: Traits) -> list[Operator]:
    """Return DeepSeek's latent attention; ranks share the heads, and each computes the compressed vectors itself."""
    hidden, heads = config.positive("hidden_size"), config.positive("num_attention_heads")
    latent, rope = config.positive("kv_lora_rank"), config.positive("qk_rope_head_dim")
    nope, value = config.positive("qk_nope_head_dim"), config.positive("v_head_dim")
    rank, queries = config.get("q_lora_rank"), heads * (nope + rope)
    if rank is None:
        query: list[Operator] = [
            Gemm("q_proj", hidden, queries, split="column"),
            Gemm("fused_qkv_a_proj", hidden, latent + rope),
        ]
    else:
        rank = config.positive("q_lora_rank")
        query = [
            Gemm("fused_qkv_a_proj", hidden, rank + latent + rope),
            Elementwise("q_a_layernorm", 2 * rank, rank),
            Gemm("q_b_proj", rank, queries, split="column"),
        ]
    return [
        _norm("input_layernorm", hidden, traits),
        *query,
        Elementwise("kv_a_layernorm", 2 * latent, latent),
        Gemm("kv_b_proj", latent, heads * (nope + value), split="column"),
        Elementwise("rotary_emb", 2 * (heads + 1) * rope, split="column"),
        LatentAttention("attention", heads, latent, nope, rope, value),
        Gemm("o_proj", heads * value, hidden, split="row"),
    ]


def dense_half(config: Config, traits: Traits) -> list[Operator]:
    """Return a gated feed-forward layer behind a norm."""
    hidden, width = config.positive("hidden_size"), config.positive(traits.dense_width)
    bias = config.flag("mlp_bias", False)
    return [
        _norm("post_attention_layernorm", hidden, traits),
        Gemm("gate_up_proj", hidden, 2 * width, bias=bias, split="column"),
        Elementwise("act_fn", 3 * width, split="column"),
        Gemm("down_proj", width, hidden, bias=bias, split="row"),
        *([_norm("feedforward_output_layernorm", hidden, traits)] if traits.post_norms else []),
    ]


def sparse_half(config: Config, traits: Traits) -> list[Operator]:
    """Return a mixture of experts behind a norm: router, shared experts where there are some, routed experts."""
    hidden, width = config.positive("hidden_size"), config.positive(traits.sparse_width)
    experts, top_k = num_experts(config), config.positive("num_experts_per_tok")
    if top_k > experts:
        raise config.error(f"{top_k} experts a token, of {experts}", path="num_experts_per_tok")
    shared = _shared_width(config, width)
    return [
        _norm("post_attention_layernorm", hidden, traits),
        Gemm("router", hidden, experts, bias=traits.router_bias),
        Elementwise("topk", 3 * experts),
        *_shared(hidden, shared, traits),
        Experts("experts", hidden, width, experts, top_k, bias=traits.expert_bias),
    ]


def num_experts(config: Config) -> int:
    """Return the number of routed experts, under whatever key.

    Raises:
        InputError: No key says it.
    """
    keys = ("num_local_experts", "n_routed_experts", "num_experts")
    return config.positive(next((key for key in keys if config.get(key) is not None), keys[0]))


def _shared_width(config: Config, width: int) -> int:
    """Return the inner width of all shared experts together; 0 is none. Llama 4 always has one."""
    if config.get("shared_expert_intermediate_size"):
        return config.positive("shared_expert_intermediate_size")
    if config.get("n_shared_experts"):
        return config.positive("n_shared_experts") * width
    return width if config.get("model_type") in ("llama4", "llama4_text") else 0


def _shared(hidden: int, width: int, traits: Traits) -> list[Operator]:
    if not width:
        return []
    gate: list[Operator] = [Gemm("shared_gate", hidden, 1)] if traits.shared_gate else []
    return [
        *gate,
        Gemm("shared_gate_up_proj", hidden, 2 * width, split="column"),
        Elementwise("shared_act_fn", 3 * width, split="column"),
        Gemm("shared_down_proj", width, hidden, split="partial"),
    ]


def _norm(name: str, hidden: int, traits: Traits) -> Elementwise:
    return Elementwise(name, 4 * hidden, traits.norm_weights * hidden)
