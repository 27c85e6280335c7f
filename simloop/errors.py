"""Every error that simloop raises on purpose.

::

    SimloopError
    ├── InputError           what the user gave is wrong: one line, exit status 2
    └── SimulationError      the run itself failed: exit status 1
        ├── DeadlockError    nothing is ready, no timer is set, somebody still waits
        ├── StallError       callbacks run and run, and the clock does not move
        ├── UnsupportedError something virtual time cannot offer (sockets, threads, signals)
        ├── PolicyError      a user's policy, hook or controller raised
        └── RejectedError    a request that somebody awaits was rejected or aborted

Catch :class:`SimloopError` to catch all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "DeadlockError",
    "InputError",
    "PolicyError",
    "RejectedError",
    "SimloopError",
    "SimulationError",
    "StallError",
    "UnsupportedError",
    "did_you_mean",
]


class SimloopError(Exception):
    """Root of simloop's errors."""


class InputError(SimloopError, ValueError):
    """Something the user gave cannot be used.

    Args:
        message: What was found and what was expected, in one line.
        file: The file it stands in, when there is one.
        path: The place inside the file: ``workers[0].device``, or ``line 17``.
    """

    def __init__(self, message: str, *, file: object = None, path: str | None = None) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.path = path
        super().__init__(": ".join(part for part in (self.file, self.path, message) if part))


class SimulationError(SimloopError, RuntimeError):
    """A run that could not go on."""


class DeadlockError(SimulationError):
    """Nothing is ready to run, no timer is set, and the main task is not done."""


class StallError(SimulationError):
    """So many callbacks ran without the clock moving that it never will."""


class UnsupportedError(SimulationError, NotImplementedError):
    """An operation that has no meaning in virtual time."""


class PolicyError(SimulationError):
    """A policy, hook or controller raised; the cause is chained."""


class RejectedError(SimulationError):
    """A request that somebody awaits was rejected or aborted; the message says why."""


def did_you_mean(found: str, options: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the option nearest to ``found``, or an empty string."""
    near = difflib.get_close_matches(found, list(options), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""
