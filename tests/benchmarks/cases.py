"""How a real run is described, so that it can be simulated and compared."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from simloop.explore import RunLog

__all__ = [
    "Case",
    "Gap",
    "Part",
    "Request",
    "always",
    "closed_loop",
    "kernel_tables",
    "priced",
    "scenario_of",
    "timed",
    "write_trace",
]

_TABLES = {"a100-sxm-80gb": "a100_sxm", "h100-sxm-80gb": "h100_sxm",
           "h200-sxm-141gb": "h200_sxm"}  # fmt: skip

Request = tuple[float, int, int, list[int]]
"""Arrival in seconds, tokens in, tokens out, block hashes."""


@attrs.frozen
class Part:
    """What was measured of a run, or of the requests that arrived in a part of it.

    Attributes:
        name: What to call it.
        real: The measurements.
        from_s: Where the part begins, seconds since the first arrival.
        until_s: Where it ends.
        batch: Requests at once, where the runs are a grid of lengths and batch sizes.
    """

    name: str
    real: RunLog
    from_s: float = 0.0
    until_s: float = math.inf
    batch: int | None = None


@attrs.frozen
class Case:
    """A real run that can be simulated.

    Attributes:
        source: Folder of the measurements.
        model: Name of the model.
        device: Name of the device.
        scenario: Writes what it needs into a folder, and returns the scenario.
        parts: What was measured.
        stamped: Whether TTFT and latency count from when the engine read its queue, not from the sending.
        by: What to call the prediction, where a run has several.
        theirs: The output of another simulator on the same run, by its name.
    """

    source: str
    model: str
    device: str
    scenario: Callable[[Path], dict[str, Any]]
    parts: list[Part]
    stamped: bool = False
    by: str = "simloop"
    theirs: Mapping[str, RunLog] = attrs.Factory(dict)


@attrs.frozen
class Gap:
    """A real run that cannot be simulated yet.

    Attributes:
        source: Folder of the measurements.
        what: The runs.
        why: What is missing.
    """

    source: str
    what: str
    why: str


def scenario_of(
    model: str, device: str, workload: dict[str, Any], *, version: str = "0.19", **engine: Any
) -> dict[str, Any]:
    """Return a scenario of one worker.

    Args:
        model: Name of the model.
        device: Name of the card.
        workload: As in a scenario.
        version: Of vLLM's scheduler.
        engine: Arguments of the engine.
    """
    schedule = {"name": "vllm", "params": {"version": version}}
    workers = [{"device": device, "engine": engine}]
    return {"model": model, "workers": workers, "policies": {"schedule": schedule}, "workload": workload}


def timed(scenario: dict[str, Any], timing: dict[str, Any]) -> dict[str, Any]:
    """Return a scenario whose workers have this ``timing``."""
    return {**scenario, "workers": [{**group, "timing": timing} for group in scenario["workers"]]}


def kernel_tables(data: Path, card: str) -> Path | None:
    """Return the folder of aiconfigurator's tables for a card, if there is one."""
    folder = data / "aiconfigurator/calib" / _TABLES.get(card, "none")
    return folder if folder.is_dir() else None


def priced(case: Case, tables: Path | None, overheads: Any = "none", note: str = "") -> Iterator[Case]:
    """Yield a case as kernel tables price it, if there are any, and as the roofline of the device's card does.

    Args:
        case: The case.
        tables: The folder of the tables.
        overheads: What the engine adds to its kernels.
        note: What else to call the predictions.
    """

    def by(timing: dict[str, Any], name: str) -> Case:
        scenario = case.scenario
        return attrs.evolve(case, scenario=lambda folder: timed(scenario(folder), timing), by=f"{name}{note}")

    if tables is not None:
        yield by({"model": "kernels", "path": str(tables), "overheads": overheads}, "kernel tables")
    yield by({"model": "roofline", "overheads": overheads}, "roofline")


def closed_loop(clients: int, lengths: dict[str, Any], requests: int | None = None) -> dict[str, Any]:
    """Return a workload of clients that wait for their answers; ten requests for each, if it is not said how many."""
    arrivals = {"process": "closed_loop", "concurrency": clients}
    return {"requests": requests or 10 * clients, "arrivals": arrivals, "lengths": lengths}


def always(scenario: dict[str, Any]) -> Callable[[Path], dict[str, Any]]:
    """Return a scenario that needs no files as a :class:`Case` wants it."""
    return lambda folder: scenario


def write_trace(folder: Path, requests: Iterable[Request]) -> dict[str, Any]:
    """Write a trace and return the workload that replays it."""
    path = folder / "trace.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for arrival, prompt, output, hashes in requests:
            row = {"arrival_s": round(arrival, 9), "input_tokens": prompt, "output_tokens": output, "hash_ids": hashes}
            file.write(f"{json.dumps(row)}\n")
    return {"trace": {"path": str(path)}}
