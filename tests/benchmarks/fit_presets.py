"""Fit the bundled presets: quantile tables of real requests, and how far they are from them.

Run by hand, with a folder that holds the published files (see ``SOURCES`` for their names and where they come from)::

    python tests/benchmarks/fit_presets.py TRACES [--out simloop/workload/presets]

It writes one JSON file for each preset. Only quantiles of the data go into it, never rows of it.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from simloop.workload import LengthSpec, Lognormal, TraceSpec
from simloop.workload.lengths import synthetic_lengths
from simloop.workload.preset import Fit, Preset, Side, Source, Tables
from simloop.workload.quantiles import JointQuantiles, Quantiles
from simloop.workload.streams import CHUNK
from simloop.workload.trace import open_trace

Floats: TypeAlias = npt.NDArray[np.float64]

SAMPLE = 1_000_000
"""Requests drawn from a preset to tell how far it is from its source."""

OUTPUT_ROWS = 16
"""Groups of requests by rank of their input length, each with output quantiles of its own."""

OUT = Path(__file__).resolve().parents[2] / "simloop" / "workload" / "presets"

AZURE = "Azure Public Dataset, LLM inference traces 2023 (Splitwise, ISCA 2024)"
ARXIV = "vidur/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz"
AZURE_URL = "https://github.com/Azure/AzurePublicDataset"

SOURCES: dict[str, tuple[str, Source]] = {
    "azure-conv-2023": (
        "Conversation requests of an Azure LLM service, one hour of 16 November 2023",
        Source(
            dataset=AZURE,
            url=AZURE_URL,
            licence="CC-BY Attribution",
            file="azure2023/AzureLLMInferenceTrace_conv.csv.gz",
        ),
    ),
    "azure-code-2023": (
        "Code completion requests of an Azure LLM service, one hour of 16 November 2023",
        Source(
            dataset=AZURE,
            url=AZURE_URL,
            licence="CC-BY Attribution",
            file="azure2023/AzureLLMInferenceTrace_code.csv.gz",
        ),
    ),
    "mooncake-conversation": (
        "Conversation requests of Kimi, one hour, long contexts",
        Source(
            dataset="Mooncake traces (FAST 2025)",
            url="https://github.com/kvcache-ai/Mooncake",
            licence="Apache-2.0",
            file="mooncake/conversation_trace.jsonl.gz",
        ),
    ),
    "arxiv-summarization": (
        "Summarising arXiv papers: long inputs, short outputs, at most 4,096 tokens together",
        Source(
            dataset="arXiv summarisation lengths (Llama 2 tokenizer) as prepared by Vidur (MLSys 2024)",
            url="https://github.com/microsoft/vidur",
            licence="MIT",
            file=ARXIV,
        ),
    ),
}


def levels(steps: int, tail: Sequence[float] = ()) -> list[float]:
    """Return ``steps`` equal steps from 0 to 1, and some more near both ends, where lengths are far apart."""
    return sorted({round(k / steps, 6) for k in range(steps + 1)} | set(tail))


def quantiles(values: Floats, at: Sequence[float]) -> Floats:
    """Return values of the data themselves: the smallest one that is at least as large as that share of them."""
    return np.quantile(values, at, method="inverted_cdf")


def ks_distance(real: Floats, sample: Floats) -> float:
    """Return the largest difference between two empirical distributions."""
    values = np.unique(np.concatenate([real, sample]))
    shares = [np.searchsorted(np.sort(one), values, side="right") / len(one) for one in (real, sample)]
    return float(np.max(np.abs(shares[0] - shares[1])))


def ranks(values: Floats) -> Floats:
    """Return ranks, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]


def rank_correlation(one: Floats, other: Floats) -> float:
    """Return Spearman's coefficient."""
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


INPUT_LEVELS = levels(100, [0.001, 0.005, 0.995, 0.998, 0.999, 0.9995, 0.9998, 0.9999])
GAP_LEVELS = levels(
    160, [0.001, *(1 - share for share in (0.005, 0.004, 0.003, 0.0025, 0.002, 0.0015, 0.001, 0.0005, 0.0002))]
)
OUTPUT_LEVELS = levels(40, [0.005, 0.01, 0.99, 0.995, 0.998])


