"""From what a scenario says about its network to a fabric between its workers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from simloop.errors import InputError, did_you_mean
from simloop.network import Fabric, fully_connected, multi_dimensional, read_astra_network, ring, switch
from simloop.scenario.structs import Network

__all__ = ["build_fabric"]


def build_fabric(network: Network, workers: Sequence[tuple[str, str]]) -> Fabric:
    """Build the network of a scenario.

    Args:
        network: What the scenario says.
        workers: Group and name of each worker, in order.

    Raises:
        InputError: It names a group that there is not, or a file that does not fit.
    """
    fabric = Fabric(sharing=network.sharing)
    names = [name for _, name in workers]
    if network.path is not None:
        return _from_file(network.path, names, fabric)
    ports = _ports(network, workers)
    inside_gb_s = network.inside_gb_s or network.bandwidth_gb_s or 0.0
    for port, members in ports.items():
        for name in members if members != [port] else ():
            fabric.connect(name, port, bandwidth_gb_s=inside_gb_s)
    return _connect(network, list(ports), fabric) if len(ports) > 1 else fabric


def _connect(network: Network, ports: list[str], fabric: Fabric) -> Fabric:
    """Connect network cards; half of a switch's latency is on either side of it."""
    gb_s, latency_ns = network.bandwidth_gb_s or 0.0, network.latency_us * 1000
    if network.topology == "ring":
        return ring(ports, bandwidth_gb_s=gb_s, latency_ns=round(latency_ns), fabric=fabric)
    if network.topology == "fully_connected":
        return fully_connected(ports, bandwidth_gb_s=gb_s, latency_ns=round(latency_ns), fabric=fabric)
    return switch(ports, bandwidth_gb_s=gb_s, latency_ns=round(latency_ns / 2), fabric=fabric)


def _ports(network: Network, workers: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the workers behind each network card; a worker that has one to itself is its own."""
    groups = dict.fromkeys(group for group, _ in workers)
    sizes = network.workers_per_nic
    for group in sizes if isinstance(sizes, dict) else ():
        if group not in groups:
            hint = did_you_mean(group, groups)
            raise InputError(f"no group is called that{hint}", path=f"network.workers_per_nic.{group}")
    ports: dict[str, list[str]] = {}
    for group in groups:
        members = [name for owner, name in workers if owner == group]
        size = sizes.get(group, 1) if isinstance(sizes, dict) else sizes
        for number, first in enumerate(range(0, len(members), size)):
            port = members[first] if size == 1 else f"{group}/nic{number}"
            ports[port] = members[first : first + size]
    return ports


def _from_file(file: str, names: list[str], fabric: Fabric) -> Fabric:
    network = read_astra_network(file)
    if len(names) != math.prod(network.npus_count):
        expected = f"{' x '.join(map(str, network.npus_count))} workers, the npus_count of the file"
        raise InputError(f"found {len(names)} workers, expected {expected}", path="network.path")
    return multi_dimensional(network.dimensions, nodes=names, fabric=fabric)
