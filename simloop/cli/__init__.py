"""The ``simloop`` command: thin; each subcommand imports what it needs when it runs."""

from simloop.cli.commands import app, main

__all__ = ["app", "main"]
