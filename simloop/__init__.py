"""simloop: a laboratory for LLM inference serving, on a clock that jumps.

A serving cluster (clients, router, schedulers, accelerators, KV memory) runs as asyncio coroutines in virtual time::

    import simloop

    result = simloop.simulate("quickstart", seed=1)
    print(result.summary()["p99_ttft_ms"])

What is imported with the package is the clock; the rest is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from simloop._version import __version__
from simloop.clock import (
    Event,
    add_note,
    check_determinism,
    new_event_loop,
    now,
    now_ns,
    rng,
    run,
    run_seed,
    seed_for,
    sleep,
    sleep_ns,
    sleep_until,
    sleep_until_ns,
)
from simloop.errors import (
    DeadlockError,
    InputError,
    PolicyError,
    RejectedError,
    SimloopError,
    SimulationError,
    StallError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from simloop._api import Interrupted, Progress, cluster, simulate
    from simloop.metrics import Result
    from simloop.scenario import Scenario, load_scenario
    from simloop.workload import Arrival

__all__ = [
    "Arrival",
    "DeadlockError",
    "Event",
    "InputError",
    "Interrupted",
    "PolicyError",
    "Progress",
    "RejectedError",
    "Result",
    "Scenario",
    "SimloopError",
    "SimulationError",
    "StallError",
    "UnsupportedError",
    "__version__",
    "add_note",
    "check_determinism",
    "cluster",
    "load_scenario",
    "new_event_loop",
    "now",
    "now_ns",
    "rng",
    "run",
    "run_seed",
    "seed_for",
    "simulate",
    "sleep",
    "sleep_ns",
    "sleep_until",
    "sleep_until_ns",
]

_LATER = {
    "Arrival": "simloop.workload",
    "Interrupted": "simloop._api",
    "Progress": "simloop._api",
    "Result": "simloop.metrics",
    "Scenario": "simloop.scenario",
    "cluster": "simloop._api",
    "load_scenario": "simloop.scenario",
    "simulate": "simloop._api",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'simloop' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LATER[name]), name)
    globals()[name] = value
    return value
