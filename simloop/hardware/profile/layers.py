"""Older formats of measured layers: one time for each operator of a model by its tokens.

LLMServingSim's first profiler (``layers`` and ``attention``) and Vidur's ``mlp`` name the operators of one model, at
every number of tokens; attention comes as chunks of prompts, and as batches of decodes of one context.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from simloop.errors import InputError
from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.kernels import AttentionTable, Heads, KernelTables
from simloop.hardware.profile.reading import Columns, find_table, has_table, header_of, read_table, time_number, whole

__all__ = ["load_layers", "load_tables", "read_mlp"]

_NAMES = {
    "q_proj": "qkv_proj",
    "k_proj": "qkv_proj",
    "v_proj": "qkv_proj",
    "rope": "rotary_emb",
    "post_layernorm": "post_attention_layernorm",
    "gate_proj": "gate_up_proj",
    "up_proj": "gate_up_proj",
    "gate": "router",
    "emb": "embedding",
    "attn_pre_proj": "qkv_proj",
    "attn_rope": "rotary_emb",
    "attn_post_proj": "o_proj",
    "mlp_up_proj": "gate_up_proj",
    "mlp_act": "act_fn",
    "mlp_down_proj": "down_proj",
}
"""Our names of operators; several of theirs may be parts of one of ours."""


_PRODUCTS = {"qkv_proj", "o_proj", "gate_up_proj", "down_proj", "router", "lm_head"}
"""What counts of the first profiler's layers: it ran eager PyTorch, where a norm is half a dozen kernels."""

_EXPERT = ("expert.w1", "expert.w3", "act_fn", "expert.w2")


def load_tables(folder: str | Path, *, tp: int = 1) -> KernelTables:
    """Read a folder of kernel tables, or of LLMServingSim's first profiler where it has a table ``layers``.

    Args:
        folder: As for :meth:`KernelTables.load` or :func:`load_layers`.
        tp: Degree of tensor parallelism, for ``layers``.

    Raises:
        InputError: The folder or a table is missing or not right.
    """
    root = Path(folder)
    return load_layers(root, tp=tp) if has_table(root, "layers") is not None else KernelTables.load(root)


def load_layers(folder: str | Path, *, tp: int = 1) -> KernelTables:
    """Read a folder of LLMServingSim's first profiler.

    Matrix products are taken, and of a mixture one expert by its tokens, on one device only: the tables of several
    have whole experts, not slices. Norms and the like were measured in eager PyTorch, several kernels each, where
    engines have one: they are left to the roofline of the card.

    Args:
        folder: With ``layers`` (``layer_name, input, tp_size, latency(ns)``) and perhaps ``attention`` (in Vidur's
            columns, milliseconds; others are not read), ``.csv`` or ``.csv.gz``.
        tp: Degree of tensor parallelism.

    Raises:
        InputError: The folder or a table is missing or not right.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError("no such folder of measured layers", file=root)
    file = find_table(root, "layers")
    columns: Columns = {"layer_name": str, "input": whole, "tp_size": whole, "latency(ns)": time_number}
    rows = [(name, tokens, ns) for name, tokens, found, ns in read_table(file, columns) if found == tp]
    if not rows:
        raise InputError(f"has no rows of tp {tp}", file=file)
    attention = has_table(root, "attention")
    known = attention is not None and "n_q_head" in header_of(attention)
    chunks, generation = _attention(attention, tp) if attention is not None and known else ({}, {})
    curves = _curves(rows)
    expert = [curves[name] for name in _EXPERT if name in curves]
    return KernelTables(
        root,
        f"layers of {root}",
        generation=generation,
        chunks=chunks,
        layers={name: curve for name, curve in curves.items() if name in _PRODUCTS},
        expert=_added(expert) if tp == 1 and len(expert) == len(_EXPERT) else None,
    )


def read_mlp(file: str | Path, *, tp: int = 1) -> dict[str, Curve]:
    """Read Vidur's ``mlp.csv``: medians in milliseconds, by our names of operators, in nanoseconds.

    Args:
        file: The table.
        tp: Degree of tensor parallelism.

    Raises:
        InputError: The table is not right, or has none of that degree.
    """
    path = Path(file)
    found = [name.split(".")[1] for name in header_of(path) if name.endswith(".median")]
    known = [name for name in found if name in {*_NAMES, "input_layernorm", "post_attention_layernorm"}]
    columns: Columns = {"num_tokens": whole, "num_tensor_parallel_workers": whole}
    times: Columns = {f"time_stats.{name}.median": time_number for name in known}
    rows = [
        (name, tokens, 1e6 * time)
        for tokens, ranks, *row in read_table(path, {**columns, **times})
        if ranks == tp
        for name, time in zip(known, row, strict=True)
    ]
    if not rows:
        raise InputError(f"has no rows of {tp} tensor-parallel workers", file=path)
    return _curves(rows)


def _curves(rows: Iterable[tuple[str, int, float]]) -> dict[str, Curve]:
    """Return one curve for each operator of ours; parts are added, repeated measurements averaged."""
    parts: defaultdict[str, defaultdict[str, defaultdict[int, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for name, tokens, ns in rows:
        parts[_NAMES.get(name, name)][name][tokens].append(ns)
    return {
        operator: _added([Curve.of((at, sum(ns) / len(ns)) for at, ns in part.items()) for part in named.values()])
        for operator, named in parts.items()
    }


def _added(curves: list[Curve]) -> Curve:
    points = sorted({point for curve in curves for point in curve.points})
    return Curve(points, [sum(curve.at(point) for curve in curves) for point in points])


def _attention(file: Path, tp: int) -> tuple[dict[Heads, AttentionTable], dict[Heads, AttentionTable]]:
    """Return chunks by total context (chunk included), and decodes by context, for the heads of one rank."""
    names = ("n_embd", "n_q_head", "n_kv_head", "num_tensor_parallel_workers")
    sizes = ("batch_size", "prefill_chunk_size", "kv_cache_size")
    columns: Columns = {**dict.fromkeys((*names, *sizes), whole), "is_prefill": str}
    times: Columns = {f"time_stats.attn_{kind}.median": str for kind in ("prefill", "decode")}
    chunks: defaultdict[Heads, list[tuple[int, int, float]]] = defaultdict(list)
    decodes: defaultdict[Heads, list[tuple[int, int, float]]] = defaultdict(list)
    for width, heads, kv_heads, ranks, batch, chunk, context, prefill, t_prefill, t_decode in read_table(
        file, {**columns, **times}
    ):
        if ranks != tp:
            continue
        key = (heads // tp, max(1, kv_heads // tp), width // heads, 0)
        if prefill == "True":
            chunks[key].append((chunk, context, 1e6 * time_number(t_prefill)))
        else:
            decodes[key].append((batch, context, 1e6 * time_number(t_decode)))
    prompts, others = ({key: AttentionTable.of(found[key]) for key in found} for found in (chunks, decodes))
    return prompts, others
