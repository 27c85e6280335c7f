"""Builders of the fabrics that one meets: rings, meshes, switches, NVLink domains, PCIe trees, products of them.

Each takes the names of its endpoints, or how many there are (``npu0``, ``npu1``...), and builds a new fabric or adds to
one that is given, so that a cluster is put together from parts::

    fabric = nvlink_domain(["gpu0", "gpu1"], bandwidth_gb_s=450)
    switch(["gpu0", "gpu1", "store"], bandwidth_gb_s=50, name="leaf", fabric=fabric)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Literal, get_args

import attrs

from simloop.errors import InputError, did_you_mean
from simloop.network.fabric import Fabric

__all__ = [
    "Dimension",
    "Topology",
    "ethernet",
    "fully_connected",
    "multi_dimensional",
    "nvlink_domain",
    "pcie_tree",
    "ring",
    "switch",
]

Topology = Literal["Ring", "FullyConnected", "Switch"]
Nodes = Sequence[str] | int


@attrs.frozen
class Dimension:
    """One dimension of a multi-dimensional network.

    Attributes:
        topology: How the endpoints that differ in this dimension alone are connected.
        size: How many they are.
        bandwidth_gb_s: GB/s (10^9 bytes) of one link, in each direction.
        latency_ns: Latency of one link, in ns.
    """

    topology: Topology
    size: int
    bandwidth_gb_s: float
    latency_ns: int = 0


def ring(nodes: Nodes, *, bandwidth_gb_s: float, latency_ns: int = 0, fabric: Fabric | None = None) -> Fabric:
    """Connect each endpoint with the next, both ways, and the last with the first.

    Args:
        nodes: Names of the endpoints, or how many.
        bandwidth_gb_s: GB/s (10^9 bytes) of each link, in each direction.
        latency_ns: Latency of each link.
        fabric: What to add to; a new one when it is not given.

    Raises:
        InputError: Fewer than two endpoints, or two links between the same nodes.
    """
    fabric, names = _begin(nodes, fabric)
    forward = list(zip(names, names[1:] + names[:1], strict=True))
    backward = [(b, a) for a, b in forward] if len(names) > 2 else []
    for a, b in forward + backward:  # so that of two routes of one length every node prefers the same direction
        fabric.connect(a, b, bandwidth_gb_s=bandwidth_gb_s, latency_ns=latency_ns, duplex=False)
    return fabric


def fully_connected(
    nodes: Nodes, *, bandwidth_gb_s: float, latency_ns: int = 0, fabric: Fabric | None = None
) -> Fabric:
    """Connect each two endpoints by a link of their own; the arguments are those of :func:`ring`."""
    fabric, names = _begin(nodes, fabric)
    for a, b in combinations(names, 2):
        fabric.connect(a, b, bandwidth_gb_s=bandwidth_gb_s, latency_ns=latency_ns)
    return fabric


def switch(
    nodes: Nodes,
    *,
    bandwidth_gb_s: float,
    latency_ns: int = 0,
    name: str = "switch",
    fabric: Fabric | None = None,
) -> Fabric:
    """Connect each endpoint with one non-blocking switch.

    Args:
        nodes: Names of the endpoints, or how many.
        bandwidth_gb_s: GB/s (10^9 bytes) of each port, in each direction.
        latency_ns: Latency of each link; a message crosses two.
        name: Name of the switch.
        fabric: What to add to; a new one when it is not given.

    Raises:
        InputError: Fewer than two endpoints, or one of them is connected with a switch of that name already.
    """
    fabric, names = _begin(nodes, fabric)
    for node in names:
        fabric.connect(node, name, bandwidth_gb_s=bandwidth_gb_s, latency_ns=latency_ns)
    return fabric


def ethernet(
    nodes: Nodes,
    *,
    gbit_s: float = 100,
    latency_ns: int = 1000,
    name: str = "ethernet",
    fabric: Fabric | None = None,
) -> Fabric:
    """Connect the network cards of servers with one Ethernet or InfiniBand switch: :func:`switch`, in Gbit/s.

    ``gbit_s`` is the speed of a port as it is sold: 100 (Ethernet), 200 (HDR), 400 (NDR). The default latency of a link
    is a round number to start from, not a measurement.
    """
    return switch(nodes, bandwidth_gb_s=gbit_s / 8, latency_ns=latency_ns, name=name, fabric=fabric)


def nvlink_domain(
    gpus: Nodes,
    *,
    bandwidth_gb_s: float,
    latency_ns: int = 0,
    nvswitch: bool = True,
    name: str = "nvswitch",
    fabric: Fabric | None = None,
) -> Fabric:
    """Connect the GPUs of a server by NVLink.

    Args:
        gpus: Names of the GPUs, or how many.
        bandwidth_gb_s: What one GPU has in each direction: A100 300, H100 450, B200 900 (half of what is advertised,
            which counts both directions).
        latency_ns: Latency of each link.
        nvswitch: Over NVSwitch, so that any two GPUs may use all of it. False: the bandwidth of a GPU is divided among
            direct links to the others, as in servers with four A100 cards.
        name: Name of the switch.
        fabric: What to add to; a new one when it is not given.
    """
    if nvswitch:
        return switch(gpus, bandwidth_gb_s=bandwidth_gb_s, latency_ns=latency_ns, name=name, fabric=fabric)
    names = _names(gpus)
    return fully_connected(
        names, bandwidth_gb_s=bandwidth_gb_s / (len(names) - 1), latency_ns=latency_ns, fabric=fabric
    )


def pcie_tree(
    devices: Nodes,
    *,
    bandwidth_gb_s: float,
    devices_per_switch: int = 2,
    uplink_gb_s: float | None = None,
    latency_ns: int = 0,
    root: str = "host",
    fabric: Fabric | None = None,
) -> Fabric:
    """Connect devices with PCIe switches, and those with the root complex, which is an endpoint too (host memory).

    Args:
        devices: Names of the devices, or how many.
        bandwidth_gb_s: GB/s (10^9 bytes) of a device's link in each direction: x16 of generation 4 32, of 5 64.
        devices_per_switch: Devices that share one switch, and its uplink.
        uplink_gb_s: GB/s from a switch to the root; that of a device when it is not given.
        latency_ns: Latency of each link.
        root: Name of the root complex. The switches are ``root/pcie0``, ``root/pcie1``...
        fabric: What to add to; a new one when it is not given.

    Raises:
        InputError: ``devices_per_switch`` is not positive, or two links between the same nodes.
    """
    if devices_per_switch < 1:
        raise InputError(f"devices_per_switch is {devices_per_switch}: 1 or more is expected")
    fabric = fabric or Fabric()
    names = _names(devices)
    fabric.add_endpoints([*names, root])
    uplink = bandwidth_gb_s if uplink_gb_s is None else uplink_gb_s
    for index in range(0, len(names), devices_per_switch):
        bridge = f"{root}/pcie{index // devices_per_switch}"
        fabric.connect(bridge, root, bandwidth_gb_s=uplink, latency_ns=latency_ns)
        for device in names[index : index + devices_per_switch]:
            fabric.connect(device, bridge, bandwidth_gb_s=bandwidth_gb_s, latency_ns=latency_ns)
    return fabric


def multi_dimensional(
    dimensions: Sequence[Dimension], *, nodes: Sequence[str] | None = None, fabric: Fabric | None = None
) -> Fabric:
    """Connect endpoints in several dimensions: a 2-D torus is two rings, a rack of NVLink servers a switch of switches.

    Endpoint ``i`` stands at ``(i % n0, i // n0 % n1, ...)``: the first dimension is the innermost. Those that differ in
    one dimension alone are connected as that dimension says.

    Args:
        dimensions: From the innermost to the outermost.
        nodes: Names of the endpoints, as many as the product of the sizes; ``npu0``... when not given.
        fabric: What to add to; a new one when it is not given.

    Raises:
        InputError: No dimension, an unknown topology, a size below two, or the wrong number of names.
    """
    count = math.prod(dimension.size for dimension in dimensions)
    fabric, names = _begin(count if nodes is None else nodes, fabric)
    if len(names) != count or not dimensions:
        raise InputError(f"{len(names)} nodes do not fill dimensions of {[d.size for d in dimensions]}")
    for depth, dimension in enumerate(dimensions):
        for index, group in enumerate(groups([d.size for d in dimensions], depth)):
            _connect(dimension, [names[i] for i in group], f"switch{depth}.{index}", fabric)
    return fabric


def groups(sizes: Sequence[int], depth: int) -> Iterator[list[int]]:
    """Yield, for one dimension, the endpoints that differ in it alone, by number."""
    stride = math.prod(sizes[:depth])
    block = stride * sizes[depth]
    for start in range(0, math.prod(sizes), block):
        for offset in range(stride):
            yield list(range(start + offset, start + offset + block, stride))


def _connect(dimension: Dimension, names: list[str], switch_name: str, fabric: Fabric) -> None:
    gb_s, latency_ns = dimension.bandwidth_gb_s, dimension.latency_ns
    if dimension.topology == "Ring":
        ring(names, bandwidth_gb_s=gb_s, latency_ns=latency_ns, fabric=fabric)
    elif dimension.topology == "FullyConnected":
        fully_connected(names, bandwidth_gb_s=gb_s, latency_ns=latency_ns, fabric=fabric)
    elif dimension.topology == "Switch":
        switch(names, bandwidth_gb_s=gb_s, latency_ns=latency_ns, name=switch_name, fabric=fabric)
    else:
        options = get_args(Topology)
        hint = did_you_mean(dimension.topology, options)
        raise InputError(f"topology {dimension.topology!r} is unknown: one of {', '.join(options)} is expected{hint}")


def _names(nodes: Nodes) -> list[str]:
    names = [f"npu{i}" for i in range(nodes)] if isinstance(nodes, int) else list(nodes)
    if len(names) < 2 or len(set(names)) < len(names):
        raise InputError(f"{names} cannot be connected: two endpoints or more with different names are expected")
    return names


def _begin(nodes: Nodes, fabric: Fabric | None) -> tuple[Fabric, list[str]]:
    fabric, names = fabric or Fabric(), _names(nodes)
    fabric.add_endpoints(names)
    return fabric, names
