"""Fit the calibration blocks of the device cards to measured kernels, and print them as TOML.

    python tests/benchmarks/fit_devices.py DATA [DEVICE ...]

DATA is a folder with measurements, one sub-folder a source, named as below: NVIDIA's aiconfigurator tables (kernels
of vLLM under CUDA graphs), LLMServingSim's layer profiles of vLLM, and Vidur's profiles. Needs SciPy. All fits minimise
the logarithm of predicted over measured time with a loss that lets outliers be (soft L1, scale 0.1).

What is left out, and why:

- decode attention and GEMMs whose data fits the last-level cache, but is large enough to matter: repeated measurement
  finds them there, an iteration that has streamed 15 GB of weights in between does not;
- decode attention of contexts below 128 tokens, and of more than 8 query heads to a KV head: no model here has them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import least_squares  # type: ignore[import-untyped,import-not-found,unused-ignore]

Array = npt.NDArray[np.float64]
BYTES = 2

ELEMENTWISE_VIDUR: dict[str, Callable[[pl.DataFrame], pl.Series]] = {
    "input_layernorm": lambda t: 2 * t["n_embd"],
    "attn_rope": lambda t: 2 * t["n_embd"] * (1 + t["n_kv_head"] / t["n_head"]),
    "mlp_act": lambda t: 3 * t["n_expanded_embd"],
}
"""Elements moved for each token by the element-wise operators that Vidur measured."""


@attrs.frozen
class Machine:
    """A device, its nominal limits, and where it was measured.

    Attributes:
        card: Name of the card.
        tflops: Peak in half precision, TFLOP/s.
        gb_s: Memory bandwidth, GB/s.
        cache_mb: Last-level cache, MB.
        aiconfigurator: Folder of aiconfigurator's tables.
        vidur: Folder of Vidur's.
        llmservingsim: Folder of LLMServingSim's profiles of vLLM: everything is fitted to them.
        dense: The same, for element-wise operators alone.
        v0: Folder of LLMServingSim's older profiles.
        products: Fit matrix products to Vidur's tables, too.
        copies: Copies of a weight that the benchmark took in turns, as far as that matters for the cache.
    """

    card: str
    tflops: float
    gb_s: float
    cache_mb: float
    aiconfigurator: str | None = None
    vidur: str | None = None
    llmservingsim: str | None = None
    dense: str | None = None
    v0: str | None = None
    products: bool = False
    copies: int = 1


MACHINES = [
    Machine("a100-sxm-80gb", 312, 2039, 40, aiconfigurator="a100_sxm", vidur="a100"),
    Machine("h100-sxm-80gb", 989.4, 3350, 50, aiconfigurator="h100_sxm", vidur="h100"),
    Machine("h200-sxm-141gb", 989.4, 4800, 50, aiconfigurator="h200_sxm"),
    Machine("l40s-48gb", 362, 864, 96, aiconfigurator="l40s"),
    Machine("rtx-4090-24gb", 165.2, 1008, 72, llmservingsim="RTX4090"),
    Machine("rtx-3090-24gb", 71.2, 936, 6, v0="RTX3090"),
    Machine("b200-sxm-180gb", 2250, 7700, 126, aiconfigurator="b200_sxm"),
    Machine("rtx-pro-6000-96gb", 503.8, 1792, 128, aiconfigurator="rtx_pro_6000_server", dense="RTXPRO6000", copies=6),
    Machine("rtx-a6000-48gb", 154.8, 768, 6, v0="A6000"),
    Machine("a40-48gb", 149.7, 696, 6, vidur="a40", products=True),
]


def fit(
    title: str, source: str, names: str, predict: Callable[[Array], Array], measured_us: Array, start: list[float],
    low: list[float], high: list[float],
) -> None:  # fmt: skip
    """Fit one block and print it.

    Args:
        title: Name of the block.
        source: What to write as its source.
        names: Names of the parameters.
        predict: Microseconds of every point, from the parameters.
        measured_us: Measured microseconds.
        start: First guess.
        low: Lower bounds.
        high: Upper bounds.
    """

    def residual(parameters: Array) -> Array:
        return np.log(predict(parameters) / measured_us)

    solution = least_squares(residual, start, loss="soft_l1", f_scale=0.1, bounds=(low, high), x_scale=start)
    error = np.abs(np.exp(residual(solution.x)) - 1)
    print(f'\n[calibration.{title}]\nsource = "{source}; {len(measured_us):,} points"')
    for name, value in zip(names.split(), solution.x, strict=True):
        print(f"{name} = {value:.4g}")
    print(f"median_error = {np.median(error):.3f}\np90_error = {np.quantile(error, 0.9):.3f}")


def floats(table: pl.DataFrame, *columns: str) -> list[Array]:
    """Return columns as floating-point arrays."""
    return [table[column].to_numpy().astype(np.float64) for column in columns]


def fit_gemm(machine: Machine, source: str, shapes: tuple[Array, Array, Array], measured_us: Array) -> None:
    """Fit matrix products of ``m`` rows, inner dimension ``k``, outer dimension ``n``."""
    m, k, n = shapes
    large = BYTES * k * n * machine.copies > 1e6 * machine.cache_mb * (1.5 if machine.copies > 1 else 1)
    keep = (k >= 1024) & (n >= 1024) & ((machine.cache_mb < 64) | large)
    m, k, n, measured_us = m[keep], k[keep], n[keep], measured_us[keep]
    flop_us = 2 * m * k * n / (machine.tflops * 1e6)
    byte_us = BYTES * (m * k + k * n + m * n) / (machine.gb_s * 1e3)

    def predict(p: Array) -> Array:
        compute, memory = flop_us / p[0], byte_us / p[1]
        return np.asarray(p[2] + (compute ** p[3] + memory ** p[3]) ** (1 / p[3]))

    names = "compute_efficiency memory_efficiency overhead_us sharpness"
    fit("gemm", source, names, predict, measured_us, [0.75, 0.8, 4, 2], [0.1, 0.1, 0, 1], [1, 1, 50, 20])


def fit_prefill(machine: Machine, source: str, table: pl.DataFrame) -> None:
    """Fit attention of prompt chunks; columns: batch, new, cached, heads, kv_heads, us; a head has 128 elements."""
    batch, new, cached, heads, kv_heads, us = floats(table, "batch", "new", "cached", "heads", "kv_heads", "us")
    pairs = new * cached + new * (new + 1) / 2
    flop_us = batch * 4 * heads * 128 / (machine.tflops * 1e6)
    byte_us = batch * BYTES * 128 * 2 * (new * heads + (new + cached) * kv_heads) / (machine.gb_s * 1e3)

    def predict(p: Array) -> Array:
        return np.asarray(p[2] + np.maximum(flop_us * (pairs + new * p[3] / 2) / p[0], byte_us / p[1]))

    names = "compute_efficiency memory_efficiency overhead_us ramp_tokens"
    fit("prefill_attention", source, names, predict, us, [0.6, 0.7, 8, 500], [0.05, 0.05, 0, 0], [1, 1, 60, 2e4])


def fit_decode(machine: Machine, source: str, table: pl.DataFrame) -> None:
    """Fit attention of decodes; columns: batch, context, heads, kv_heads, us; a head has 128 elements."""
    table = table.filter((pl.col("context") >= 128) & (pl.col("heads") <= 8 * pl.col("kv_heads")))
    batch, context, heads, kv_heads, us = floats(table, "batch", "context", "heads", "kv_heads", "us")
    kv_bytes = 2.0 * BYTES * 128 * batch * context * kv_heads
    keep = (kv_bytes > 1.5e6 * machine.cache_mb) | (kv_bytes < 0.1e6 * machine.cache_mb)
    flop_us = 4 * batch * context * heads * 128 / (machine.tflops * 1e6)
    byte_us = (kv_bytes + 2 * BYTES * 128 * batch * heads) / (machine.gb_s * 1e3)

    def predict(p: Array) -> Array:
        return np.asarray(p[1] + np.maximum(flop_us[keep] / 0.3, byte_us[keep] / p[0]))

    # Decode attention is bound by memory in every measured point, so its compute efficiency is not identified.
    fit("decode_attention", source, "memory_efficiency overhead_us", predict, us[keep], [0.8, 10], [0.05, 0], [1, 60])


def fit_elementwise(machine: Machine, source: str, moved: Array, measured_us: Array) -> None:
    """Fit operators bound by memory, by the elements that they move; the cache often serves them."""
    byte_us = BYTES * moved / (machine.gb_s * 1e3)

    def predict(p: Array) -> Array:
        return np.asarray(p[1] + byte_us / p[0])

    names = "memory_efficiency overhead_us"
    fit("elementwise", source, names, predict, measured_us, [0.8, 3], [0.05, 0], [4, 60])


def from_aiconfigurator(machine: Machine, folder: Path) -> None:
    """Fit GEMM and attention to NVIDIA's tables; times there are milliseconds."""
    gemm = pl.read_csv(folder / "gemm.csv.gz").filter(pl.col("gemm_dtype") == "bfloat16")
    m, k, n, ms = floats(gemm, "m", "k", "n", "latency")
    where = f"aiconfigurator calib/{folder.name}, vLLM"
    fit_gemm(machine, f"{where} {gemm['version'][0]}, bfloat16", (m, k, n), 1e3 * ms)
    for kind in ("context", "generation"):
        table = pl.read_csv(folder / f"{kind}_attention.csv.gz").filter(
            (pl.col("attn_dtype") == "bfloat16")
            & (pl.col("kv_cache_dtype") == "bfloat16")
            & (pl.col("head_dim") == 128)
        )
        if "window_size" in table.columns:
            table = table.filter(pl.col("window_size") == 0)
        heads, kv_heads = pl.col("num_heads"), pl.col("num_key_value_heads")
        table = table.filter((heads >= 4) & (heads <= 16 * kv_heads)).select(
            batch="batch_size", new="isl", cached=pl.lit(0), context=pl.col("step") + 1, heads=heads, kv_heads=kv_heads,
            us=1e3 * pl.col("latency"), version="version",
        )  # fmt: skip
        source = f"{where} {table['version'][0]}, bfloat16"
        if kind == "context":
            fit_prefill(machine, source, table.filter(pl.col("new") >= 16))
        else:
            fit_decode(machine, source, table)


