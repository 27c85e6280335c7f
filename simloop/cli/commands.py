"""The command's subcommands, and its exit statuses."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from simloop._version import __version__
from simloop.cli import catalog, compare, run, schema
from simloop.cli.console import give_up_stdout, say, write_plainly
from simloop.errors import InputError, SimulationError

__all__ = ["app", "main"]

# typer has carried click inside since 0.20 or so; this is the class of "no such option" and its like, old or new.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]


class _Commands(TyperGroup):
    """Turns the errors that are meant for the user into one line and an exit status."""

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> Any:
        """Run the command line, and leave with its exit status."""
        extra["standalone_mode"] = False
        write_plainly()
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                status = super().main(args=args, prog_name=prog_name, **extra)
            sys.stdout.flush()
        except InputError as error:
            status = _fail(str(error), 2)
        except SimulationError as error:
            status = _fail(str(error), 1)
        except OSError as error:  # a full disk, mostly; what --out names is written by then
            give_up_stdout()
            status = _fail(str(error), 1)
        except _UsageError as error:
            command = error.ctx.command_path if error.ctx else "simloop"
            status = _fail(f"{_plain(error.format_message())} (see '{command} --help')", 2)
        sys.exit(status if isinstance(status, int) else 0)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    """Say simloop's own warnings as it says everything else; those of the user's code keep their place."""
    del file, line
    if category.__module__.startswith("simloop"):
        say(str(message), label="warning", colour="yellow")
    else:
        say(f"{filename}:{lineno}: {category.__name__}: {message}", label="warning", colour="yellow")


def _plain(message: str) -> str:
    """Say what the library of options says as the rest of simloop does."""
    message = message.replace("Value error, ", "")
    return re.sub(r" \((?:Possible options|Did you mean one of): ([^)]*)\)", r"; did you mean \1?", message)


def _fail(message: str, status: int) -> int:
    lines = [line.rstrip() for line in message.strip().splitlines()]
    # What the user gave is wrong in one line; a report of who waits for what keeps its lines.
    say(" ".join(line.strip() for line in lines) if status == 2 else "\n".join(lines))
    return status


app = typer.Typer(
    name="simloop",
    cls=_Commands,
    no_args_is_help=False,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"simloop {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _simloop(
    context: typer.Context,
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Simulate a cluster that serves large language models, on a clock that jumps.

    Start with `simloop run quickstart`; then copy a scenario from `configs/` and change it.

    Exit status: 0 done, 1 the run failed, 2 bad input, 130 or 143 interrupted.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command()(run.run)
app.command()(compare.compare)
app.command()(catalog.devices)
app.command()(catalog.models)
app.command()(catalog.policies)
app.command()(catalog.workloads)
app.command()(schema.schema)


def main() -> None:
    """Run the command; the console script's entry point."""
    app(prog_name="simloop")
