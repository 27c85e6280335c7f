"""ASTRA-sim's network files, and the times of its analytical backend.

The numbers are those of ASTRA-sim, for comparison with published results; its model is not ours. *Unaware* of
congestion, every message takes ``hops x latency + bytes / bandwidth`` whatever else is under way. *Aware*, each link
sends one message after another, and a switch receives a whole message before it sends it on.
"""

from __future__ import annotations

import math
from pathlib import Path as FilePath
from typing import Any, Literal, get_args

import msgspec

from simloop.errors import InputError, did_you_mean
from simloop.network.fabric import Fabric
from simloop.network.schedules import Algorithm, schedule
from simloop.network.store_and_forward import store_and_forward_ns
from simloop.network.topologies import Dimension, Topology, multi_dimensional

__all__ = ["AstraAlgorithm", "AstraCollective", "AstraNetwork", "read_astra_network"]

AstraAlgorithm = Literal["ring", "direct", "halvingDoubling"]
AstraCollective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]

_OURS: dict[str, Algorithm] = {"ring": "ring", "direct": "direct", "halvingDoubling": "halving_doubling"}


class AstraNetwork(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network as ASTRA-sim's analytical backend describes it: one entry a dimension, the innermost first.

    Attributes:
        topology: ``Ring``, ``FullyConnected`` or ``Switch``.
        npus_count: Endpoints in each dimension.
        bandwidth: GB/s of one link, where a GB is 2^30 bytes.
        latency: Latency of one link in ns.
    """

    topology: list[str]
    npus_count: list[int]
    bandwidth: list[float]
    latency: list[float]

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """The dimensions in our units: GB/s of 10^9 bytes, latency in whole ns."""
        rows = zip(self.topology, self.npus_count, self.bandwidth, self.latency, strict=True)
        return tuple(
            Dimension(topology=topology, size=size, bandwidth_gb_s=gib_s * 2**30 / 1e9, latency_ns=round(latency))  # type: ignore[arg-type]
            for topology, size, gib_s, latency in rows
        )

    def fabric(self) -> Fabric:
        """Return the network as a fabric of ``npu0``, ``npu1``..."""
        return multi_dimensional(self.dimensions)

    def send_ns(self, src: int, dst: int, nbytes: int, *, aware: bool = False) -> int:
        """Return what ASTRA-sim says that one message takes, alone on the network.

        Args:
            src: Number of the sender.
            dst: Number of the receiver; as in ASTRA-sim, a message goes along the first dimension in which they differ.
            nbytes: Bytes.
            aware: Of congestion: each hop passes on whole messages.
        """
        inner = 1
        for dimension in self.dimensions:
            a, b = src // inner % dimension.size, dst // inner % dimension.size
            if a != b:
                hops = _hops(dimension, b - a)
                serialised = hops if aware else 1
                return int(hops * dimension.latency_ns + serialised * nbytes / dimension.bandwidth_gb_s)
            inner *= dimension.size
        return 0

    def collective_ns(
        self,
        kind: AstraCollective,
        nbytes: int,
        algorithm: AstraAlgorithm = "ring",
        *,
        aware: bool = False,
        splits: int = 1,
        endpoint_delay_ns: int = 1,
    ) -> int:
        """Return what ASTRA-sim says that a collective takes, alone on the network.

        Args:
            kind: Which collective.
            nbytes: ``comm_size``: the full buffer, but for an all-gather what each rank has before it.
            algorithm: ``ring``, ``direct`` or ``halvingDoubling``, for all dimensions.
            aware: Of congestion; for one dimension only, as in ASTRA-sim.
            splits: ``preferred-dataset-splits``, run one after another (``active-chunks-per-dimension`` of 1).
            endpoint_delay_ns: ``endpoint-delay``, paid for each step and once more.

        Raises:
            InputError: An unknown name, several dimensions with ``aware``, or a number of ranks that
                ``halvingDoubling`` cannot do.
        """
        _check_collective(kind, algorithm, self.npus_count)
        if aware and len(self.npus_count) > 1:
            raise InputError("the congestion-aware backend knows networks of one dimension only")
        total, left = 0.0, nbytes / splits
        for dimension in self.dimensions:
            delays = _step_delays(dimension, kind, left, algorithm, aware)
            total += sum(delays) + endpoint_delay_ns * (len(delays) + 1)
            if kind in ("all_reduce", "reduce_scatter"):
                left /= dimension.size
            elif kind == "all_gather":
                left *= dimension.size
        return round(total * splits)


def read_astra_network(file: str | FilePath) -> AstraNetwork:
    """Read a network file of ASTRA-sim's analytical backend.

    Raises:
        InputError: It cannot be read, is not YAML, or does not say what it should.
    """
    import yaml

    try:
        content = yaml.safe_load(FilePath(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"cannot be read: {reason}", file=file) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = None if mark is None else f"line {mark.line + 1}"
        raise InputError(f"not YAML: {getattr(error, 'problem', None) or error}", file=file, path=where) from None
    return _checked(content, file)


def _checked(content: Any, file: str | FilePath) -> AstraNetwork:
    fields = AstraNetwork.__struct_fields__
    if not isinstance(content, dict):
        raise InputError(f"found {type(content).__name__}, expected the keys {', '.join(fields)}", file=file)
    for key in content:
        if key not in fields:
            hint = did_you_mean(str(key), fields)
            raise InputError(f"unknown key; expected {', '.join(fields)}{hint}", file=file, path=str(key))
    try:
        network = msgspec.convert(content, AstraNetwork)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        raise InputError(message, file=file, path=where.strip("`.") or None) from None
    depth = len(network.topology)
    for key in fields:
        values = getattr(network, key)
        if not values or len(values) != depth:
            found = f"{len(values)} values for {depth} dimensions"
            raise InputError(f"found {found}; expected as many as topology has, one or more", file=file, path=key)
        for index, value in enumerate(values):
            problem = _problem(key, value)
            if problem:
                raise InputError(problem, file=file, path=f"{key}[{index}]")
    return network


def _problem(key: str, value: Any) -> str | None:
    """Return what is wrong with one value, or None."""
    if key == "topology":
        options = get_args(Topology)
        known = ", ".join(options)
        return None if value in options else f"found {value!r}, expected {known}{did_you_mean(value, options)}"
    if key == "npus_count":
        return None if value > 1 else f"found {value}, expected 2 or more"
    if key == "bandwidth":
        return None if 0 < value < math.inf else f"found {value} GB/s, expected a positive number"
    return None if 0 <= value < math.inf else f"found {value} ns, expected 0 or more"


def _check_collective(kind: str, algorithm: str, sizes: list[int]) -> None:
    for found, what, options in (
        (kind, "collective", get_args(AstraCollective)),
        (algorithm, "implementation", get_args(AstraAlgorithm)),
    ):
        if found not in options:
            hint = did_you_mean(found, options)
            raise InputError(f"{what} {found!r} is unknown: one of {', '.join(options)} is expected{hint}")
    if algorithm == "halvingDoubling":
        if kind == "all_to_all":
            raise InputError("ASTRA-sim has no all_to_all by 'halvingDoubling'")
        if any(size & (size - 1) for size in sizes):
            raise InputError(f"'halvingDoubling' needs powers of two, not {sizes}")


def _hops(dimension: Dimension, distance: int) -> int:
    """Return over how many links a message goes to the endpoint at ``distance`` in one dimension."""
    if dimension.topology == "Ring":
        return min(distance % dimension.size, -distance % dimension.size)
    return 2 if dimension.topology == "Switch" else 1


def _step_delays(
    dimension: Dimension, kind: AstraCollective, nbytes: float, algorithm: AstraAlgorithm, aware: bool
) -> list[float]:
    """Return the time of each step of a collective in one dimension, in ns."""
    n = dimension.size
    buffer = nbytes * n if kind == "all_gather" else nbytes  # the whole of it
    if aware and dimension.topology == "Ring" and algorithm != "ring":
        return _simulated(dimension, kind, round(buffer), algorithm)
    if algorithm == "ring":
        passes = (n - 1) * n // 2 if kind == "all_to_all" else n - 1  # from neighbour to neighbour, whatever the way
        delays = [_message_ns(dimension, 1, buffer / n, aware)] * passes
    elif algorithm == "direct":
        farthest = max(_hops(dimension, distance) for distance in range(1, n))
        sent = n if aware and dimension.topology == "Switch" else 1  # through one port: n-1 into the switch, 1 out
        delays = [farthest * dimension.latency_ns + sent * buffer / n / dimension.bandwidth_gb_s]
    else:
        rounds = [(1 << i, buffer / (2 << i)) for i in range(n.bit_length() - 1)]
        delays = [_message_ns(dimension, distance, part, aware) for distance, part in rounds]
    return delays * 2 if kind == "all_reduce" else delays


def _message_ns(dimension: Dimension, distance: int, nbytes: float, aware: bool) -> float:
    hops = _hops(dimension, distance)
    serialised = hops if aware else 1
    return hops * dimension.latency_ns + serialised * nbytes / dimension.bandwidth_gb_s


def _simulated(dimension: Dimension, kind: AstraCollective, buffer: int, algorithm: AstraAlgorithm) -> list[float]:
    """Return the time of each step where messages meet on the links of a ring and there is no closed form."""
    fabric = multi_dimensional([dimension])
    steps = schedule(kind, buffer, dimension.size, _OURS[algorithm])
    total = store_and_forward_ns(fabric, fabric.endpoints, steps)
    return [total / len(steps)] * len(steps)
