"""vLLM on RTX A6000, the A6000 series of figure 5 of the LLMServingSim 2.0 paper: output tokens by second.

Neither the version of vLLM nor its arguments are known. One set of assumptions stands for all of the runs:

- vLLM's defaults on a card of 48 GB: 256 sequences, 2,048 tokens a step, chunked prefill, 0.9 of the memory. No smaller
  ``max_num_seqs`` lets the single instance reach the 3,391 tokens a second that it did;
- no prefix caching but in the run that is named after it. Which blocks its requests share is not published, only how
  many tokens of each are shared with an earlier one: the latest that is long enough stands in;
- two instances are served in turn; prefill and decode are one instance each, the KV over the link of the run's config;
- a step takes 2 ms beyond its kernels, the one number that is fitted (``fit_ispass_step.py``, to the four of them), and
  the first 68 ms, as in ``vllm-0.19``. Steps are not scheduled ahead: that is newer than the paper;
- a line of the series counts the second that ends with it, from the time zero of the workload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import polars as pl

from simloop.explore import RunLog
from simloop.explore.token_series import TokenSeries
from tests.benchmarks.cases import Case, Gap, Part, Request, scenario_of, timed, write_trace

__all__ = ["OVERHEADS", "ispass_cases"]

OVERHEADS = {"step_us": 2_000, "first_step_us": 68_000, "largest_graph": 512, "attention_per_prompt": True}
"""What the engine adds to its kernels, in all of the runs."""

_LLAMA = ("llama-3.1-8b", "meta-llama/Llama-3.1-8B", "llama")
_PHI = ("phi-mini-moe", "microsoft/Phi-mini-MoE-instruct", "phi")
"""Our name, the profile, the workload."""

_ROUND_ROBIN = {"route": "round_robin", "schedule": "vllm"}
_DISAGGREGATED = {"route": "disaggregated", "schedule": "disaggregated"}


@attrs.frozen
class _Run:
    """One series of the figure.

    Attributes:
        name: What the figure calls it.
        device: Where it ran.
        model: Our name of the model, its profile and its workload.
        groups: What is different in each group of workers.
        policies: Who decides what, where it is not one worker.
        shares: Whether prompts are found in the prefix cache.
    """

    name: str
    device: str
    model: tuple[str, str, str] = _LLAMA
    groups: tuple[dict[str, Any], ...] = ({},)
    policies: dict[str, str] = attrs.Factory(dict)
    shares: bool = False


_RUNS = (
    _Run("MD", "2 x RTX A6000", groups=({"count": 2},), policies=_ROUND_ROBIN),
    _Run("SD+PC", "RTX A6000", shares=True),
    _Run("PDD", "RTX A6000 + RTX A6000", groups=({"name": "prefill"}, {"name": "decode"}), policies=_DISAGGREGATED),
    _Run("SM", "RTX A6000", model=_PHI),
)
"""Two instances, prefix cache, prefill and decode apart, a mixture of experts."""


def ispass_cases(data: Path, overheads: Mapping[str, Any] = OVERHEADS) -> Iterator[Case | Gap]:
    """Yield the A6000 series of a folder of LLMServingSim's data.

    Args:
        data: The folder.
        overheads: What the engine adds to its kernels.
    """
    figure = data / "dev/ispass26_real/figure_5/A6000"
    for run in _RUNS:
        model, profile, workload = run.model
        requests = _requests(data / f"dev/ispass26_real/workloads/sharegpt_req300_rate10_{workload}.csv.gz", run.shares)
        real = _series(figure / f"reference/{run.name}_throughput.tsv", requests[0][0])
        tables = data / f"calib/v0_profiler/A6000/{profile}/tp1"
        timing = {"model": "kernels", "path": str(tables), "overheads": dict(overheads)}
        scenario = _scenario(run, model, requests, timing)
        yield Case("ispass26_real", model, run.device, scenario, [Part(run.name, real)])
    yield Gap("ispass26_real", "server power (figure 6)", "of a server, idle cards, CPU and fans included")


def _requests(path: Path, shares: bool) -> list[Request]:
    """Read a workload; with ``shares``, each request begins as the latest before it that is long enough."""
    chains: list[list[int]] = []
    requests: list[Request] = []
    for row in pl.read_csv(path).iter_rows(named=True):
        prompt, output, seen = row["input_toks"], row["output_toks"], row["prefix_hit_toks_inf_cache"] // 16
        shared = next((chain[:seen] for chain in reversed(chains) if len(chain) >= seen), [])
        own = range(len(shared), (prompt + output) // 16)
        chains.append([*shared, *(1_000 * len(chains) + block for block in own)])
        requests.append((row["arrival_time_ns"] / 1e9, prompt, output, chains[-1] if shares else []))
    return requests


def _series(path: Path, first_s: float) -> RunLog:
    """Read a series; the log counts from the first arrival."""
    table = pl.read_csv(path, separator="\t").filter(pl.col("time_s") > 0)
    ends, tokens = table["time_s"].to_numpy() - first_s, table["throughput"].to_numpy().astype(float)
    series = TokenSeries.of_rates(ends - 1, ends, tokens, grid_s=-first_s)
    makespan = float(ends[np.flatnonzero(tokens)[-1]])
    return RunLog.of_columns(path.stem, {}, tokens=series, reported={("makespan", ""): makespan})


def _scenario(
    run: _Run, model: str, requests: list[Request], timing: dict[str, Any]
) -> Callable[[Path], dict[str, Any]]:
    def scenario(folder: Path) -> dict[str, Any]:
        one = timed(scenario_of(model, "rtx-a6000-48gb", write_trace(folder, requests)), timing)
        workers = [{**one["workers"][0], **group} for group in run.groups]
        policies = {**one["policies"], **run.policies}
        return {**one, "workers": workers, "policies": policies, "network": {"bandwidth_gb_s": 112}}

    return scenario
