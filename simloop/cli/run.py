"""``simloop run``: simulate one scenario."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from simloop.cli.console import say, stdout
from simloop.cli.logs import LogLevel, configure_logs
from simloop.errors import InputError

if TYPE_CHECKING:
    from simloop import Progress, Result, Scenario
    from simloop._stop import Stop

__all__ = ["run"]


def _seed(text: str) -> int:
    return _whole_number(text, least=0)


def _requests(text: str) -> int:
    return _whole_number(text, least=1)


def _whole_number(text: str, *, least: int) -> int:
    if not text.isdecimal() or len(text) > 18 or int(text) < least:
        raise typer.BadParameter(f"found {text!r}, expected a whole number >= {least}")
    return int(text)


_EXAMPLES = """Examples:

- `simloop run quickstart`
- `simloop run my.yaml --out results --set workers[0].count=4`
- `simloop run quickstart --set policies.schedule=static --requests 500 --json`
"""


def run(
    scenario: Annotated[
        str, typer.Argument(metavar="SCENARIO", help="A scenario file (YAML, JSON, TOML), or a bundled one's name.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Write summary, tables and scenario there.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", metavar="PATH=VALUE", help="Change one key: `workload.arrivals.rate=4`. Can be repeated."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", parser=_seed, help="The seed, instead of the scenario's.")
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option("--requests", "-n", metavar="N", parser=_requests, help="How many, instead of the scenario's."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check invariants after every iteration (slow).")] = False,
    explain_memory: Annotated[
        bool, typer.Option("--explain-memory", help="Say on stderr how each group's memory is shared out.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary alone, as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar, no table.")] = False,
    log_level: Annotated[
        LogLevel | None,
        typer.Option(
            "--log-level",
            metavar="LEVEL",
            help="Log `debug`, `info`, `warning` or `error` to stderr.",
        ),
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log JSON lines, not text.")] = False,
) -> None:
    """Simulate a scenario: a progress bar while it runs, then a table of what happened."""
    from simloop._stop import Stop
    from simloop.report import check_out_dir
    from simloop.scenario import load_scenario

    if log_json and log_level is None:
        raise InputError("has no effect without --log-level", file="--log-json")
    configure_logs(log_level, as_json=log_json)
    changes = list(overrides or ())
    changes += [
        f"{key}={value}" for key, value in {"seed": seed, "workload.requests": requests}.items() if value is not None
    ]
    with Stop() as stop:  # until all is delivered
        try:
            loaded = load_scenario(scenario, overrides=changes)
            if out is not None:
                check_out_dir(out)
            if explain_memory:
                _explain_memory(loaded)
            result = _simulate(loaded, stop, check=check, bar=not quiet, logged=log_level is not None)
            _deliver(result, out, as_json=as_json, quiet=quiet)
        except KeyboardInterrupt:
            say("interrupted: there are no results", label="warning", colour="yellow")
    # As shells have it, 128 and the signal's number.
    raise typer.Exit(0 if stop.signal is None else 128 + stop.signal)


run.__doc__ = f"{run.__doc__}\n\n{_EXAMPLES}"


def _explain_memory(scenario: Scenario) -> None:
    from simloop.scenario.build import memory_plans

    for name, plan in memory_plans(scenario).items():
        typer.echo(f"{name}\n{plan}\n", err=True)


def _simulate(scenario: Scenario, stop: Stop, *, check: bool, bar: bool, logged: bool) -> Result:
    from simloop._api import simulate_until_stopped
    from simloop.cli.progress import progress_bar

    if logged:  # a bar would tear the lines
        return _logged(lambda tell: simulate_until_stopped(scenario, stop, progress=tell, check=check))
    with progress_bar(wanted=bar) as progress:
        return simulate_until_stopped(scenario, stop, progress=progress, check=check)


def _logged(start: Callable[[Callable[[Progress], None]], Result]) -> Result:
    """Run, and log how it goes: the ends at ``info``, what is between at ``debug``, what is amiss at ``warning``."""
    import structlog

    log = structlog.get_logger()
    log.info("started")
    result = start(lambda now: log.debug("progress", finished=now.finished, running=now.running, waiting=now.waiting))
    summary = result.summary()
    for count, reasons in (("rejected", "rejected_reasons"), ("failed", "failed_reasons")):
        if summary[count]:
            log.warning(count, requests=summary[count], reasons=summary[reasons])
    log.info("ended", t=result.end_ns / 1e9, completed=summary["completed"], of=summary["num_prompts"])
    return result


def _deliver(result: Result, out: Path | None, *, as_json: bool, quiet: bool) -> None:
    """Write what was asked for: the folder first, since a closed pipe may end the rest."""
    if out is not None:
        from simloop.report import write_run

        write_run(result, out)
    if as_json:
        import json

        typer.echo(json.dumps(result.summary(), indent=2, ensure_ascii=False, allow_nan=False))
    elif not quiet:
        from simloop.report import summary_table

        stdout().print(summary_table(result))
    if not result.complete:
        say(f"the run is partial: {result.reason}", label="warning", colour="yellow")
