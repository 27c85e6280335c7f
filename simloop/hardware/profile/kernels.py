"""Tables of kernels by shape, as NVIDIA's aiconfigurator collects them, and what lies between their points.

Times go in straight lines along rows, tokens, contexts and bytes: work that adds up. Between measured widths of a
matrix product they go as powers (straight lines of the logarithms): work that multiplies. Nothing has to rise.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import exp, log
from pathlib import Path
from typing import Any

import attrs

from simloop.errors import InputError
from simloop.hardware.profile.curve import Curve, blend, bracket
from simloop.hardware.profile.reading import Columns, find_table, has_table, header_of, read_table, time_number, whole

__all__ = ["AttentionTable", "GemmTable", "Heads", "KernelTables", "by_power"]

_ELEMENT_BYTES = {"int8": 1}
_HEADS: Columns = dict.fromkeys(("num_heads", "num_key_value_heads", "head_dim"), whole)


def by_power(points: list[int], values: list[float], x: float) -> float:
    """Return the value at ``x`` between points, straight in logarithms; in proportion to ``x`` beyond the last.

    Below the first point it keeps that point's value.
    """
    if x <= points[0]:
        return values[0]
    if x >= points[-1]:
        return values[-1] * x / points[-1]
    high = bisect_left(points, x)
    low = high - 1
    logs = blend(log(values[low]), log(values[high]), log(x), log(points[low]), log(points[high]))
    return exp(logs)


@attrs.frozen
class GemmTable:
    """Matrix products of one precision: time in nanoseconds by rows, for each inner and outer dimension.

    Attributes:
        curves: Time by rows, by outer dimension, by inner dimension.
    """

    curves: dict[int, dict[int, Curve]]

    def at(self, m: int, k: int, n: int) -> float:
        """Return the time of ``[m, k] x [k, n]``."""
        if k in self.curves:
            return self._at_inner(m, k, n)
        inner = sorted(self.curves)
        return by_power(inner, [self._at_inner(m, known, n) for known in inner], k)

    def _at_inner(self, m: int, k: int, n: int) -> float:
        curves = self.curves[k]
        if n in curves:
            return curves[n].at(m)
        outer = sorted(curves)
        return by_power(outer, [curves[n_].at(m) for n_ in outer], n)

    def last_rows(self, k: int, n: int) -> int:
        """Return the most rows that were measured near a shape."""
        inner = min(self.curves, key=lambda found: abs(log(found / k)))
        return self.curves[inner][min(self.curves[inner], key=lambda found: abs(log(found / n)))].last

    @property
    def last_width(self) -> int:
        """The largest measured outer dimension."""
        return max(max(curves) for curves in self.curves.values())


@attrs.frozen
class AttentionTable:
    """One kind of attention with so many heads: time by length (or context), by batch size; nanoseconds."""

    batches: list[int]
    curves: list[Curve]
    _between: dict[int, Curve] = attrs.field(factory=dict, init=False, eq=False, repr=False)

    @classmethod
    def of(cls, points: Iterable[tuple[int, int, float]]) -> AttentionTable:
        """Return the table of ``(batch, length, time)`` points."""
        by_batch: dict[int, list[tuple[int, float]]] = {}
        for batch, length, time in points:
            by_batch.setdefault(batch, []).append((length, time))
        return cls(sorted(by_batch), [Curve.of(by_batch[batch]) for batch in sorted(by_batch)])

    def batch_curve(self, batch: int) -> Curve:
        """Return the time by length for a batch size, measured or between two that are."""
        low, high = bracket(self.batches, batch)
        if self.batches[low] == batch:
            return self.curves[low]
        if self.batches[high] == batch or low == high:
            return self.curves[high]
        known = self._between.get(batch)
        if known is None:
            known = self._between[batch] = self._blended(batch, low, high)
        return known

    def _blended(self, batch: int, low: int, high: int) -> Curve:
        points = sorted({*self.curves[low].points, *self.curves[high].points})
        ends = self.batches[low], self.batches[high]
        values = [blend(self.curves[low].at(at), self.curves[high].at(at), batch, *ends) for at in points]
        return Curve(points, values)

    @property
    def last_length(self) -> int:
        """The largest measured length, of any batch size."""
        return max(curve.last for curve in self.curves)

    def never_faster(self, token_bytes: int, bytes_per_ns: float, least_bytes: float) -> bool:
        """Whether no point with more than ``least_bytes`` of keys and values read them faster than ``bytes_per_ns``."""
        return all(
            not least_bytes < batch * length * token_bytes > bytes_per_ns * ns
            for batch, curve in zip(self.batches, self.curves, strict=True)
            for length, ns in zip(curve.points, curve.values, strict=True)
        )


Heads = tuple[int, int, int, int]
"""Query heads, key-value heads, head dimension, window (0 for none)."""


@attrs.frozen
class KernelTables:
    """The tables of one device and engine. Times are nanoseconds.

    Attributes:
        folder: Where they were read.
        source: What was measured, in one line.
        gemm: Matrix products by precision.
        context: Attention of whole prompts by heads; lengths are prompt lengths.
        generation: Attention of decodes by heads; lengths are contexts, the new token included.
        chunks: Attention of prompt chunks by heads; the chunk stands for the batch size, lengths are whole contexts.
        layers: Operators of one model by name, by tokens (or sequences): they go before everything else.
        expert: One expert of one model by its tokens; a layer takes that for each expert that has some.
        experts: Fused experts by ``(precision, hidden, inner, top_k, experts, tp, ep)``, by tokens.
        collectives: By kind and ranks, by bytes.
    """

    folder: Path
    source: str
    gemm: dict[str, GemmTable] = attrs.field(factory=dict, kw_only=True)
    context: dict[Heads, AttentionTable] = attrs.field(factory=dict, kw_only=True)
    generation: dict[Heads, AttentionTable] = attrs.field(factory=dict, kw_only=True)
    chunks: dict[Heads, AttentionTable] = attrs.field(factory=dict, kw_only=True)
    experts: dict[tuple[str, int, int, int, int, int, int], Curve] = attrs.field(factory=dict, kw_only=True)
    collectives: dict[tuple[str, int], Curve] = attrs.field(factory=dict, kw_only=True)
    layers: dict[str, Curve] = attrs.field(factory=dict, kw_only=True)
    expert: Curve | None = attrs.field(default=None, kw_only=True)

    @classmethod
    def load(cls, folder: str | Path, *, dtype: str = "bfloat16", kv_dtype: str | None = None) -> KernelTables:
        """Read a folder of tables; latencies are in milliseconds.

        Args:
            folder: With ``gemm``, ``context_attention``, ``generation_attention`` and perhaps ``moe``,
                ``custom_allreduce`` and ``nccl``, each ``.csv`` or ``.csv.gz``.
            dtype: Precision of attention.
            kv_dtype: Precision of the KV cache; ``dtype`` if not given.

        Raises:
            InputError: The folder or a table is missing or not right.
        """
        root = Path(folder)
        if not root.is_dir():
            raise InputError("no such folder of kernel tables", file=root)
        stamps = tuple(sorted((file.name, file.stat().st_mtime_ns) for file in root.iterdir()))
        return _load(root, dtype, kv_dtype or dtype, stamps)

    def believed(self, bandwidth_gb_s: float, cache_bytes: float, kv_bytes: int) -> KernelTables:
        """Return the tables without attention of decodes that was measured on keys and values in a cache.

        A benchmark that reads the same few blocks again and again finds them there. What gives it away are points,
        of twice the cache and more, at which they came faster than the memory's nominal bandwidth.

        Args:
            bandwidth_gb_s: Of the memory.
            cache_bytes: The last-level cache.
            kv_bytes: Bytes of one element of the KV cache.
        """
        kept = {
            heads: table
            for heads, table in self.generation.items()
            if heads[3] or table.never_faster(2 * heads[1] * heads[2] * kv_bytes, bandwidth_gb_s, 2 * cache_bytes)
        }
        return self if len(kept) == len(self.generation) else attrs.evolve(self, generation=kept)


@lru_cache(maxsize=8)
def _load(root: Path, dtype: str, kv_dtype: str, stamps: tuple[tuple[str, int], ...]) -> KernelTables:  # noqa: ARG001
    """Read the tables once for all simulations of a process, again when a file has changed: the stamps say so."""
    picked = {"attn_dtype": dtype, "kv_cache_dtype": kv_dtype}
    return KernelTables(
        root,
        _source(find_table(root, "gemm")),
        gemm=_gemm(find_table(root, "gemm")),
        context=_attention(find_table(root, "context_attention"), picked, context=True),
        generation=_attention(find_table(root, "generation_attention"), picked, context=False),
        experts=_experts(has_table(root, "moe")),
        collectives=_collectives(has_table(root, "nccl"), has_table(root, "custom_allreduce")),
    )


def _ns(latency_ms: float) -> float:
    return latency_ms * 1e6


def _source(file: Path) -> str:
    facts = read_table(file, dict.fromkeys(("device", "framework", "version"), str))[0]
    return f"kernels of {facts[0]}, {facts[1]} {facts[2]}"


def _gemm(file: Path) -> dict[str, GemmTable]:
    columns: Columns = {"gemm_dtype": str, "k": whole, "n": whole, "m": whole, "latency": time_number}
    found: dict[str, dict[int, dict[int, dict[int, float]]]] = {}
    for dtype, k, n, m, latency in read_table(file, columns):
        found.setdefault(dtype, {}).setdefault(k, {}).setdefault(n, {})[m] = _ns(latency)
    return {
        dtype: GemmTable({k: {n: Curve.of(at.items()) for n, at in widths.items()} for k, widths in table.items()})
        for dtype, table in found.items()
    }


def _attention(file: Path, picked: Mapping[str, str], *, context: bool) -> dict[Heads, AttentionTable]:
    length = "isl" if context else "step"
    columns: Columns = {**_HEADS, "batch_size": whole, length: whole, "latency": time_number}
    windows = _windows(file, {**columns, "window_size": whole}, picked)
    found: defaultdict[Heads, list[tuple[int, int, float]]] = defaultdict(list)
    for heads, kv_heads, dim, batch, tokens, latency, window in windows:
        found[heads, kv_heads, dim, window].append((batch, tokens + (not context), _ns(latency)))
    return {heads: AttentionTable.of(points) for heads, points in found.items()}


def _windows(file: Path, columns: Columns, picked: Mapping[str, str]) -> list[tuple[Any, ...]]:
    """Return the rows; a table without a column of windows has none."""
    if "window_size" in header_of(file):
        return read_table(file, columns, where=picked)
    without = {name: convert for name, convert in columns.items() if name != "window_size"}
    return [(*row, 0) for row in read_table(file, without, where=picked)]


def _experts(file: Path | None) -> dict[tuple[str, int, int, int, int, int, int], Curve]:
    if file is None:
        return {}
    sizes = ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size", "num_tokens")
    columns: Columns = {"moe_dtype": str, **dict.fromkeys(sizes, whole), "latency": time_number}
    found: defaultdict[Any, defaultdict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for *key, tokens, latency, distribution in read_table(file, {**columns, "distribution": str}):
        found[tuple(key)][distribution][tokens] = _ns(latency)
    return {key: Curve.of(by_routing[_likeliest(by_routing)].items()) for key, by_routing in found.items()}


def _likeliest(routings: Iterable[str]) -> str:
    """Return the least skewed of the skewed routings, as no router of a trained model spreads tokens evenly."""
    return min(routings, key=lambda name: (name == "balanced", name))


def _collectives(nccl: Path | None, custom: Path | None) -> dict[tuple[str, int], Curve]:
    """Custom all-reduces in a CUDA graph stand before NCCL's; sizes are elements of two bytes, int8's of one."""
    found: defaultdict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    sizes: Columns = {"num_gpus": whole, "message_size": whole, "latency": time_number}
    if nccl is not None:
        for kind, ranks, elements, latency in read_table(nccl, {"op_name": str, **sizes}, where={"nccl_dtype": "half"}):
            found["all_to_all" if kind == "alltoall" else kind, ranks][2 * elements] = _ns(latency)
    if custom is not None:
        columns: Columns = {"op_name": str, "backend": str, "allreduce_dtype": str, **sizes}
        graph: defaultdict[tuple[str, int], dict[int, float]] = defaultdict(dict)
        for kind, backend, dtype, ranks, elements, latency in read_table(custom, columns):
            if not backend.endswith("_eager"):
                graph[kind, ranks][_ELEMENT_BYTES.get(dtype, 2) * elements] = _ns(latency)
        found.update(graph)
    return {key: Curve.of(points.items()) for key, points in found.items()}
