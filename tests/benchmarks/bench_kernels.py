"""How far the cards are from kernels that nothing was fitted to: skewed routing, windows, small caches, latent prefill.

    python -m tests.benchmarks.bench_kernels DATA

DATA holds ``aiconfigurator/calib`` and ``llmservingsim/calib/vllm_profiler``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from simloop.hardware import Cost, Prices, load_device
from simloop.model import Attention, Experts, LatentAttention, Load
from tests.benchmarks.bench_plans import head, show
from tests.benchmarks.fit_kernels import SYSTEMS, projections_us

Row = dict[str, Any]


class Dealt:
    """A routing that says what a benchmark did: so many pairs, so many experts."""

    def __init__(self, active: float) -> None:
        self.active = active

    def load(self, experts: Experts, tokens: int) -> Load:
        """Return the pairs of the tokens, on that many experts."""
        return Load(tokens * experts.top_k, self.active)


def rows_of(file: Path, *conditions: pl.Expr, most: int = 4000) -> Iterator[Row]:
    """Yield rows of a table, a sample of at most so many."""
    table = pl.read_csv(file, infer_schema_length=None).filter(*conditions)
    yield from table.sample(min(most, len(table)), seed=1).iter_rows(named=True)


def skewed_experts(data: Path) -> None:
    """Experts under skewed routing, priced as balanced; and with expert parallelism."""
    head("experts, bfloat16: predicted (balanced) / measured")
    for card, system in SYSTEMS.items():
        prices, file = Prices(load_device(card), "bfloat16"), data / "aiconfigurator/calib" / system / "moe.csv.gz"
        for kind in ("power_law_1.01", "power_law_1.2"):
            for split in (False, True):
                ratios = [
                    prices.experts(_experts(row), row["num_tokens"]).total / (1e6 * row["latency"])
                    for row in rows_of(
                        file, pl.col("moe_dtype") == "bfloat16", pl.col("distribution") == kind,
                        (pl.col("moe_ep_size") > 1) == split,
                    )
                ]  # fmt: skip
                if ratios:
                    show(f"{card} {kind}{', a share of the experts' if split else ''}", ratios)


def _experts(row: Row) -> Experts:
    width, ranks = row["inter_size"] // row["moe_tp_size"], row["moe_ep_size"]
    return Experts("", row["hidden_size"], width, row["num_experts"], row["topk"], local=row["num_experts"] // ranks)


def profiled_experts(data: Path) -> None:
    """Experts of Qwen3-30B-A3B as LLMServingSim profiled them."""
    head("experts, LLMServingSim: predicted / measured")
    folder = data / "llmservingsim/calib/vllm_profiler/RTXPRO6000/Qwen/Qwen3-30B-A3B-Instruct-2507/bf16/tp1"
    layer, device = Experts("", 2048, 768, 128, 8), load_device("rtx-pro-6000-96gb")
    ratios = [
        Prices(device, "bfloat16", routing=Dealt(row["activated_experts"])).experts(layer, row["tokens"]).total
        / (1e3 * row["time_us"])
        for row in rows_of(folder / "moe.csv.gz")
    ]
    show("rtx-pro-6000-96gb qwen3-30b-a3b", ratios)


def odd_attention(data: Path) -> None:
    """Attention with an 8-bit cache, and with a window."""
    head("attention, heads of 128: predicted / measured")
    kinds = {"fp8 cache": ("fp8", 0), "window of 128": ("bfloat16", 128), "neither": ("bfloat16", 0)}
    for card in ("h100-sxm-80gb", "h200-sxm-141gb", "b200-sxm-180gb"):
        folder = data / "aiconfigurator/calib" / SYSTEMS[card]
        for name, (cache, window) in kinds.items():
            prices = Prices(load_device(card), "bfloat16", 1 if cache == "fp8" else 2)
            wanted = (
                pl.col("kv_cache_dtype") == cache, pl.col("window_size") == window, pl.col("head_dim") == 128,
                pl.col("attn_dtype") == "bfloat16", pl.col("num_heads") <= 8 * pl.col("num_key_value_heads"),
            )  # fmt: skip
            for phase, length in (("generation", pl.col("step")), ("context", pl.col("isl"))):
                ratios = [
                    _attention(prices, row, phase).total / (1e6 * row["latency"])
                    for row in rows_of(folder / f"{phase}_attention.csv.gz", *wanted, length >= 512)
                ]
                if ratios:
                    show(f"{card} {phase}, {name}", ratios)


def _attention(prices: Prices, row: Row, phase: str) -> Cost:
    window = row["window_size"] or None
    operator = Attention("", row["num_heads"], row["num_key_value_heads"], 128, window)
    batch = row["batch_size"]
    if phase == "generation":
        return prices.decode(operator, batch, batch * (row["step"] + 1))
    return prices.prefill(operator, [(row["isl"], 0)] * batch)


def latent_prefill(data: Path) -> None:
    """DeepSeek's whole attention module in prefill, its projections included."""
    head("latent attention, prefill module: predicted / measured")
    for card in ("h200-sxm-141gb", "b200-sxm-180gb"):
        prices, ratios = Prices(load_device(card), "bfloat16"), []
        for row in rows_of(
            data / "aiconfigurator/calib" / SYSTEMS[card] / "mla_context_module.csv.gz",
            pl.col("gemm_type") == "bfloat16", pl.col("kv_cache_dtype") == "bfloat16", pl.col("num_heads") >= 16,
            pl.col("isl") >= 128, pl.col("step") == 0, most=400,
        ):  # fmt: skip
            operator = LatentAttention("", row["num_heads"], 512, 128, 64, 128)
            ours = prices.prefill(operator, [(row["isl"], 0)] * row["batch_size"]).total / 1e3
            ours += projections_us(card, row["num_heads"], row["isl"] * row["batch_size"])
            ratios.append(ours / (1e3 * row["latency"]))
        show(card, ratios)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    skewed_experts(folder)
    profiled_experts(folder)
    odd_attention(folder)
    latent_prefill(folder)
