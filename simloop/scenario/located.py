"""Errors that say which key of the scenario they are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from simloop.errors import InputError
from simloop.scenario.structs import PolicyRef
from simloop.serving import PolicySource, load_policy

__all__ = ["located", "policy_source"]

T = TypeVar("T")


def located(make: Callable[[], T], path: str) -> T:
    """Call ``make``, and say which key of the scenario it was for if it cannot be made.

    Raises:
        InputError: It cannot; the message names ``path``.
    """
    try:
        return make()
    except InputError as error:
        if error.file is not None:
            raise
        raise InputError(error.message, path=path if error.path is None else f"{path}.{error.path}") from error


def policy_source(ref: str | PolicyRef, kind: str, path: str) -> PolicySource:
    """Return the policy that a key of the scenario names.

    Raises:
        InputError: There is none, or its parameters are not right.
    """
    named = PolicyRef(name=ref) if isinstance(ref, str) else ref
    return located(lambda: load_policy(named.name, kind, params=named.params), path)
