"""``simloop compare``: a run beside a real one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simloop.cli.console import say, stdout
from simloop.errors import InputError

if TYPE_CHECKING:
    from simloop.explore import RunLog

__all__ = ["compare"]

_EXAMPLES = """Examples:

- `simloop compare results vllm-bench.json`
- `simloop compare my.yaml bench/Llama-3.1-8B --plot compare.html`
- `simloop compare results log.csv.gz --columns arrival_us=t,ttft_s=first,e2e_s=total`
"""


def compare(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A folder that `simloop run --out` wrote, or a scenario to simulate.")
    ],
    real: Annotated[
        Path,
        typer.Argument(
            metavar="REAL",
            help="A result of `vllm bench serve`, a bench folder, a table of requests (CSV, JSON Lines, Parquet), "
            "or another run's folder.",
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            metavar="KEY=COLUMN,...",
            help="What the columns of a table are: `id`, `input_tokens`, `output_tokens`, `failed`, and `arrival`, "
            "`first_token`, `finish`, `ttft`, `tpot`, `e2e` with `_s`, `_ms`, `_us` or `_ns`.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw both into a `.png` or `.html` file.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="PATH=VALUE", help="Change one key of the scenario. Can be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Hold a run to a real one: latencies, throughput, and the error of each, of requests and of seconds."""
    from simloop.explore import compare as compare_runs
    from simloop.explore import real_run
    from simloop.explore.columns import parse_columns
    from simloop.explore.plots import check_plot

    if plot is not None:
        check_plot(plot)
    held_to = real_run(real, columns=None if columns is None else parse_columns(columns))
    comparison = compare_runs(_read_or_simulate(run, overrides or [], quiet=quiet), held_to)
    if plot is not None:
        comparison.plot(plot)
    if as_json:
        import json

        typer.echo(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        stdout().print(comparison.table())


compare.__doc__ = f"{compare.__doc__}\n\n{_EXAMPLES}"


def _read_or_simulate(run: str, overrides: list[str], *, quiet: bool) -> RunLog:
    from simloop import Interrupted, simulate
    from simloop.cli.progress import progress_bar
    from simloop.explore import RunLog, real_run
    from simloop.explore.real_run import is_run_folder
    from simloop.scenario import load_scenario

    if is_run_folder(run):
        if overrides:
            raise InputError("has no effect on a run that is over; name its scenario instead", file="--set")
        return real_run(run)
    if Path(run).is_dir():
        raise InputError("found a folder without requests.parquet, expected one of simloop run --out", file=run)
    with progress_bar(wanted=not quiet) as progress:
        try:
            result = simulate(load_scenario(run, overrides=overrides), progress=progress)
        except Interrupted as stopped:
            result = stopped.result
    if not result.complete:
        say(f"the run is partial: {result.reason}", label="warning", colour="yellow")
    return RunLog.of_result(result, name=run)
