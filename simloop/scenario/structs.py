"""What a scenario file says, as frozen structs. The keys of the file are the fields' names."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from simloop.hardware.profile import VLLM_0_6, VLLM_0_15, VLLM_0_19, Overheads, RingLink
from simloop.metrics import SLO
from simloop.serving import Engine, MomentName
from simloop.workload import WorkloadSpec

__all__ = [
    "HookRef",
    "Network",
    "Policies",
    "PolicyRef",
    "RecordedRouting",
    "Scenario",
    "SignalSpec",
    "Timing",
    "WorkerGroup",
]

_Name = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Seconds = Annotated[float, Meta(ge=1e-9, le=1e9)]
_SAYS_NOTHING = {
    "roofline": ("path", "all_reduce", "strict", "peak_tflops", "memory_bandwidth_tb_s"),
    "profile": ("peak_tflops", "memory_bandwidth_tb_s"),
    "kernels": ("all_reduce", "peak_tflops", "memory_bandwidth_tb_s"),  # the tables have all-reduces
    "tokensim": ("path", "overheads", "all_reduce", "routing", "strict"),
}
_OVERHEADS = {"none": Overheads(), "vllm-0.6": VLLM_0_6, "vllm-0.15": VLLM_0_15, "vllm-0.19": VLLM_0_19}


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


class HookRef(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A breakpoint: what is called, and when. Give one of ``at``, ``before`` and ``after``.

    Attributes:
        at: A moment of a request's life.
        before: Operators of the model that are about to begin: ``lm_head``, ``layers.*.o_proj``, ``layers[::4]``
            (``simloop models NAME`` lists them).
        after: Operators of the model that have just ended.
        call: The hook: a bundled name, ``file.py:function``, ``package.module:function``, or an entry point in the
            group ``simloop.policies``.
        group: Only on the workers of this group, by its name; on all if not given.
        background: Whether what it is called from goes on meanwhile; else that waits until the hook returns.
        params: Keyword arguments of the hook, by name.
    """

    at: MomentName | None = None
    before: _Name | None = None
    after: _Name | None = None
    call: _Name
    group: _Name | None = None
    background: bool = False
    params: dict[str, Any] = {}

    def __post_init__(self) -> None:
        given = [name for name in ("at", "before", "after") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"found {' and '.join(given) or 'none'} of at, before and after, expected one")