def fit_tables(prompt: Floats, output: Floats, gaps_s: Floats | None) -> Tables:
    """Return the quantile tables of one source.

    Requests are put in order of their input length (equal ones in order of arrival) and cut into groups of equal
    size; each has its own output quantiles. That keeps both distributions, and how they depend on each other.
    """
    groups = np.array_split(output[np.argsort(prompt, kind="stable")], OUTPUT_ROWS)
    return Tables(
        levels=INPUT_LEVELS,
        input=quantiles(prompt, INPUT_LEVELS).tolist(),
        output_levels=OUTPUT_LEVELS,
        output=[quantiles(group, OUTPUT_LEVELS).tolist() for group in groups],
        max_total=int((prompt + output).max()),
        gap_levels=[] if gaps_s is None else GAP_LEVELS,
        gaps_s=[] if gaps_s is None else [float(f"{gap:.4g}") for gap in quantiles(gaps_s, GAP_LEVELS)],
    )


def measure_fit(tables: Tables, prompt: Floats, output: Floats, gaps_s: Floats | None) -> Fit:
    """Return how far a large sample is from the source."""
    rng = np.random.default_rng(0)
    drawn_prompt, drawn_output = JointQuantiles(tables).draw(rng.random(SAMPLE), rng.random(SAMPLE))
    gaps = None if gaps_s is None else Quantiles(tables.gap_levels, tables.gaps_s).draw(rng.random(SAMPLE))
    return Fit(
        sample=SAMPLE,
        input_ks=round(ks_distance(prompt, drawn_prompt), 4),
        output_ks=round(ks_distance(output, drawn_output), 4),
        input_mean_error=round(float(drawn_prompt.mean() / prompt.mean() - 1), 4),
        output_mean_error=round(float(drawn_output.mean() / output.mean() - 1), 4),
        rank_correlation=round(rank_correlation(drawn_prompt, drawn_output), 4),
        gap_ks=None if gaps is None or gaps_s is None else round(ks_distance(gaps_s, gaps), 4),
        rate_error=None if gaps is None or gaps_s is None else round(float(gaps_s.mean() / gaps.mean() - 1), 4),
    )


def describe_side(lengths: Floats) -> Side:
    """Return the statistics of one side of the source."""
    p50, p90, p99 = quantiles(lengths, [0.5, 0.9, 0.99]).tolist()
    return Side(
        mean=round(float(lengths.mean()), 2), p50=p50, p90=p90, p99=p99, min=int(lengths.min()), max=int(lengths.max())
    )


def fit(name: str, folder: Path) -> Preset:
    """Read one source and fit its preset."""
    title, source = SOURCES[name]
    path = folder / str(source.file)
    trace = open_trace(TraceSpec(path=str(path)), None, times=source.file != ARXIV)
    rows = np.array([arrival[:3] for arrival in trace.arrivals()], dtype=np.float64)
    times, prompt, output = rows.T
    gaps_s = None if source.file == ARXIV else np.diff(times) / 1e9
    tables = fit_tables(prompt, output, gaps_s)
    return Preset(
        name=name,
        title=title,
        source=msgspec.structs.replace(source, rows=len(rows)),
        input=describe_side(prompt),
        output=describe_side(output),
        rank_correlation=round(rank_correlation(prompt, output), 4),
        rate=None if gaps_s is None else round(float(1 / gaps_s.mean()), 4),
        gap_cv=None if gaps_s is None else round(float(gaps_s.std() / gaps_s.mean()), 4),
        fit=measure_fit(tables, prompt, output, gaps_s),
        tables=tables,
    )


