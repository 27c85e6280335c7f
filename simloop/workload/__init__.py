"""Workloads: arrivals, lengths, presets and traces, all of them streams of requests.

A workload begins as a :class:`WorkloadSpec`, what a scenario file says; :func:`open_workload` turns it into a
:class:`Workload`, which yields an :class:`Arrival` for each request and never holds more than a few thousand of them.
"""

from simloop.workload.arrival import Arrival
from simloop.workload.preset import Preset, load_preset, preset_names
from simloop.workload.spec import (
    ArrivalSpec,
    Burst,
    ClosedLoop,
    Columns,
    Constant,
    Gamma,
    LengthSpec,
    Lognormal,
    Normal,
    Poisson,
    PresetTimes,
    TraceFormat,
    TraceSpec,
    TraceTimes,
    Uniform,
    WorkloadSpec,
)
from simloop.workload.workload import Workload, open_workload

__all__ = [
    "Arrival",
    "ArrivalSpec",
    "Burst",
    "ClosedLoop",
    "Columns",
    "Constant",
    "Gamma",
    "LengthSpec",
    "Lognormal",
    "Normal",
    "Poisson",
    "Preset",
    "PresetTimes",
    "TraceFormat",
    "TraceSpec",
    "TraceTimes",
    "Uniform",
    "Workload",
    "WorkloadSpec",
    "load_preset",
    "open_workload",
    "preset_names",
]
