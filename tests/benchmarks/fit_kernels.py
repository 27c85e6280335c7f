"""Fit quantised matrix products, experts and latent attention of the device cards, and print the blocks as TOML.

    python -m tests.benchmarks.fit_kernels DATA [DEVICE ...]

DATA holds NVIDIA's aiconfigurator tables (kernels of vLLM under CUDA graphs) and, for MI300X, ROCm's tuned kernels.
The formulas are those of the cards; losses as in ``fit_devices.py``. Needs SciPy.

- Quantised weights that fit the last-level cache are left out: some tables measure one weight over and over. What
  remains is large and says little of the fixed cost, which is therefore kept below 20 us.
- Experts: ``balanced`` rows without expert parallelism, where tokens are dealt out and ``min(E, k T)`` experts work.
  Older tables have only skewed routing: there, rows in which almost all experts work.
- Latent attention is what the whole module takes less the projections, at the prices of the card.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from simloop.hardware import Prices, load_device
from simloop.model import Elementwise, Gemm, LatentAttention, load_model
from tests.benchmarks.fit_devices import fit, floats

Array = npt.NDArray[np.float64]

SYSTEMS = {
    "a100-sxm-80gb": "a100_sxm",
    "h100-sxm-80gb": "h100_sxm",
    "h200-sxm-141gb": "h200_sxm",
    "b200-sxm-180gb": "b200_sxm",
    "l40s-48gb": "l40s",
    "rtx-pro-6000-96gb": "rtx_pro_6000_server",
}
LIMITS = {
    "a100-sxm-80gb": (312, 2039, 40),
    "h100-sxm-80gb": (989.4, 3350, 50),
    "h200-sxm-141gb": (989.4, 4800, 50),
    "b200-sxm-180gb": (2250, 7700, 126),
    "l40s-48gb": (362, 864, 96),
    "rtx-pro-6000-96gb": (503.8, 1792, 128),
}
"""Peak in half precision (TFLOP/s), memory bandwidth (GB/s) and last-level cache (MB)."""

STORED = {
    "bfloat16": (16.0, 1.0),
    "fp8": (8.0, 2.0),
    "fp8_block": (8 + 32 / 128**2, 2.0),
    "nvfp4": (4.5, 4.0),
    "int4_wo": (4 + 16 / 128, 1.0),
    "w4a16_mxfp4": (4.25, 1.0),
}
"""Bits of a weight with its share of the scales, and arithmetic in multiples of the peak in half precision."""

KERNELS = {"int4_wo": "int4", "w4a16_mxfp4": "mxfp4"}

NAMES = "compute_efficiency memory_efficiency overhead_us sharpness"


def fit_products(title: str, source: str, flop_us: Array, byte_us: Array, us: Array, most_us: float = 400) -> None:
    """Fit the smooth roofline of a kind of matrix product."""

    def predict(p: Array) -> Array:
        compute, memory = flop_us / p[0], byte_us / p[1]
        return np.asarray(p[2] + (compute ** p[3] + memory ** p[3]) ** (1 / p[3]))

    fit(title, source, NAMES, predict, us, [0.6, 0.7, 6, 2], [0.02, 0.05, 0, 1], [1, 1, most_us, 20])


def fit_gemms(card: str, folder: Path) -> None:
    """Fit matrix products by kind of weight."""
    tflops, gb_s, cache_mb = LIMITS[card]
    table = pl.read_csv(folder / "gemm.csv.gz")
    for dtype in ("fp8", "fp8_block", "nvfp4"):
        bits, faster = STORED[dtype]
        rows = table.filter((pl.col("gemm_dtype") == dtype) & (pl.col("k") >= 1024) & (pl.col("n") >= 1024))
        copies = 6 / 1.5 if dtype == "fp8" else 1  # of a weight, taken in turns
        rows = rows.filter(pl.col("k") * pl.col("n") * bits / 8 * copies > 1e6 * cache_mb)
        if not len(rows):
            continue
        m, k, n, ms = floats(rows, "m", "k", "n", "latency")
        moved = 2 * m * (k + n) + k * n * bits / 8
        source = f"aiconfigurator calib/{folder.name}, vLLM {rows['version'][0]}, {dtype}"
        flop_us, byte_us = 2 * m * k * n / (faster * tflops * 1e6), moved / (gb_s * 1e3)
        fit_products(f"gemm_quantized.{dtype}", source, flop_us, byte_us, 1e3 * ms, most_us=20)


def fit_experts(card: str, folder: Path) -> None:
    """Fit grouped products by kind of weight."""
    tflops, gb_s, cache_mb = LIMITS[card]
    table = pl.read_csv(folder / "moe.csv.gz").filter(pl.col("moe_ep_size") == 1)
    dealt = "balanced" in table["distribution"].unique()
    kind = "balanced" if dealt else "power_law_1.01"
    for dtype, (bits, faster) in STORED.items():
        rows = table.filter((pl.col("moe_dtype") == dtype) & (pl.col("distribution") == kind))
        if not len(rows):
            continue
        t, h, w, k, e, ranks, ms = floats(
            rows, "num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "latency"
        )
        w, active = w / ranks, np.minimum(e, k * t) if dealt else e * (1 - (1 - k / e) ** t)
        keep = (3 * h * w * active * bits / 8 > 1e6 * cache_mb) & (dealt | (active > 0.97 * e) | (t == 1))
        moved = active * 3 * h * w * bits / 8 + 2 * t * k * (2 * h + 3 * w)
        flop_us, byte_us = 6 * t * k * h * w / (faster * tflops * 1e6), moved / (gb_s * 1e3)
        source = f"aiconfigurator calib/{folder.name}, vLLM {rows['version'][0]}, {dtype}, {kind}"
        title = "moe" if dtype == "bfloat16" else f"moe_quantized.{KERNELS.get(dtype, dtype)}"
        fit_products(title, source, flop_us[keep], byte_us[keep], 1e3 * ms[keep])


def fit_latent(card: str, folder: Path) -> None:
    """Fit latent attention of decodes to DeepSeek's attention module."""
    file = folder / "mla_generation_module.csv.gz"
    if not file.exists():
        return
    tflops, gb_s, _ = LIMITS[card]
    table = pl.read_csv(file).filter(
        (pl.col("gemm_type") == "bfloat16") & (pl.col("kv_cache_dtype") == "bfloat16")
        & (pl.col("step") >= 127) & (pl.col("num_heads") >= 16)
    )  # fmt: skip
    heads, batch, step, ms = floats(table, "num_heads", "batch_size", "step", "latency")
    context = batch * (step + 1)
    rest = np.array([projections_us(card, int(h), int(b)) for h, b in zip(heads, batch, strict=True)])
    flop_us = 2 * heads * (576 + 512) * context / (tflops * 1e6)
    byte_us = 2 * (576 * context + batch * heads * (576 + 512)) / (gb_s * 1e3)

    def predict(p: Array) -> Array:
        return np.asarray(rest + p[2] + np.maximum(flop_us / p[0], byte_us / p[1]))

    source = f"aiconfigurator calib/{folder.name}, vLLM {table['version'][0]}, bfloat16, module less its projections"
    names = "compute_efficiency memory_efficiency overhead_us"
    fit("latent_decode", source, names, predict, 1e3 * ms, [0.4, 0.6, 20], [0.02, 0.05, 0], [1, 1, 200])


