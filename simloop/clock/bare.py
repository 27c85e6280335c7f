"""A coroutine that may yield to its task without an awaitable in between."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

__all__ = ["bare_coroutine"]

P = ParamSpec("P")
T = TypeVar("T")


def bare_coroutine(function: Callable[P, Generator[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Turn a generator function into a coroutine function whose ``yield`` reaches the task.

    This is what :func:`types.coroutine` does, with the flag of ``async def`` in place of the one for generators that
    may be awaited: the result is a real coroutine, for ``create_task`` too. It saves one generator per sleep.
    """
    code = function.__code__
    flags = (code.co_flags & ~inspect.CO_GENERATOR) | inspect.CO_COROUTINE
    bare = FunctionType(
        code.replace(co_flags=flags),
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    functools.update_wrapper(bare, function)
    return bare
