from __future__ import annotations

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import simloop as package
from simloop.content import content_names
from simloop.serving import policy_names

REFERENCE = Path(package.__file__).resolve().parent.parent / "docs" / "reference"
HEAVY = ("numpy", "polars", "yaml", "msgspec", "structlog", "anyio", "attrs", "simloop.serving")
Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("page", ["cli", "scenario"])
def test_the_reference_is_what_the_program_says(page: str) -> None:
    write = runpy.run_path(str(REFERENCE / "generate.py"))
    written = (REFERENCE / f"{page}.md").read_text(encoding="utf-8")
    assert written == write[f"{page}_page"](), "run: python docs/reference/generate.py"


def test_the_scenario_page_explains_every_key() -> None:
    rows = [
        line for line in (REFERENCE / "scenario.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]
    assert len(rows) > 50
    assert [row for row in rows if row.endswith("|  |")] == []


@pytest.mark.parametrize("command", ["run", "compare", "devices", "models", "policies", "workloads", "schema"])
def test_help_of_every_command(simloop: Command, command: str) -> None:
    status, stdout, _ = simloop(command, "--help")
    assert status == 0
    assert f"simloop {command}" in stdout
    assert max(map(len, stdout.splitlines())) <= 80


def test_help_version_and_nothing_at_all(simloop: Command) -> None:
    assert simloop("--version") == (0, f"simloop {package.__version__}\n", "")
    status, stdout, _ = simloop("--help")
    assert status == 0
    assert "simloop run quickstart" in stdout
    assert simloop()[0] == 0
    assert "Usage: simloop" in simloop()[1]


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; sys.argv = ['simloop', '--help']\n"
        "from simloop.cli import main\n"
        "try: main()\n"
        f"except SystemExit: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_names_that_the_docs_use_exist() -> None:
    assert {"quickstart", "azure-replay"} <= set(content_names("configs"))
    assert "static" in policy_names("schedule")
