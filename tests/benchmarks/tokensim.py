"""simloop beside the public TokenSim and the tables of its paper: everything that can be compared, in one go.

    python -m tests.benchmarks.tokensim [DATA]

DATA holds the public code's outputs (``shared/data/tokensim`` if not given). Table II needs none of them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

import simloop

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("SIMLOOP_DATA", ROOT.parent / "shared" / "data")) / "tokensim"
TABLE_2_REAL = "tokensim-table2-real"
REAL = {100: 2.756, 200: 5.246, 300: 7.819, 400: 10.371, 500: 12.981}
"""Table II, "Local": seconds on a real A100 by the number of requests."""

OTHERS = {
    "TokenSim": (2.592, 5.089, 7.587, 10.095, 12.593),
    "Vidur": (2.371, 4.698, 7.246, 9.935, 12.122),
    "LLMServingSim": (2.556, 5.056, 7.557, 10.056, 12.556),
}
"""The other rows of Table II."""

FIGURE_10 = [
    (1.0, 11.37, 1.28, 0.22),
    (0.9, 11.11, 1.70, 0.23),
    (0.8, 10.79, 2.53, 0.39),
    (0.7, 10.43, 3.19, 0.67),
    (0.5, 9.36, 3.98, 0.65),
]
"""The public code, 2,000 requests at 24 a second on one A100 40 GB: max_occupy_ratio; requests a second, those of them
without a gap above 0.15 s, those that have a TTFT within 15 s, too."""

PUBLIC_CPU_S = 29.72
"""CPU seconds of the public code for 10,000 requests at 8 a second, on a machine of the same kind."""

_COLUMNS = {"input_tokens": "prompt_len", "output_tokens": "output_len"}


def lengths() -> str:
    """Return the override that takes the lengths of all its runs."""
    path = str(DATA / "sharegpt_like_lengths.csv.gz")
    return "workload.lengths=" + json.dumps({"path": path, "format": "csv", "columns": _COLUMNS})


def trace(run: str) -> str:
    """Return the override that takes arrivals and lengths of one of its runs."""
    columns = {"arrival_s": "arrival_s", **_COLUMNS}
    found = {"path": str(DATA / f"{run}.csv.gz"), "format": "csv", "columns": columns}
    return "workload=" + json.dumps({"trace": found})


def a100_40gb(groups: int) -> list[str]:
    """Return the overrides that put its "A100-40G" into so many groups of workers."""
    keys = ("device=a100-sxm-40gb", "timing.memory_bandwidth_tb_s=1.555")
    return [f"workers[{group}].{key}" for group in range(groups) for key in keys]


def simulate(config: str, *overrides: str) -> simloop.Result:
    """Run a bundled scenario with changes."""
    return simloop.simulate(ROOT / "configs" / f"{config}.yaml", overrides=list(overrides))


def compare(config: str, run: str, *overrides: str) -> str:
    """Return one line: how far the requests of a run are from the public code's, and its percentiles."""
    mine, public = simulate(config, *overrides).requests, pl.read_csv(DATA / f"{run}.csv.gz").sort("id")
    ttft_ns = 1e9 * (mine["ttft_s"] - public["ttft_s"]).to_numpy()
    finish = (mine["finish_s"] / public["finish_s"] - 1).to_numpy()
    worst = max(
        abs(np.percentile(mine[name], percent) / np.percentile(public[name], percent) - 1)
        for name in ("ttft_s", "e2e_s")
        for percent in range(1, 101)
    )
    return (
        f"{run:<24}{len(mine):>6} requests: TTFT within {np.abs(ttft_ns).max():.2f} ns, finish within "
        f"{np.abs(finish).max():.1e}, percentiles within {worst:.1e}"
    )


def per_request() -> Iterator[str]:
    """Yield the comparisons by request."""
    for name in ("a80_uniform_q2", "a80_uniform_q4", "a80_uniform_q8", "a80_poisson_q8"):
        yield compare("tokensim", f"{name}_n2000", trace(f"{name}_n2000"))
    yield compare("tokensim", "h1_uniform_q8_n2000", trace("h1_uniform_q8_n2000"), *a100_40gb(1))
    yield compare("tokensim-disaggregated", "p2g6_uniform_q8_n2000", lengths(), *a100_40gb(2))


