"""Fit the interconnect blocks of the device cards to measured collectives, and print them as TOML.

    python -m tests.benchmarks.fit_links DATA [check]

DATA holds ``aiconfigurator/calib/<system>/custom_allreduce.csv.gz`` (vLLM's all-reduce, in a CUDA graph and eager) and
``nccl.csv.gz``; message sizes there are in elements. ``t = alpha + f m / bus``, least squares of the logarithm with a
loss that lets outliers be. Then it prints how far independent tables are from that: Vidur's all-reduce of DGX servers,
APEX's NCCL tests. Needs SciPy.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.optimize import least_squares  # type: ignore[import-untyped,import-not-found,unused-ignore]

from simloop.hardware import load_device

Array = npt.NDArray[np.float64]

SYSTEMS = {
    "a100-sxm-80gb": "a100_sxm",
    "h100-sxm-80gb": "h100_sxm",
    "h200-sxm-141gb": "h200_sxm",
    "b200-sxm-180gb": "b200_sxm",
    "l40s-48gb": "l40s",
    "rtx-pro-6000-96gb": "rtx_pro_6000_server",
}
OPERATIONS = {"all_gather": "all_gather", "reduce_scatter": "reduce_scatter", "alltoall": "all_to_all"}


def fit(size: Array, us: Array, share: float) -> str:
    """Return the line of one number of ranks; ``share`` of a message goes over each rank's link."""
    kilobytes = share * size / 1e3

    def residual(p: Array) -> Array:
        return np.asarray(np.log((p[0] + kilobytes / p[1]) / us))

    start = [us.min(), kilobytes[-1] / us[-1]]
    found = least_squares(residual, start, loss="soft_l1", f_scale=0.1, bounds=([0, 1e-3], [1e3, 1e4]), x_scale=start)
    error = np.abs(np.exp(residual(found.x)) - 1)
    return (
        f"alpha_us = {found.x[0]:.4g}, bus_gb_s = {found.x[1]:.4g}, "
        f"median_error = {np.median(error):.3f}, p90_error = {np.quantile(error, 0.9):.3f}"
    )


def lines(table: pl.DataFrame, twice: int) -> list[str]:
    """Return one line for each number of ranks."""
    found = []
    for ranks in sorted(table["num_gpus"].unique()):
        rows = table.filter(pl.col("num_gpus") == ranks).sort("message_size")
        size, us = 2.0 * rows["message_size"].to_numpy(), 1e3 * rows["latency"].to_numpy()
        found.append(f"  {{ ranks = {ranks}, {fit(size, us, twice * (ranks - 1) / ranks)} }},")
    return found


def print_block(folder: Path) -> None:
    """Print the block of one system."""
    custom = pl.read_csv(folder / "custom_allreduce.csv.gz").filter(pl.col("allreduce_dtype") == "bfloat16")
    nccl = pl.read_csv(folder / "nccl.csv.gz").filter(pl.col("nccl_dtype") == "half")
    eager = custom.filter(pl.col("kernel_source") == "vLLM_custom_eager")
    graph = custom.filter(pl.col("kernel_source") == "vLLM_custom_graph")
    print("[interconnect]")
    vllm = f"vLLM {custom['version'][0]} all-reduce (CUDA graph)"
    print(f'source = "aiconfigurator calib/{folder.name}: {vllm}, the rest NCCL {nccl["version"][0]}; one server"')
    print(f"launch_us = {1e3 * eager.filter(pl.col('message_size') < 1024)['latency'].median():.3g}")  # type: ignore[operator]
    print("all_reduce = [", *lines(graph, 2), "]", sep="\n")
    for theirs, ours in OPERATIONS.items():
        print(f"{ours} = [", *lines(nccl.filter(pl.col("op_name") == theirs), 1), "]", sep="\n")


def report(title: str, device: str, kind: str, ranks: Array, size: Array, us: Array) -> None:
    """Print how far a table is from a card, small messages and large ones apart."""
    links = load_device(device).links()
    ours = np.array([sum(links.collective_ns(kind, int(n), m)) / 1e3 for n, m in zip(ranks, size, strict=True)])  # type: ignore[arg-type]
    for label, keep in (("below 1 MB", size < 1e6), ("1 MB and more", size >= 1e6)):
        ratio = ours[keep] / us[keep]
        print(f"{title:<44}{label:<14}{len(ratio):>6} points, predicted / measured: median {np.median(ratio):.2f}, "
              f"|error| {np.median(np.abs(ratio - 1)):.0%}")  # fmt: skip


def against_others(data: Path) -> None:
    """Print the error against tables that nothing was fitted to."""
    for device, name in (("a100-sxm-80gb", "a100_dgx"), ("h100-sxm-80gb", "h100_dgx")):
        table = pl.read_csv(data / f"vidur/calib/network/{name}/all_reduce.csv.gz").filter(
            pl.col("num_workers") == pl.col("devices_per_node")
        )
        for ranks in (2, 4, 8):
            rows = table.filter(pl.col("num_workers") == ranks)
            us = 1e3 * rows["time_stats.all_reduce.median"].to_numpy()
            columns = (rows["num_workers"].to_numpy().astype(float), rows["size"].to_numpy().astype(float), us)
            report(f"Vidur {name}, {ranks} ranks", device, "all_reduce", *columns)
    kinds = {"all_reduce": "all_reduce", "alltoall": "all_to_all", **{k: k for k in ("all_gather", "reduce_scatter")}}
    for device, name in (("h100-sxm-80gb", "H100-SXM-80GB"), ("h200-sxm-141gb", "H200-SXM-141GB")):
        for theirs, ours in kinds.items():
            rows = pl.read_csv(data / f"apex_vllm060_h100/calib/comm/{name}/{theirs}.csv").filter(
                (pl.col("size(kb)") > 0) & (pl.col("num_nodes") == 1)
            )
            columns = (rows["num_gpus_per_node"].to_numpy().astype(float), 1024.0 * rows["size(kb)"].to_numpy(),
                       rows["time(us)"].to_numpy().astype(float))  # fmt: skip
            report(f"APEX {name} {theirs}", device, ours, *columns)


if __name__ == "__main__":
    for card, system in SYSTEMS.items():
        print(f"\n# {card}")
        print_block(Path(sys.argv[1]) / "aiconfigurator/calib" / system)
    if len(sys.argv) > 2:
        against_others(Path(sys.argv[1]))
