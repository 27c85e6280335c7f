"""Links, fabrics and collectives: awaitable transfers that share bandwidth.

Nothing in here knows of language models. Bytes are whole, times are integer nanoseconds, a bandwidth in GB/s counts
10^9 bytes, and everything is awaited on whatever loop runs: a virtual clock, or a real one.
"""

from simloop.network.astra import AstraAlgorithm, AstraCollective, AstraNetwork, read_astra_network
from simloop.network.channel import Channel, ClosedError
from simloop.network.collectives import alpha_beta_ns, collective, collective_ns
from simloop.network.fabric import Fabric
from simloop.network.flow import Path
from simloop.network.link import Link, LinkUse, Sharing
from simloop.network.overlap import pipeline_ns, streamed_ns
from simloop.network.schedules import Algorithm, Collective, schedule
from simloop.network.store_and_forward import store_and_forward_ns
from simloop.network.stream import Stream, split
from simloop.network.topologies import (
    Dimension,
    Topology,
    ethernet,
    fully_connected,
    multi_dimensional,
    nvlink_domain,
    pcie_tree,
    ring,
    switch,
)

__all__ = [
    "Algorithm",
    "AstraAlgorithm",
    "AstraCollective",
    "AstraNetwork",
    "Channel",
    "ClosedError",
    "Collective",
    "Dimension",
    "Fabric",
    "Link",
    "LinkUse",
    "Path",
    "Sharing",
    "Stream",
    "Topology",
    "alpha_beta_ns",
    "collective",
    "collective_ns",
    "ethernet",
    "fully_connected",
    "multi_dimensional",
    "nvlink_domain",
    "pcie_tree",
    "pipeline_ns",
    "read_astra_network",
    "ring",
    "schedule",
    "split",
    "store_and_forward_ns",
    "streamed_ns",
    "switch",
]