def projections_us(card: str, heads: int, rows: int) -> float:
    """Return what the rest of DeepSeek's attention module takes with so many heads, microseconds."""
    prices, full = Prices(load_device(card), "bfloat16"), 128
    total = 0.0
    for operator in load_model("deepseek-v3").blocks[0]:
        if isinstance(operator, LatentAttention):
            continue
        if operator.name == "post_attention_layernorm":
            break
        if isinstance(operator, Gemm):
            k, n = operator.k, operator.n
            k, n = (k * heads // full, n) if operator.split == "row" else (k, n)
            n = n * heads // full if operator.split == "column" else n
            total += prices.gemm(Gemm(operator.name, k, n), rows).total
        elif isinstance(operator, Elementwise):
            total += prices.elementwise(operator, rows).total
    return total / 1e3


def fit_mi300x(data: Path) -> None:
    """Fit 8-bit matrix products to the best kernels that ROCm's tuner found."""
    table = pl.read_csv(
        data / "rocm_aiter_tuned_gemm/calib/gemm_mi300x_or_mi325x_gfx942_cu304.csv.gz", infer_schema_length=None
    ).filter(pl.col("source_file").str.contains("blockscale") & (pl.col("K") >= 1024) & (pl.col("N") >= 1024))
    m, n, k, us = floats(table, "M", "N", "K", "us")
    moved = 2 * m * n + m * k + k * n
    source = "ROCm aiter calib/gemm_mi300x_or_mi325x, the tuner's best kernels, 8-bit blocks of 128x128"
    flop_us, byte_us = 2 * m * k * n / (2614.9 * 1e6), moved / (5300 * 1e3)
    fit_products("gemm_quantized.fp8_block", source, flop_us, byte_us, us)


def main(data: Path, wanted: list[str]) -> None:
    """Fit the cards that are wanted, or all."""
    for card, system in SYSTEMS.items():
        if wanted and card not in wanted:
            continue
        print(f"\n# {card}")
        folder = data / "aiconfigurator/calib" / system
        fit_gemms(card, folder)
        fit_experts(card, folder)
        fit_latent(card, folder)
    if not wanted or "mi300x-192gb" in wanted:
        print("\n# mi300x-192gb")
        fit_mi300x(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
