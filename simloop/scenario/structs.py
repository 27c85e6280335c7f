"""What a scenario file says, as frozen structs. The keys of the file are the fields' names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from simloop.hardware.profile import VLLM_0_15, VLLM_0_19, Overheads, RingLink
from simloop.metrics import SLO
from simloop.serving import Engine
from simloop.workload import WorkloadSpec

__all__ = ["Network", "Policies", "PolicyRef", "RecordedRouting", "Scenario", "SignalSpec", "Timing", "WorkerGroup"]

_Name = Annotated[str, Meta(min_length=1)]
_Seconds = Annotated[float, Meta(ge=1e-9, le=1e9)]
_OVERHEADS = {"none": None, "vllm-0.15": VLLM_0_15, "vllm-0.19": VLLM_0_19}


class PolicyRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy and what it is told; a policy without parameters may be given as its bare name.

    Attributes:
        name: A bundled name, ``file.py:function``, ``package.module:function``, or an entry point in the group
            ``simloop.policies``.
        params: Keyword arguments of the policy, by name.
    """

    name: _Name
    params: dict[str, Any] = {}


class SignalSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the router hears of its workers: each is asked for its metrics from time to time.

    Attributes:
        interval_s: Time from one question to the next, s.
        delay_s: Time from a question until the answer counts, s.
        loss: Chance of an answer to be lost, 0 to 1.
        own_requests: Whether the router adds what it has sent to a worker since.
        requests: Whether an answer has the worker's requests, and not just how many there are; policies that look at
            single requests (``shortest_job``, ``slo_aware``) need it.
    """

    interval_s: _Seconds
    delay_s: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    loss: Annotated[float, Meta(ge=0, le=1)] = 0.0
    own_requests: bool = False
    requests: bool = False


class Policies(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who decides what.

    Attributes:
        route: Sends a request to a worker.
        schedule: Fills a worker's next batch; a group of workers may have its own.
        control: Runs beside the cluster and may change it; nothing does if not given.
        signals: How ``route`` hears of the workers; it sees them as they are if not given.
    """

    route: _Name | PolicyRef = "least_loaded"
    schedule: _Name | PolicyRef = "vllm"
    control: _Name | PolicyRef | None = None
    signals: SignalSpec | None = None


class RecordedRouting(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which experts tokens were seen to choose.

    Attributes:
        recorded: File of choices, or of how often each expert was chosen (``.json``, ``.jsonl`` or ``.csv``); see
            *Share experts between ranks*.
    """

    recorded: _Name


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an iteration costs, and where that is known from.

    Attributes:
        model: ``roofline`` (the device card's), ``profile`` (layers of this model measured on this device) or
            ``kernels`` (tables of kernels by shape).
        path: Folder of the measurements; needed for ``profile`` and ``kernels``.
        overheads: What the engine adds: ``none``, ``vllm-0.15``, ``vllm-0.19``, or a mapping of its own.
        all_reduce: Links between the ranks of an engine, for ``profile``.
        routing: How tokens spread over the experts of a mixture: ``balanced`` (by chance, all experts equally likely;
            loads are the expected ones), ``random`` (the same, drawn, and the busiest rank counts), or as
            ``recorded``. If not given, ``balanced``; for ``profile`` the rule of LLMServingSim, whose tokens take
            different experts as long as there are some. With ``kernels`` it holds for experts that were not measured.
        strict: Whether leaving the measured domain ends the run; else it warns, once.
    """

    model: Literal["roofline", "profile", "kernels"] = "roofline"
    path: _Name | None = None
    overheads: Literal["none", "vllm-0.15", "vllm-0.19"] | Overheads = "none"
    all_reduce: RingLink | None = None
    routing: Literal["balanced", "random"] | RecordedRouting | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        measured = self.model != "roofline"
        if measured and self.path is None:
            raise ValueError(f"missing path: a {self.model} needs the folder of its measurements")
        for name in ("path", "all_reduce", "strict"):
            if not measured and getattr(self, name):
                raise ValueError(f"{name} says nothing beside model: roofline")
        if self.model == "kernels" and self.all_reduce is not None:
            raise ValueError("all_reduce says nothing beside model: kernels, whose tables have it")
        if not measured and self.overheads != "none":
            raise ValueError("overheads go with model: profile or kernels")

    def added(self) -> Overheads | None:
        """Return what the engine adds, or None for nothing."""
        if isinstance(self.overheads, Overheads):
            return self.overheads
        return _OVERHEADS[self.overheads]


class WorkerGroup(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Workers that are alike.

    Attributes:
        name: What the workers are called; a number is added.
        device: A bundled device card (``simloop devices``) or the path of one.
        count: How many workers.
        model: The model that these serve; the scenario's if not given.
        engine: How each of their engines is started.
        timing: What an iteration costs.
        schedule: Their scheduling policy; ``policies.schedule`` if not given.
    """

    name: _Name = "worker"
    device: _Name
    count: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    model: _Name | None = None
    engine: Engine = Engine()
    timing: Timing = Timing()
    schedule: _Name | PolicyRef | None = None


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What carries KV from worker to worker: every worker has one port of a switch that never blocks.

    Transfers that meet at a port share its bandwidth max-min fairly.

    Attributes:
        bandwidth_gb_s: Bandwidth of a port in each direction, GB/s: 12.5 is 100 Gbit/s Ethernet, 50 NDR InfiniBand.
        latency_us: Time from a worker to another beside the bytes, microseconds.
    """

    bandwidth_gb_s: Annotated[float, Meta(ge=1e-9, le=1e9)]
    latency_us: Annotated[float, Meta(ge=0, le=1e9)] = 0.0


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster, what it is asked, and how long.

    Attributes:
        model: A bundled model (``simloop models``), or the path of a Hugging Face ``config.json`` or of its folder.
        workers: The groups of workers.
        network: What links the workers, for policies that send KV; nothing does if not given.
        policies: Who decides what.
        workload: The requests: when they arrive and how long they are.
        slo: The limits that a request must keep to count as good; none if not given.
        seed: Everything random follows from it.
        until_s: Stop at this virtual time, s; when the last request is done if not given.
        sample_interval_s: Virtual time between two rows of the time series of one worker, s.
    """

    model: _Name
    workers: Annotated[list[WorkerGroup], Meta(min_length=1)]
    network: Network | None = None
    policies: Policies = Policies()
    workload: WorkloadSpec
    slo: SLO | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    until_s: _Seconds | None = None
    sample_interval_s: _Seconds = 1.0
