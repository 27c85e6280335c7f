"""Runs one module of CPython's own asyncio tests on simloop's loop; started by ``run_conformance.py``.

    python cpython_child.py test_tasks

Prints one JSON object a line: the test, what became of it, and the last line of the error.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import types
import unittest
from typing import Any

from simloop.clock import VirtualLoop
from simloop.errors import UnsupportedError


class VirtualTestLoop(VirtualLoop):
    """Stands in for ``test_asyncio.utils.TestLoop``, whose clock a generator moves: this one's moves by itself."""

    def __init__(self, gen: object = None) -> None:
        super().__init__()

    def advance_time(self, advance: float) -> None:
        self.now_ns += round(advance * 1e9)


class Outcomes(unittest.TestResult):
    """Prints what became of each test as soon as it is known."""

    def _print(self, test: unittest.TestCase, outcome: str, detail: str = "") -> None:
        print(json.dumps({"test": test.id(), "outcome": outcome, "detail": detail}), flush=True)

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._print(test, "passed")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._print(test, "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._print(test, "passed")

    def addError(self, test: Any, err: Any) -> None:
        self._print(test, "unsupported" if is_unsupported(err[1]) else "failed", f"{err[0].__name__}: {err[1]}"[:300])

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.addError(test, err)


def is_unsupported(error: BaseException | None) -> bool:
    """Return whether an UnsupportedError is what a test ended with, or what that was raised from."""
    while error is not None:
        if isinstance(error, UnsupportedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def use_virtual_loops() -> None:
    """Make every way in which the tests come to a loop lead to a virtual one."""
    policy: Any = type(asyncio.get_event_loop_policy())
    policy._loop_factory = VirtualTestLoop
    setattr(importlib.import_module("test.test_asyncio.utils"), "TestLoop", VirtualTestLoop)  # noqa: B010
    for owner, name in ((asyncio, "SelectorEventLoop"), (asyncio, "EventLoop"), (asyncio.base_events, "BaseEventLoop")):
        setattr(owner, name, VirtualTestLoop)


def load(module: types.ModuleType) -> unittest.TestSuite:
    """Return the tests of a module; ``test_events`` gets a class that runs its loop tests on a virtual loop."""
    if module.__name__.endswith("test_events"):
        mixin: Any = module.EventLoopTestsMixin
        base: Any = importlib.import_module("test.test_asyncio.utils").TestCase
        case = type("VirtualLoopEventTests", (mixin, base), {"create_event_loop": lambda _self: VirtualTestLoop()})
        suite = unittest.TestSuite([unittest.defaultTestLoader.loadTestsFromTestCase(case)])
        for name in ("HandleTests", "TimerTests", "RunningLoopTests", "AbstractEventLoopTests"):
            if hasattr(module, name):
                suite.addTest(unittest.defaultTestLoader.loadTestsFromTestCase(getattr(module, name)))
        return suite
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def main() -> None:
    use_virtual_loops()
    load(importlib.import_module(f"test.test_asyncio.{sys.argv[1]}")).run(Outcomes())


if __name__ == "__main__":
    main()