def clipped_mean(spec: Lognormal) -> float:
    """Return the mean of a log-normal length after what lies outside min and max was moved to them."""
    sigma = math.sqrt(math.log1p((spec.std / spec.mean) ** 2))
    mu = math.log(spec.mean) - sigma**2 / 2

    def below(limit: float, shift: float = 0.0) -> float:
        return (1 + math.erf(((math.log(limit) - mu) / sigma - shift) / math.sqrt(2))) / 2

    most = float(spec.max or math.inf)
    inside = spec.mean * (below(most, sigma) - below(spec.min, sigma))
    return spec.min * below(spec.min) + inside + most * (1 - below(most))


def lognormal_with_mean(mean: float, variation: float, least: int, most: int) -> Lognormal:
    """Return the log-normal lengths between two limits that have a given mean, by bisection."""
    low, high = mean / 2, mean * 2
    for _ in range(60):
        middle = (low + high) / 2
        spec = Lognormal(mean=middle, std=variation * middle, min=least, max=most)
        low, high = (middle, high) if clipped_mean(spec) < mean else (low, middle)
    return Lognormal(mean=round(low, 2), std=round(low * variation, 2), min=least, max=most)


def sharegpt() -> Preset:
    """Build the preset that rests on published means."""
    published = {"input": 161.31, "output": 337.99}
    lengths = LengthSpec(
        input=lognormal_with_mean(published["input"], 1.5, 4, 1024),
        output=lognormal_with_mean(published["output"], 0.8, 4, 1024),
    )
    chunks = islice(synthetic_lengths(lengths, 0), SAMPLE // CHUNK)
    prompt, output = (np.concatenate(side) for side in zip(*chunks, strict=True))
    return Preset(
        name="sharegpt",
        title="Conversations with ChatGPT that users shared: published means, assumed shapes",
        source=Source(
            dataset="ShareGPT as used in Kwon et al., Efficient Memory Management for LLM Serving with PagedAttention",
            url="https://arxiv.org/abs/2309.06180",
            licence="no data used, two published means only",
            published="mean input 161.31 and mean output 337.99 tokens (SOSP 2023, figure 11)",
            assumed=(
                "log-normal shapes with a coefficient of variation of 1.5 (input) and 0.8 (output); 4 to 1,024 tokens "
                "a side, after the limits of vLLM's ShareGPT benchmark (at least 4, input at most 1,024, together at "
                "most 2,048); the mean after these limits is the published one; input and output independent"
            ),
        ),
        input=Side(mean=published["input"]),
        output=Side(mean=published["output"]),
        fit=Fit(
            sample=len(prompt),
            input_mean_error=round(float(prompt.mean()) / published["input"] - 1, 4),
            output_mean_error=round(float(output.mean()) / published["output"] - 1, 4),
        ),
        lengths=lengths,
    )


def write(preset: Preset, folder: Path) -> None:
    """Write a preset as JSON with one line for each fact and each row of a table."""
    path = folder / f"{preset.name}.json"
    path.write_text(dump(msgspec.to_builtins(preset)) + "\n", encoding="utf-8")
    print(f"{path.name}, {path.stat().st_size:,} bytes\n{preset.describe()}\n")


def dump(value: Any, indent: str = "") -> str:
    """Return JSON: a mapping over several lines, a list of numbers on one; what is not known is left out."""
    if isinstance(value, dict):
        inner = indent + "  "
        items = [
            f"{inner}{json.dumps(key)}: {dump(item, inner)}" for key, item in value.items() if item not in (None, [])
        ]
        return "{\n" + ",\n".join(items) + "\n" + indent + "}"
    if isinstance(value, list) and isinstance(value[0], list):
        rows = ",\n".join(f"{indent}  {dump(row)}" for row in value)
        return f"[\n{rows}\n{indent}]"
    if isinstance(value, list):
        return f"[{','.join(f'{item:g}' if item < 1e5 else str(int(item)) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)


def main() -> None:
    """Fit all presets, or those that were named."""
    parser = argparse.ArgumentParser(description="Fit the bundled presets.")
    parser.add_argument("traces", type=Path, help="folder with the published files")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        write(fit(name, arguments.traces), arguments.out)
    write(sharegpt(), arguments.out)


if __name__ == "__main__":
    main()
