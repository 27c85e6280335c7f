"""Hold simloop to every real run that it can model, and write down every error.

    python -m tests.benchmarks.accuracy [--write] [--all] [TEXT ...]

Data are read from the folder that SIMLOOP_DATA names, or from ``shared/data`` beside the checkout. TEXT limits the runs
to the sources and models that contain it. With --write the tables replace those of docs/explanation/accuracy.md. Of the
largest sources one run in several is simulated; with --all, every one.
"""

from __future__ import annotations

import math
import os
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import attrs
import numpy as np
import polars as pl

from simloop import Result, load_scenario, simulate
from simloop.explore import Comparison, RunLog, compare
from simloop.explore.comparison import Figure
from simloop.explore.run_log import LATENCIES, STATISTICS
from simloop.explore.table import TITLES
from tests.benchmarks.cases import Case, Gap, Part
from tests.benchmarks.real_runs import all_cases

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("SIMLOOP_DATA", ROOT.parent / "shared" / "data"))
PAGE = ROOT / "docs" / "explanation" / "accuracy.md"
_GRID = (("TTFT", "ttft", "mean"), ("TPOT", "tpot", "mean"), ("latency", "e2e", "mean"), ("makespan", "makespan", ""))
_MOST_BATCHES = 8
"""Columns of a grid; batch sizes beyond the most frequent ones share one."""
BEGIN, END = "<!-- tables: python -m tests.benchmarks.accuracy --write -->", "<!-- end of tables -->"


@attrs.frozen
class Outcome:
    """One part of one run, simulated and compared; the logs themselves are not kept, there are hundreds of them.

    Attributes:
        case: The run.
        part: What was measured of it.
        by: What predicted it.
        figures: What both have, by metric and statistic.
        per_request: Mean absolute error request by request, by metric.
        wape: Of output tokens by second.
    """

    case: Case
    part: Part
    by: str
    figures: Mapping[tuple[str, str], Figure]
    per_request: Mapping[str, float]
    wape: float | None

    @classmethod
    def of(cls, case: Case, part: Part, by: str, comparison: Comparison) -> Outcome:
        """Keep of a comparison what the tables say."""
        figures = {(one.metric, one.statistic): one for one in comparison.figures}
        return cls(case, part, by, figures, comparison.per_request, comparison.throughput_wape)

    def error(self, metric: str, statistic: str = "") -> float | None:
        """Return the error of one figure, if both have it."""
        figure = self.figures.get((metric, statistic))
        return None if figure is None else figure.error

    @property
    def label(self) -> tuple[str, str]:
        """What ran where, and which run it is."""
        by = "" if self.by == "simloop" else f", {self.by}"
        return f"{self.case.model}, {self.case.device}", f"{self.part.name}{by.removeprefix(', simloop')}"


def main() -> None:
    """Run what there is, print the tables or write them into the page."""
    if not DATA.is_dir():
        print(f"there is no folder {str(DATA)!r}; name the one with the data in SIMLOOP_DATA", file=sys.stderr)
        sys.exit(2)
    texts = [argument for argument in sys.argv[1:] if argument not in ("--write", "--all")]
    outcomes: list[Outcome] = []
    gaps: list[Gap] = []
    for one in all_cases(DATA, everything="--all" in sys.argv):
        if not all(text in f"{one.source} {getattr(one, 'model', '')}" for text in texts):
            continue
        if isinstance(one, Gap):
            gaps.append(one)
        else:
            print(f"{one.source}: {one.model} on {one.device}, {one.parts[0].name}", file=sys.stderr)
            outcomes += outcomes_of(one)
    if not outcomes and not gaps:
        print(f"{str(DATA)!r} holds no run that matches", file=sys.stderr)
        sys.exit(2)
    text = "\n".join(tables(outcomes, gaps))
    if "--write" not in sys.argv:
        print(text)
        return
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def outcomes_of(case: Case) -> Iterator[Outcome]:
    """Simulate a run once and compare each of its parts."""
    with tempfile.TemporaryDirectory() as folder:
        result = simulate(load_scenario(case.scenario(Path(folder))))
    log = as_stamped(result) if case.stamped else RunLog.of_result(result)
    for part in case.parts:
        for by, run_log in {case.by: log, **case.theirs}.items():
            yield Outcome.of(case, part, by, compare(arrived_in(run_log, part), part.real))


def as_stamped(result: Result) -> RunLog:
    """Return the log of a simulation as vLLM stamps it: a request arrives when the engine reads its queue.

    With asynchronous scheduling that is when the next iteration begins, which is when the one before it ends.
    """
    log, ends = RunLog.of_result(result), np.frombuffer(result.step_ends[0], dtype=np.int64) / 1e9
    sent = result.requests["arrival_s"].to_numpy()
    scheduled = result.requests["scheduled_s"].to_numpy()
    following = np.append(ends, np.inf)[np.searchsorted(ends, sent)]
    late = np.minimum(following, scheduled) - sent
    requests = log.requests.with_columns(
        pl.col("arrival_s") + late, pl.col("ttft_s") - late, pl.col("e2e_s") - late
    ).with_columns(pl.col("arrival_s") - pl.col("arrival_s").min())
    return attrs.evolve(log, requests=requests)


