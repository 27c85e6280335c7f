"""``simloop schema``: the JSON Schema of scenario files."""

from __future__ import annotations

import typer

__all__ = ["schema"]


def schema() -> None:
    """Print the JSON Schema of scenario files (draft 2020-12), for editors to complete and check keys with.

    Works offline: `simloop schema > scenario.schema.json`, then put this line at the top of a scenario beside it:

    `# yaml-language-server: $schema=scenario.schema.json`
    """
    import json

    from simloop.scenario.schema import scenario_schema

    typer.echo(json.dumps(scenario_schema(), indent=2))
