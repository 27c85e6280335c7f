"""The ``simloop`` command: thin; each subcommand imports what it needs when it runs."""

from simloop.cli.app import app, main

__all__ = ["app", "main"]