def totals() -> Iterator[str]:
    """Yield the comparisons of total times: figure 7 and Table II by the public code."""
    for requests, total_s, _ in pl.read_csv(DATA / "fig7_repro.csv").iter_rows():
        mine_s = simulate("tokensim-fig7", f"workload.requests={requests}").end_ns / 1e9
        yield f"figure 7, {requests:>6} requests: {mine_s:.6f} s, public code {total_s:.6f} s"
    worst = 0.0
    for hardware, prompt, requests, total_s in pl.read_csv(DATA / "table2_repro.csv").iter_rows():
        changes = [f"workload.requests={requests}", f"workload.lengths.input={prompt}"]
        mine = simulate("tokensim-table2", *changes, *(a100_40gb(1) if hardware == "h1" else ()))
        worst = max(worst, abs(mine.end_ns / 1e9 - total_s))
    yield f"Table II by the public code, 2 devices, 3 prompts, 5 sizes: within {worst:.1e} s"


def figure_10() -> Iterator[str]:
    """Yield the comparison of figure 10's set-up, where the device has to swap."""
    for ratio, *public in FIGURE_10:
        changes = [f"policies.schedule.params.max_occupy_ratio={ratio}", "slo={ttft_s: 15, max_gap_s: 0.15}"]
        mine = simulate("tokensim", lengths(), "workload.arrivals.rate=24", *a100_40gb(1), *changes)
        requests, total_s = mine.requests, mine.end_ns / 1e9
        counts = len(requests), int((requests["max_gap_s"] <= 0.15).sum()), int(requests["slo_attained"].sum())
        ours = " / ".join(f"{count / total_s:.2f}" for count in counts)
        theirs = " / ".join(f"{rate:.2f}" for rate in public)
        yield f"figure 10, max_occupy_ratio {ratio}: {ours} requests/s, public code {theirs}"


def table_2() -> Iterator[str]:
    """Yield Table II: each simulator's row, ours, and their errors against the real device."""
    yield f"{'Table II, s':<34}" + "".join(f"{requests:>9}" for requests in REAL) + "   mean |error|"
    yield _row("real A100 (Local)", np.array(list(REAL.values())))
    for name, row in OTHERS.items():
        yield _row(name, np.array(row))
    yield _row("simloop, timing tokensim", _times("tokensim-table2", "workload.lengths.input=16"))
    evenly = "workload.arrivals.rate=40"
    bare = _times(TABLE_2_REAL, evenly, "workers[0].timing.overheads=none")
    yield _row("simloop, roofline alone", bare)
    yield _row("+ the host of vLLM 0.6", _times(TABLE_2_REAL, evenly, "workers[0].timing.overheads=vllm-0.6"))
    yield _row("+ 7 ms a request (HTTP)", _times(TABLE_2_REAL, evenly))
    yield _row("+ a client 0.5 ms late each time", _times(TABLE_2_REAL))
    yield _left_out(_times(TABLE_2_REAL, evenly))


def _times(config: str, *overrides: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([simulate(config, f"workload.requests={n}", *overrides).end_ns / 1e9 for n in REAL])


def _row(name: str, times: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    error = np.abs(times / np.array(list(REAL.values())) - 1).mean()
    return f"{name:<34}" + "".join(f"{time:>9.3f}" for time in times) + f"{100 * error:>12.2f} %"


def _left_out(times: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    """Fit how late the client is each time to four rows, and predict the fifth."""
    real, sizes = np.array(list(REAL.values())), np.array(list(REAL))
    errors, late_ms = [], []
    for out in range(len(sizes)):
        kept = np.arange(len(sizes)) != out
        late_s = (sizes[kept] @ (real - times)[kept]) / (sizes[kept] @ sizes[kept])
        errors.append(abs((times[out] + sizes[out] * late_s) / real[out] - 1))
        late_ms.append(1e3 * late_s)
    spread = f"{min(late_ms):.2f} to {max(late_ms):.2f} ms"
    return f"(fitted to four sizes and asked for the fifth, it is late by {spread}: {100 * np.mean(errors):.2f} %)"


def speed() -> str:
    """Return the CPU time of 10,000 requests at 8 a second, as a whole process."""
    command = [sys.executable, "-m", "simloop", "run", str(ROOT / "configs" / "tokensim.yaml"), "--requests", "10000"]
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, "--set", lengths()], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    cpu_s = sorted(used)[1]
    return f"10,000 requests at 8 a second: {cpu_s:.2f} CPU s (public code {PUBLIC_CPU_S}: {PUBLIC_CPU_S / cpu_s:.0f}x)"


def main() -> None:
    """Print everything."""
    global DATA
    if len(sys.argv) > 1:
        DATA = Path(sys.argv[1])
    if DATA.is_dir():
        for line in (*per_request(), *totals(), *figure_10(), speed()):
            print(line, flush=True)
    else:
        print(f"the public code's outputs are not in {DATA}")
    for line in table_2():
        print(line, flush=True)


if __name__ == "__main__":
    main()
