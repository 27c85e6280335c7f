"""A pytest plugin under which anyio's own tests run on simloop's loop; loaded by ``run_conformance.py``.

Of the backends that anyio's tests are parametrized with, plain asyncio is given simloop's loop factory, and the others
are left out. Prints one JSON object for each test, as ``cpython_child.py`` does.
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Generator
from typing import Any

import pytest

from simloop.clock import VirtualLoop
from simloop.errors import UnsupportedError

_PLAIN_ASYNCIO = ("asyncio", {"debug": True})
_ON_SIMLOOP = ("asyncio", {"debug": True, "loop_factory": VirtualLoop})

# anyio's conftest imports trustme, for TLS tests that are not run here.
_trustme = types.ModuleType("trustme")
_trustme.CA = object  # type: ignore[attr-defined]
sys.modules.setdefault("trustme", _trustme)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put simloop's loop in place of asyncio's, and drop the other backends and what needs none."""
    kept = []
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if params.get("anyio_backend") == _PLAIN_ASYNCIO:
            params["anyio_backend"] = _ON_SIMLOOP
            kept.append(item)
    items[:] = kept


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Print what became of a test."""
    report = (yield).get_result()
    error = call.excinfo.value if call.excinfo is not None else None
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        outcome = "unsupported" if report.failed and _is_unsupported(error) else report.outcome
        detail = "" if error is None else f"{type(error).__name__}: {error}"[:300]
        line = json.dumps({"test": item.nodeid, "outcome": outcome, "detail": detail})
        sys.__stdout__.write(f"\n{line}\n")  # type: ignore[union-attr]


def _is_unsupported(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, UnsupportedError) or "virtual time does not wait for threads" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