def from_vidur(machine: Machine, folder: Path) -> None:
    """Fit element-wise operators to Vidur's tables; times there are milliseconds, to one microsecond."""
    moved, measured = [], []
    for file in sorted(folder.rglob("mlp.csv.gz")):
        table = pl.read_csv(file).filter(pl.col("num_tensor_parallel_workers") == 1)
        for name, width in ELEMENTWISE_VIDUR.items():
            moved.append((table["num_tokens"] * width(table)).to_numpy().astype(np.float64))
            measured.append(1e3 * table[f"time_stats.{name}.median"].to_numpy())
    source = f"Vidur calib/compute/{folder.name}, float16, to 1 us"
    fit_elementwise(machine, source, np.concatenate(moved), np.concatenate(measured))


def products_from_vidur(machine: Machine, folder: Path) -> None:
    """Fit matrix products to Vidur's tables; times there are milliseconds, to one microsecond."""
    shapes, measured = [], []
    for file in sorted(folder.rglob("mlp.csv.gz")):
        table = pl.read_csv(file)
        h, f, t, m = floats(table, "n_embd", "n_expanded_embd", "num_tensor_parallel_workers", "num_tokens")
        heads, kv_heads = floats(table, "n_head", "n_kv_head")
        gated = np.where(table["use_gated_mlp"].to_numpy(), 2.0, 1.0)
        sizes = {
            "attn_pre_proj": (h, h * (1 + 2 * kv_heads / heads) / t), "attn_post_proj": (h / t, h),
            "mlp_up_proj": (h, gated * f / t), "mlp_down_proj": (f / t, h),
        }  # fmt: skip
        for name, (k, n) in sizes.items():
            shapes.append(np.stack([m, k, n]))
            measured.append(1e3 * table[f"time_stats.{name}.median"].to_numpy())
    m, k, n = np.concatenate(shapes, axis=1)
    source = f"Vidur calib/compute/{folder.name}, float16, to 1 us"
    fit_gemm(machine, source, (m, k, n), np.concatenate(measured))


