"""Finding policies: a policy is a plain async function in a file.

It is named by ``file.py:function``, ``package.module:function``, a bundled name, or an entry point of the group
``simloop.policies``. What the name stands for may be

- an ``async def``: used as it is; the scenario's parameters become keyword arguments;
- a class with an async ``__call__``, or a plain function that returns an async one: called with the scenario's
  parameters, once for each worker (``schedule``) or once for the cluster, so that it can keep state.
"""

from __future__ import annotations

import ast
import dis
import functools
import importlib
import importlib.util
import inspect
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import attrs

from simloop.content import content_names, find_content
from simloop.errors import InputError, did_you_mean

__all__ = [
    "ARGUMENTS",
    "PolicyInfo",
    "PolicySource",
    "load_policy",
    "never_suspends",
    "policy_info",
    "policy_names",
    "where_raised",
]

ARGUMENTS = {"route": 2, "schedule": 1, "control": 1, "hook": 1}
"""How many positional arguments a policy of each kind gets."""

_SUSPENDING = {"GET_AWAITABLE", "GET_AITER", "GET_ANEXT", "SEND", "YIELD_VALUE", "BEFORE_ASYNC_WITH", "YIELD_FROM"}


@attrs.frozen
class PolicySource:
    """A policy that was found, from which instances can be made.

    Attributes:
        name: The name it was asked for by.
        kind: ``route``, ``schedule``, ``control`` or ``hook``.
        target: The async function, class or factory.
        params: The scenario's parameters for it.
    """

    name: str
    kind: str
    target: Callable[..., Any]
    params: Mapping[str, Any]

    def make(self) -> Callable[..., Any]:
        """Return an async callable; a fresh one, with fresh state, where the policy keeps state."""
        if inspect.iscoroutinefunction(self.target):
            return functools.partial(self.target, **self.params) if self.params else self.target
        made = self.target(**self.params)
        if not inspect.iscoroutinefunction(made) and not inspect.iscoroutinefunction(type(made).__call__):
            raise InputError(f"policy {self.name!r} is not async: it must be an 'async def', or make one when called")
        return made  # type: ignore[no-any-return]


@attrs.frozen
class PolicyInfo:
    """What can be said about a bundled policy without running it."""

    name: str
    kinds: tuple[str, ...]
    summary: str
    doc: str
    path: Path
    params: tuple[str, ...]


def load_policy(
    name: str, kind: str, *, params: Mapping[str, Any] | None = None, base_dir: Path | None = None
) -> PolicySource:
    """Find a policy by its name.

    Args:
        name: See the module's text.
        kind: ``route``, ``schedule``, ``control`` or ``hook``; also the function's name where none is given.
        params: Parameters from the scenario.
        base_dir: What relative file names are relative to; the working directory if not given.

    Raises:
        InputError: There is no such policy, it is of another kind, or it does not take these parameters.
    """
    target = _find(name, kind, base_dir or Path())
    source = PolicySource(name, kind, target, dict(params or {}))
    _check_signature(source)
    return source


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
    params = tuple(param for kind in kinds for param in _parameters(tops[kind]))
    return PolicyInfo(name, kinds, doc.partition("\n")[0], doc, path, params)


def where_raised(error: BaseException) -> str:
    """Return ``" at file.py:12"``, the innermost place outside of simloop that an error comes from, or nothing."""
    package = Path(__file__).resolve().parents[1]
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if package not in Path(frame.filename).parents
    ]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def never_suspends(call: Callable[..., Any]) -> bool:
    """Return whether an async callable contains no ``await`` at all, so that it can be run without a task."""
    function = call.func if isinstance(call, functools.partial) else call
    if not inspect.isfunction(function):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return isinstance(code, CodeType) and not any(i.opname in _SUSPENDING for i in dis.get_instructions(code))


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[str]:
    if isinstance(node, ast.ClassDef):
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
        named = [n.target.id for n in fields if isinstance(n.target, ast.Name)]
        return [field for field in named if not field.startswith("_")]
    arguments = (
        node.args.kwonlyargs if isinstance(node, ast.AsyncFunctionDef) else node.args.args + node.args.kwonlyargs
    )
    return [argument.arg for argument in arguments]


def _find(name: str, kind: str, base_dir: Path) -> Callable[..., Any]:
    place, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    if place.endswith(".py"):
        module = _load_file(_resolve(place, base_dir, name))
    elif attribute:
        module = _import(place, name)
    else:
        if name in _installed():
            return _installed()[name].load()  # type: ignore[no-any-return]
        module = _load_file(_bundled(name, kind))
    return _attribute(module, attribute or kind, name, kind)


@functools.cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="simloop.policies")}


def _bundled(name: str, kind: str) -> Path:
    if name in content_names("policies") and kind not in policy_info(name).kinds:
        kinds = " and ".join(policy_info(name).kinds)
        raise InputError(
            f"policy {name!r} is for {kinds}, not for {kind} ({kind} policies: {', '.join(policy_names(kind))})"
        )
    if name not in content_names("policies"):
        names = policy_names(kind)
        bundled = f"bundled: {', '.join(names)}; " if names else ""
        raise InputError(
            f"no {kind} policy is called {name!r}{did_you_mean(name, names)} "
            f"({bundled}your own: file.py:function or package.module:function)"
        )
    return find_content("policies", name)


def _resolve(place: str, base_dir: Path, name: str) -> Path:
    for path in (base_dir / place, Path(place)):
        if path.is_file():
            return path.resolve()
    raise InputError(f"policy {name!r}: there is no file {str(base_dir / place)!r}")


@functools.cache
def _load_file(path: Path) -> ModuleType:
    module_name = f"simloop_policy_{path.stem}_{abs(hash(str(path))):x}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"syntax error: {error.msg}", file=path, path=f"line {error.lineno}") from error
    except Exception as error:
        raise InputError(f"could not be imported: {type(error).__name__}: {error}", file=path) from error
    return module


def _import(place: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise InputError(f"policy {name!r}: module {place!r} could not be imported: {error}") from error


def _attribute(module: ModuleType, attribute: str, name: str, kind: str) -> Callable[..., Any]:
    target = getattr(module, attribute, None)
    if callable(target):
        return target  # type: ignore[no-any-return]
    there = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
    raise InputError(
        f"policy {name!r}: the module has no function {attribute!r}{did_you_mean(attribute, there)}; "
        f"write 'async def {kind}(...)' in it, or name another one with a colon"
    )


def _check_signature(source: PolicySource) -> None:
    target, params = source.target, source.params
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    positional: list[None] = [None] * ARGUMENTS[source.kind] if inspect.iscoroutinefunction(target) else []
    known = [
        p.name for i, p in enumerate(signature.parameters.values()) if p.kind != p.VAR_KEYWORD and i >= len(positional)
    ]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in signature.parameters.values())
    for param in params:
        if param not in known and not takes_any:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise InputError(f"policy {source.name!r} has no parameter {param!r}{did_you_mean(param, known)} ({has})")
    try:
        signature.bind(*positional, **params)
    except TypeError as error:
        raise InputError(f"policy {source.name!r} does not fit a {source.kind} policy: {error}") from error