class Timing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an iteration costs, and where that is known from.

    Attributes:
        model: ``roofline`` (the device card's), ``profile`` (layers of this model measured on this device),
            ``kernels`` (tables of kernels by shape), or ``tokensim`` (the closed form of the public TokenSim, with its
            KV memory, to compare with its results).
        path: Folder of the measurements; needed for ``profile`` and ``kernels``.
        overheads: What the engine adds: ``none``, ``vllm-0.6``, ``vllm-0.15``, ``vllm-0.19``, or a mapping of its own.
        all_reduce: Links between the ranks of an engine, for ``profile``.
        routing: How tokens spread over the experts of a mixture: ``balanced`` (by chance, all experts equally likely;
            loads are the expected ones), ``random`` (the same, drawn, and the busiest rank counts), or as
            ``recorded``. If not given, ``balanced``; for ``profile`` the rule of LLMServingSim, whose tokens take
            different experts as long as there are some. With ``kernels`` it holds for experts that were not measured.
        strict: Whether leaving the measured domain ends the run; else it warns, once.
        peak_tflops: Arithmetic peak for ``tokensim``, in its unit, 2^40 FLOP/s; the card's number if not given.
        memory_bandwidth_tb_s: Memory bandwidth for ``tokensim``, 2^40 bytes/s; the card's number if not given.
    """

    model: Literal["roofline", "profile", "kernels", "tokensim"] = "roofline"
    path: _Name | None = None
    overheads: Literal["none", "vllm-0.6", "vllm-0.15", "vllm-0.19"] | Overheads = "none"
    all_reduce: RingLink | None = None
    routing: Literal["balanced", "random"] | RecordedRouting | None = None
    strict: bool = False
    peak_tflops: Annotated[float, Meta(gt=0)] | None = None
    memory_bandwidth_tb_s: Annotated[float, Meta(gt=0)] | None = None

    def __post_init__(self) -> None:
        measured = self.model in ("profile", "kernels")
        if measured and self.path is None:
            raise ValueError(f"missing path: a {self.model} needs the folder of its measurements")
        for name in _SAYS_NOTHING[self.model]:
            if getattr(self, name) not in (None, False, "none"):
                raise ValueError(f"{name} says nothing beside model: {self.model}")

    def added(self) -> Overheads:
        """Return what the engine adds."""
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
    """What carries KV from worker to worker, and how; every worker has one port of a switch that never blocks.

    Transfers that meet on a link share its bandwidth max-min fairly.

    Attributes:
        bandwidth_gb_s: Bandwidth of a port in each direction, GB/s: 12.5 is 100 Gbit/s Ethernet, 50 NDR InfiniBand.
            Needed without a `path`.
        latency_us: Time from a port to another beside the bytes, microseconds; on a ring from one to the next.
        topology: How the ports are connected.
        workers_per_nic: How many workers of a group share one port, in their order; for all groups, or by group.
        inside_gb_s: Bandwidth of each worker's link to a shared port, over which it also reaches the others behind it,
            GB/s; that of the port if not given.
        path: An ASTRA-sim network file instead: the workers are its NPUs, in their order.
        sharing: ``fair``: all transfers on a link at once. ``fifo``: one after another. A number: so many at once.
        send_kv: ``whole``: when the prompt is read. ``layer``: each layer when the last part of the prompt has passed
            it. ``block``: each KV block when it is full. A policy may say otherwise.
        first_layers: Sent by layer: the receiver may start when so many are there; all of them if not given.
        preload: Requests that may be on their way to a worker, or wait there to be admitted, at once. 0 is sequential:
            the next is loaded when the one before has ended. Any number if not given.
    """

    bandwidth_gb_s: Annotated[float, Meta(ge=1e-9, le=1e9)] | None = None
    latency_us: Annotated[float, Meta(ge=0, le=1e9)] = 0.0
    topology: Literal["switch", "ring", "fully_connected"] = "switch"
    workers_per_nic: _Count | dict[str, _Count] = 1
    inside_gb_s: Annotated[float, Meta(ge=1e-9, le=1e9)] | None = None
    path: _Name | None = None
    sharing: Literal["fair", "fifo"] | _Count = "fair"
    send_kv: Literal["whole", "layer", "block"] = "whole"
    first_layers: _Count | None = None
    preload: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None

    def __post_init__(self) -> None:
        if (self.bandwidth_gb_s is None) == (self.path is None):
            raise ValueError("give bandwidth_gb_s, or the path of an ASTRA-sim network file, one of the two")
        defaults = {"latency_us": 0.0, "topology": "switch", "workers_per_nic": 1, "inside_gb_s": None}
        for name, default in defaults.items():
            if self.path is not None and getattr(self, name) != default:
                raise ValueError(f"{name} says nothing beside path: the file has it")
        if self.inside_gb_s is not None and self.workers_per_nic == 1:
            raise ValueError("inside_gb_s says nothing without workers_per_nic")
        if self.first_layers is not None and self.send_kv != "layer":
            raise ValueError("first_layers goes with send_kv: layer")


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster, what it is asked, and how long.

    Attributes:
        model: A bundled model (``simloop models``), or the path of a Hugging Face ``config.json`` or of its folder.
        workers: The groups of workers.
        network: What links the workers, for policies that send KV; nothing does if not given.
        policies: Who decides what.
        hooks: Breakpoints: what is called at moments of a request's life and at operators of the model.
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
    hooks: list[HookRef] = []
    workload: WorkloadSpec
    slo: SLO | None = None
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    until_s: _Seconds | None = None
    sample_interval_s: _Seconds = 1.0
