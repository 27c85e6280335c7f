"""simloop: a laboratory for LLM inference serving, on a clock that jumps.

A serving cluster (clients, router, schedulers, accelerators, KV memory) runs as asyncio coroutines in virtual time::

    import simloop

    result = simloop.simulate("quickstart", seed=1)
    print(result.summary()["p99_ttft_ms"])

What is imported with the package is the clock; the rest is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from simloop._later import later
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

__getattr__ = later(
    __name__,
    {
        "Arrival": "workload",
        "Interrupted": "_api",
        "Progress": "_api",
        "Result": "metrics",
        "Scenario": "scenario",
        "cluster": "_api",
        "load_scenario": "scenario",
        "simulate": "_api",
    },
)