def dense_from_llmservingsim(machine: Machine, folder: Path) -> None:
    """Fit element-wise operators to one profile of Llama-3.1-8B; microseconds."""
    table = pl.read_csv(folder / "dense.csv.gz")
    source = f"LLMServingSim calib/vllm_profiler/{machine.dense}, Llama-3.1-8B, vLLM 0.19.0, bfloat16"
    elementwise_of_llama(machine, source, table)


def elementwise_of_llama(machine: Machine, source: str, dense: pl.DataFrame) -> None:
    """Fit norms, rotary embedding and activation of Llama-3.1-8B."""
    widths = {"layernorm": 4 * 4096, "rotary_emb": 2 * (4096 + 1024), "act_fn": 3 * 14336}
    rest = dense.filter(pl.col("layer").is_in(list(widths)))
    (tokens, us) = floats(rest, "tokens", "time_us")
    fit_elementwise(machine, source, tokens * np.array([widths[layer] for layer in rest["layer"]]), us)


def from_llmservingsim(machine: Machine, folder: Path) -> None:
    """Fit everything to one profile of Llama-3.1-8B (hidden 4096, feed-forward 14336, 32 and 8 heads); microseconds."""
    dense = pl.read_csv(folder / "dense.csv.gz")
    shapes = {
        "qkv_proj": (4096, 6144),
        "o_proj": (4096, 4096),
        "gate_up_proj": (4096, 28672),
        "down_proj": (14336, 4096),
    }
    gemm = dense.filter(pl.col("layer").is_in(list(shapes)))
    k, n = (np.array([shapes[layer][i] for layer in gemm["layer"]], dtype=np.float64) for i in (0, 1))
    (tokens, us) = floats(gemm, "tokens", "time_us")
    source = f"LLMServingSim calib/vllm_profiler/{machine.llmservingsim}, Llama-3.1-8B, vLLM 0.19.0, bfloat16"
    fit_gemm(machine, source, (tokens, k, n), us)
    elementwise_of_llama(machine, source, dense)
    attention = pl.read_csv(folder / "attention.csv.gz").with_columns(heads=pl.lit(32), kv_heads=pl.lit(8))
    prompts = attention.filter((pl.col("prefill_chunk") > 0) & (pl.col("n_decode") == 0))
    fit_prefill(machine, source, prompts.with_columns(
        batch=pl.lit(1), new="prefill_chunk", cached="kv_prefill", us="time_us"))  # fmt: skip
    decodes = attention.filter(pl.col("prefill_chunk") == 0)
    fit_decode(machine, source, decodes.with_columns(batch="n_decode", context="kv_decode", us="time_us"))


