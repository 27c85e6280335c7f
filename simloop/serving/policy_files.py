"""Policy files as modules: executed afresh for every cluster, with what lies beside them at hand.

A file runs once for each cluster, however many workers it schedules: what changed in it counts at the next run, and
what a run left in its variables is not there in the next. The same goes for the modules beside it that it imports while
it is loaded; what is installed, and what the program has imported itself, stays as it is.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import attrs

__all__ = ["execute_policy_file", "fresh_policy_files"]


@attrs.frozen
class _Files:
    """What has been executed for one cluster.

    Attributes:
        modules: The policy files.
        beside: By folder and name, what these imported from their own folders.
    """

    modules: dict[Path, ModuleType] = attrs.Factory(dict)
    beside: dict[Path, dict[str, ModuleType]] = attrs.Factory(dict)


_FILES: ContextVar[_Files | None] = ContextVar("policy files of the cluster that is being built", default=None)
_PREFIX = "simloop_policy_"
_LOCK = threading.RLock()  # the search path and the table of modules are the process's


@contextmanager
def fresh_policy_files() -> Iterator[None]:
    """Forget what was executed before; inside, a file is executed once, so that its policies share its variables."""
    token = _FILES.set(_Files())
    try:
        yield
    finally:
        _FILES.reset(token)


def execute_policy_file(path: Path) -> ModuleType:
    """Return the module that a file makes.

    Raises:
        Exception: Whatever the file raises, a SyntaxError among others.
    """
    files = _FILES.get() or _Files()
    if path not in files.modules:
        with _LOCK, _importable(path.parent, files.beside.setdefault(path.parent, {})):
            files.modules[path] = _execute(path)
    return files.modules[path]


def _execute(path: Path) -> ModuleType:
    """Execute the source as it is now: cached bytecode would miss an edit within the same second."""
    name = f"{_PREFIX}{path.stem}_{sha256(bytes(path)).hexdigest()[:12]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        exec(code, module.__dict__)  # what an import does
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def _importable(folder: Path, beside: dict[str, ModuleType]) -> Iterator[None]:
    """Let a folder's modules be imported; afterwards they are in ``beside``, and nobody else sees them."""
    before, path, writes_none = set(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.modules.update({name: module for name, module in beside.items() if name not in before})
    if str(folder) not in sys.path:
        sys.path.insert(_after_the_standard_library(), str(folder))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes_none
        if str(folder) not in path and str(folder) in sys.path:
            sys.path.remove(str(folder))
        new = {name: name.partition(".")[0] for name in sys.modules if name not in before}
        mine = [name for name, top in new.items() if top not in before and _lies_in(folder, sys.modules.get(top))]
        beside.update((name, sys.modules[name]) for name in mine)
        for name in mine:
            del sys.modules[name]


def _after_the_standard_library() -> int:
    """Return the place in the search path where ``random.py`` beside a policy does not stand for Python's."""
    return next((index for index, entry in enumerate(sys.path) if entry.endswith("-packages")), len(sys.path))


def _lies_in(folder: Path, module: ModuleType | None) -> bool:
    """Return whether a module, or the package it is the top of, is an entry of the folder itself."""
    if module is None or module.__name__.startswith(_PREFIX):
        return False
    places = [Path(place) for place in getattr(module, "__path__", [])]
    if not places and (file := getattr(module, "__file__", None)):
        places = [Path(file)]
    return any(place.resolve().parent == folder for place in places)
