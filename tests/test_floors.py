"""Each floor of the house imports only from floors below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import simloop

ROOT = Path(simloop.__file__).parent
FLOORS = [
    *("clock", "network", "model", "workload", "hardware", "serving", "metrics", "scenario", "report"),
    *("explore", "testing", "gateway", "cli"),
]
TOP = {"simloop", "_api"}  # the package itself and what it re-exports stand above all floors but the command


def imported_floors(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("simloop."):
            names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("simloop."))
    return names & set(FLOORS)


@pytest.mark.parametrize("floor", [floor for floor in FLOORS if (ROOT / floor).is_dir()])
def test_a_floor_imports_only_downwards(floor: str) -> None:
    allowed = set(FLOORS[: FLOORS.index(floor) + 1])
    above = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in (ROOT / floor).rglob("*.py")
        for name in imported_floors(path) - allowed
    }
    assert not above


def test_policies_use_nothing_that_a_user_could_not() -> None:
    for path in (ROOT.parent / "policies").glob("*.py"):
        assert imported_floors(path) <= {"clock", "serving", "network", "model", "hardware"}, path
