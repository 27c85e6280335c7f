"""Finding policies: a policy is a plain async function in a file.

It is named by ``file.py:function``, ``package.module:function``, a bundled name, or an entry point of the group
``simloop.policies``. What the name stands for may be

- an ``async def``: used as it is; the scenario's parameters become keyword arguments;
- a class with an async ``__call__``, or a plain function that returns an async one: called with the scenario's
  parameters, once for each worker (``schedule``) or once for the cluster, so that it can keep state.

``IGNORES = ("max_num_batched_tokens",)`` in the module of a scheduling policy lists engine arguments that it does not
look at; a scenario that sets one of them is refused.
"""

from __future__ import annotations

import dis
import functools
import importlib
import inspect
import math
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import attrs

from simloop.content import content_names, find_content
from simloop.errors import InputError, did_you_mean
from simloop.serving.policy_files import execute_policy_file
from simloop.serving.policy_info import ARGUMENTS, PolicyInfo, policy_info, policy_names

__all__ = [
    "ARGUMENTS",
    "PolicyInfo",
    "PolicySource",
    "check_number",
    "load_policy",
    "never_suspends",
    "policy_info",
    "policy_names",
    "where_raised",
]

_SUSPENDING = {"GET_AWAITABLE", "GET_AITER", "GET_ANEXT", "SEND", "YIELD_VALUE", "BEFORE_ASYNC_WITH", "YIELD_FROM"}


@attrs.frozen
class PolicySource:
    """A policy that was found, from which instances can be made.

    Attributes:
        name: The name it was asked for by.
        kind: ``route``, ``schedule``, ``control`` or ``hook``.
        target: The async function, class or factory.
        params: The scenario's parameters for it.
        ignores: Engine arguments that it says it does not look at.
    """

    name: str
    kind: str
    target: Callable[..., Any]
    params: Mapping[str, Any]
    ignores: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What messages call it."""
        return _title(self.name, self.kind)

    def make(self) -> Callable[..., Any]:
        """Return an async callable; a fresh one, with fresh state, where the policy keeps state.

        Raises:
            InputError: It cannot be made with these parameters, or what is made is not async.
        """
        if inspect.iscoroutinefunction(self.target):
            return functools.partial(self.target, **self.params) if self.params else self.target
        try:
            made = self.target(**self.params)
        except InputError as error:
            place = error.path if error.path is None or error.file else f"params.{error.path}"
            raise InputError(error.message, file=error.file, path=place) from error
        except Exception as error:
            raised = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise InputError(f"{self.title} raised {raised}{where_raised(error)}") from error
        if not inspect.iscoroutinefunction(made) and not inspect.iscoroutinefunction(type(made).__call__):
            raise InputError(f"{self.title} is not async: it must be an 'async def', or make one when called")
        return made  # type: ignore[no-any-return]


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
    module = sys.modules.get(getattr(target, "__module__", ""))
    source = PolicySource(name, kind, target, dict(params or {}), tuple(getattr(module, "IGNORES", ())))
    _check_signature(source)
    return source


def where_raised(error: BaseException) -> str:
    """Return ``" at file.py:12"``, the innermost place in the user's own code that an error comes from, or nothing."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if Path(__file__).resolve().parents[1] not in Path(frame.filename).parents]
    own = [frame for frame in theirs if not _is_installed(frame.filename)] or theirs[:1]
    return f" at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def check_number(name: str, found: Any, *, least: float, most: float = math.inf) -> float:
    """Return a policy's parameter, if it is a number within its limits.

    Args:
        name: What it is called in the scenario.
        found: What was given.
        least: Its smallest value.
        most: Its largest value.

    Raises:
        InputError: It is something else, or outside.
    """
    if isinstance(found, int | float) and not isinstance(found, bool) and least <= found <= most:
        return float(found)
    above = f" and <= {most:g}" if most < math.inf else ""
    raise InputError(f"found {found!r}, expected a number >= {least:g}{above}", path=name)


def never_suspends(call: Callable[..., Any]) -> bool:
    """Return whether an async callable contains no ``await`` at all, so that it can be run without a task."""
    function = call.func if isinstance(call, functools.partial) else call
    if not inspect.isfunction(function):
        function = type(function).__call__
    code = getattr(function, "__code__", None)
    return isinstance(code, CodeType) and not any(i.opname in _SUSPENDING for i in dis.get_instructions(code))


def _is_installed(filename: str) -> bool:
    """Return whether a file is Python's own or a package's, not the user's."""
    path = Path(filename)
    libraries = [Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")]
    return filename.startswith("<") or any(library in path.parents for library in libraries)


def _find(name: str, kind: str, base_dir: Path) -> Callable[..., Any]:
    place, _, attribute = name.rpartition(":") if ":" in name else (name, "", "")
    if place.endswith(".py"):
        module = _load_file(_resolve(place, base_dir, _title(name, kind)))
    elif attribute:
        module = _import(place, _title(name, kind))
    else:
        if name in _installed():
            return _installed()[name].load()  # type: ignore[no-any-return]
        module = _load_file(_bundled(name, kind))
    return _attribute(module, attribute or kind, name, kind)


def _noun(kind: str) -> str:
    return "hook" if kind == "hook" else f"{kind} policy"


def _title(name: str, kind: str) -> str:
    return f"{'hook' if kind == 'hook' else 'policy'} {name!r}"


@functools.cache
def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="simloop.policies")}


def _bundled(name: str, kind: str) -> Path:
    if name in content_names("policies") and kind not in policy_info(name).kinds:
        kinds = " and ".join(policy_info(name).kinds)
        raise InputError(
            f"{_title(name, 'policy')} is for {kinds}, not for {kind} (for {kind}: {', '.join(policy_names(kind))})"
        )
    if name not in content_names("policies"):
        names = policy_names(kind)
        bundled = f"bundled: {', '.join(names)}; " if names else ""
        raise InputError(
            f"no {_noun(kind)} is called {name!r}{did_you_mean(name, names)} "
            f"({bundled}your own: file.py:function or package.module:function)"
        )
    return find_content("policies", name)


def _resolve(place: str, base_dir: Path, title: str) -> Path:
    for path in (base_dir / place, Path(place)):
        if path.is_file():
            return path.resolve()
    raise InputError(f"{title}: there is no file {str(base_dir / place)!r}")


def _load_file(path: Path) -> ModuleType:
    try:
        return execute_policy_file(path)
    except InputError:
        raise
    except SyntaxError as error:
        place = f"line {error.lineno}"
        raise InputError(f"syntax error: {error.msg}", file=error.filename or path, path=place) from error
    except Exception as error:
        raised = f"{type(error).__name__}: {error}{where_raised(error)}"
        raise InputError(f"could not be imported: {raised}", file=path) from error


def _import(place: str, title: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ImportError as error:
        raise InputError(f"{title}: module {place!r} could not be imported: {error}") from error


def _attribute(module: ModuleType, attribute: str, name: str, kind: str) -> Callable[..., Any]:
    target = getattr(module, attribute, None)
    if callable(target):
        return target  # type: ignore[no-any-return]
    there = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
    raise InputError(
        f"{_title(name, kind)}: the module has no function {attribute!r}{did_you_mean(attribute, there)}; "
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
            raise InputError(f"{source.title} has no parameter {param!r}{did_you_mean(param, known)} ({has})")
    try:
        signature.bind(*positional, **params)
    except TypeError as error:
        plain = inspect.isfunction(target) and not inspect.iscoroutinefunction(target)
        hint = "; write 'async def'" if plain else ""
        raise InputError(f"{source.title} does not fit a {_noun(source.kind)}: {error}{hint}") from error
