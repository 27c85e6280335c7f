"""The bundled policies, described from their source alone."""

from __future__ import annotations

import ast
from pathlib import Path

import attrs

from simloop.content import content_names, find_content

__all__ = ["ARGUMENTS", "PolicyInfo", "policy_info", "policy_names"]

ARGUMENTS = {"route": 2, "schedule": 1, "control": 1, "hook": 1}
"""How many positional arguments a policy of each kind gets."""


@attrs.frozen
class PolicyInfo:
    """What can be said about a bundled policy without running it; parameters with their defaults, as in its source."""

    name: str
    kinds: tuple[str, ...]
    summary: str
    doc: str
    path: Path
    params: tuple[str, ...]


def policy_names(kind: str | None = None) -> list[str]:
    """Return the names of the bundled policies, of one kind if given."""
    names = content_names("policies")
    return names if kind is None else [name for name in names if kind in policy_info(name).kinds]


def policy_info(name: str) -> PolicyInfo:
    """Describe a bundled policy, from its source alone.

    Raises:
        InputError: No bundled policy has that name.
    """
    path = find_content("policies", name)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    doc = ast.get_docstring(tree) or ""
    tops = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    kinds = tuple(kind for kind in ARGUMENTS if kind in tops)
    params = dict.fromkeys(param for kind in kinds for param in _parameters(tops[kind], kind))
    return PolicyInfo(name, kinds, doc.partition("\n")[0], doc, path, tuple(params))


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, kind: str) -> list[str]:
    """Return the parameters that a scenario may give, as the source has them: ``"short=256"``."""
    if isinstance(node, ast.ClassDef):
        starts = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        if not starts:
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
            named = [_shown(ast.unparse(field.target), field.value) for field in fields]
            return [field for field in named if not field.startswith("_")]
        given, arguments = 1, starts[0].args  # self
    else:
        given, arguments = (ARGUMENTS[kind] if isinstance(node, ast.AsyncFunctionDef) else 0), node.args
    ordered = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(ordered) - len(arguments.defaults)) + arguments.defaults
    pairs = [*zip(ordered, defaults, strict=True)][given:]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [_shown(argument.arg, default) for argument, default in pairs]


def _shown(name: str, default: ast.expr | None) -> str:
    return name if default is None else f"{name}={ast.unparse(default)}"