def from_v0(machine: Machine, folder: Path) -> None:
    """Fit GEMM and prefill attention to an older profile of Llama-3.1-8B, projections one by one; nanoseconds."""
    table = pl.read_csv(folder / "layers.csv.gz").with_columns(us=pl.col("latency(ns)") / 1e3)
    shapes = {"q_proj": (4096, 4096), "k_proj": (4096, 1024), "o_proj": (4096, 4096), "gate_proj": (4096, 14336),
              "down_proj": (14336, 4096), "lm_head": (4096, 128256)}  # fmt: skip
    gemm = table.filter(pl.col("layer_name").is_in(list(shapes)))
    k, n = (np.array([shapes[layer][i] for layer in gemm["layer_name"]], dtype=np.float64) for i in (0, 1))
    (tokens, us) = floats(gemm, "input", "us")
    source = f"LLMServingSim calib/v0_profiler/{machine.v0}, Llama-3.1-8B, PyTorch profiler"
    fit_gemm(machine, source, (tokens, k, n), us)
    prompts = table.filter((pl.col("layer_name") == "attn") & (pl.col("input") >= 16))
    fit_prefill(machine, source, prompts.with_columns(
        batch=pl.lit(1), new="input", cached=pl.lit(0), heads=pl.lit(32), kv_heads=pl.lit(8)))  # fmt: skip


def main(data: Path, wanted: list[str]) -> None:
    """Fit the machines whose cards are wanted, or all."""
    profile = "meta-llama/Llama-3.1-8B"
    for machine in MACHINES:
        if wanted and machine.card not in wanted:
            continue
        print(f"\n# {machine.card}")
        if machine.aiconfigurator:
            from_aiconfigurator(machine, data / "aiconfigurator/calib" / machine.aiconfigurator)
        if machine.vidur:
            from_vidur(machine, data / "vidur/calib/compute" / machine.vidur)
        if machine.vidur and machine.products:
            products_from_vidur(machine, data / "vidur/calib/compute" / machine.vidur)
        profiles = data / "llmservingsim/calib/vllm_profiler"
        if machine.dense:
            dense_from_llmservingsim(machine, profiles / machine.dense / profile / "bf16/tp1")
        if machine.llmservingsim:
            from_llmservingsim(machine, profiles / machine.llmservingsim / profile / "bf16/tp1")
        if machine.v0:
            from_v0(machine, data / "llmservingsim/calib/v0_profiler" / machine.v0 / profile / "tp1")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