def arrived_in(log: RunLog, part: Part) -> RunLog:
    """Return the requests of a part; tokens over time only if that is all of them."""
    inside = log.requests.filter(pl.col("arrival_s") >= part.from_s, pl.col("arrival_s") < part.until_s)
    return log if len(inside) == len(log.requests) else attrs.evolve(log, requests=inside, tokens=None)


def tables(outcomes: list[Outcome], gaps: list[Gap]) -> Iterator[str]:
    """Yield the lines of the generated part of the page."""
    yield "### Summary\n"
    yield from summary(outcomes)
    for source in dict.fromkeys(one.case.source for one in outcomes):
        chosen = [one for one in outcomes if one.case.source == source]
        yield f"### {title(source)}\n"
        yield from latency_rows([one for one in chosen if one.part.batch is None])
        yield from total_rows([one for one in chosen if one.part.batch is None])
        yield from batch_rows([one for one in chosen if one.part.batch is not None])
    if gaps:
        yield "### Not modelled yet\n"
        yield from table(["data", "runs", "what is missing"], [[title(one.source), one.what, one.why] for one in gaps])


def summary(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the median absolute error of every metric over whole runs, by source and by what predicted them."""
    heads = ["data", "predicted by", "runs", *(f"{TITLES[name]} mean" for name in LATENCIES), "makespan", "WAPE"]
    whole = {
        (id(one.case), one.by, None if one.part.batch is None else id(one.part)): one
        for one in outcomes
        if one.part.from_s == 0 and one.part.until_s == math.inf
    }
    rows = []
    for source, by in dict.fromkeys((one.case.source, one.by) for one in outcomes):
        chosen = [one for one in whole.values() if (one.case.source, one.by) == (source, by)]
        means = [median(one.error(metric, "mean") for one in chosen) for metric in LATENCIES]
        totals = [median(one.error("makespan") for one in chosen), median(one.wape for one in chosen)]
        rows.append([title(source), by, str(len(chosen)), *means, *totals])
    return table(heads, rows)


def latency_rows(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the errors of all latencies, signed, in percent."""
    rows = []
    for one in outcomes:
        for metric in LATENCIES:
            errors = [one.error(metric, statistic) for statistic in STATISTICS]
            if any(value is not None for value in errors):
                each = percent(one.per_request.get(metric), signed=False)
                rows.append([*one.label, TITLES[metric], *map(percent, errors), each])
    return table(["model, device", "run", "metric", *STATISTICS, "per request"], rows)


def total_rows(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the errors of makespan, throughput and tokens per second, in percent."""
    rows = []
    for one in outcomes:
        errors = [one.error(key) for key in ("makespan", "output_throughput")]
        if ("makespan", "") in one.figures:
            rows.append([*one.label, *map(percent, errors), percent(one.wape, signed=False)])
    return table(["model, device", "run", "makespan", "output tokens/s", "WAPE"], rows)


def batch_rows(outcomes: list[Outcome]) -> Iterator[str]:
    """Yield the errors of a grid by requests at once; a point that was measured twice has two."""
    times = Counter(one.part.batch or 0 for one in outcomes)
    columns = sorted(batch for batch, _ in times.most_common(_MOST_BATCHES))
    cells: dict[tuple[str, ...], dict[int | None, list[str]]] = {}
    for one in outcomes:
        batch = one.part.batch or 0
        for name, metric, statistic in _GRID:
            value = percent(one.error(metric, statistic))
            if value:
                row = cells.setdefault((*one.label, name), {})
                row.setdefault(batch if batch in columns else None, []).append(
                    value if batch in columns else f"{batch}: {value}"
                )
    places: list[int | None] = [*columns, *([None] if len(times) > len(columns) else [])]
    rows = [[*label, *(", ".join(row.get(place, [])) for place in places)] for label, row in cells.items()]
    heads = ["others" if place is None else f"{place} at once" for place in places]
    return table(["model, device", "tokens in + out", "metric", *heads], rows)


def title(source: str) -> str:
    """Return the name of a folder of measurements without what it says of its licence."""
    return source.removesuffix("_NOLICENCE")


def median(errors: Iterable[float | None]) -> str:
    """Write the median of absolute errors."""
    known = [abs(one) for one in errors if one is not None]
    return percent(statistics.median(known), signed=False) if known else ""


def percent(value: float | None, *, signed: bool = True) -> str:
    """Write a share as a percentage with one digit; nothing for ``None``."""
    return "" if value is None else f"{value * 100:{'+' if signed else ''}.1f}"


def table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a table, and a blank one; nothing if it has no rows."""
    if rows:
        yield f"| {' | '.join(heads)} |"
        yield f"|{'---|' * len(heads)}"
        yield from (f"| {' | '.join(row)} |" for row in rows)
        yield ""


if __name__ == "__main__":
    main()
