from __future__ import annotations

import asyncio
import random

import pytest

from simloop.clock import check_determinism
from simloop.errors import InputError
from simloop.network import (
    Dimension,
    Fabric,
    ethernet,
    fully_connected,
    multi_dimensional,
    nvlink_domain,
    pcie_tree,
    ring,
    switch,
)
from simloop.network.topologies import groups
from tests.network.helpers import duration_ns, ends, simulated, together

GB = 10**9


def hops(fabric: Fabric, src: str, dst: str) -> list[str]:
    return [link.name for link in fabric.path(src, dst).links]


def test_a_ring_goes_the_short_way_round() -> None:
    fabric = ring(5, bandwidth_gb_s=1)
    assert hops(fabric, "npu0", "npu2") == ["npu0->npu1", "npu1->npu2"]
    assert hops(fabric, "npu0", "npu3") == ["npu0->npu4", "npu4->npu3"]
    even = ring(4, bandwidth_gb_s=1)
    for i in range(4):  # both ways are as long: everybody takes the same
        assert hops(even, f"npu{i}", f"npu{(i + 2) % 4}")[0] == f"npu{i}->npu{(i + 1) % 4}"
    assert len(ring(2, bandwidth_gb_s=1).links) == 2


def test_each_two_of_a_mesh_have_a_link_of_their_own() -> None:
    fabric = fully_connected(4, bandwidth_gb_s=1)
    assert len(fabric.links) == 12
    assert duration_ns(lambda: together(*(fabric.send("npu0", f"npu{i}", 1000) for i in (1, 2, 3)))) == 1000


def test_transfers_from_one_port_of_a_switch_share_it() -> None:
    fabric = switch(4, bandwidth_gb_s=1, latency_ns=100)
    assert duration_ns(lambda: together(*(fabric.send("npu0", f"npu{i}", 1000) for i in (1, 2, 3)))) == 3200
    assert fabric.link("npu0", "switch").use().bytes == 3000


@pytest.mark.parametrize("receivers", [1, 2, 8])
def test_n_receivers_behind_one_network_card_take_n_times_as_long(receivers: int) -> None:
    fabric = ethernet(["prefill", *(f"decode{i}" for i in range(8))], gbit_s=100, latency_ns=0)
    sends = [("prefill", f"decode{i}") for i in range(receivers)]
    assert duration_ns(lambda: together(*(fabric.send(*ends, GB) for ends in sends))) == receivers * 80_000_000


def test_a_flow_that_is_held_up_elsewhere_leaves_its_share() -> None:
    fabric = Fabric()
    fabric.connect("a", "switch", bandwidth_gb_s=10)
    fabric.connect("switch", "slow", bandwidth_gb_s=2)
    fabric.connect("switch", "fast", bandwidth_gb_s=100)
    assert simulated(lambda: ends([fabric.send("a", "slow", 2000), fabric.send("a", "fast", 8000)])) == [1000, 1000]


def test_an_nvlink_domain_with_and_without_switch() -> None:
    through = nvlink_domain(4, bandwidth_gb_s=300)
    direct = nvlink_domain(4, bandwidth_gb_s=300, nvswitch=False)
    assert through.path("npu0", "npu1").bandwidth_gb_s == 300
    assert direct.path("npu0", "npu1").bandwidth_gb_s == 100


def test_gpus_under_one_pcie_switch_share_its_uplink() -> None:
    fabric = pcie_tree(["gpu0", "gpu1", "gpu2"], bandwidth_gb_s=32, latency_ns=50)
    assert fabric.endpoints == ("gpu0", "gpu1", "gpu2", "host")
    assert hops(fabric, "gpu0", "gpu1") == ["gpu0->host/pcie0", "host/pcie0->gpu1"]
    times = simulated(lambda: ends(fabric.send("host", gpu, 32_000) for gpu in fabric.endpoints[:3]))
    assert times == [2100, 2100, 1100]


def test_a_torus_has_two_rings_through_each_node() -> None:
    fabric = multi_dimensional([Dimension("Ring", 4, 2), Dimension("Ring", 3, 1)])
    assert len(fabric.endpoints) == 12
    assert len(fabric.links) == 12 * 4
    assert hops(fabric, "npu0", "npu5") == ["npu0->npu1", "npu1->npu5"]  # the inner dimension first
    assert list(groups([4, 3], 0)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert list(groups([4, 3], 1)) == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]


def test_a_cluster_is_put_together_from_parts() -> None:
    fabric = Fabric()
    for server in range(2):
        nvlink_domain([f"s{server}g{g}" for g in range(4)], bandwidth_gb_s=450, name=f"nv{server}", fabric=fabric)
    switch([f"s{s}g{g}" for s in range(2) for g in range(4)], bandwidth_gb_s=50, name="leaf", fabric=fabric)
    assert fabric.path("s0g0", "s0g3").bandwidth_gb_s == 450
    assert fabric.path("s0g0", "s1g3").bandwidth_gb_s == 50


def test_a_message_to_oneself_takes_no_time() -> None:
    assert duration_ns(lambda: switch(2, bandwidth_gb_s=1, latency_ns=9).send("npu0", "npu0", GB)) == 0


def test_a_link_added_later_changes_routes() -> None:
    fabric = ring(6, bandwidth_gb_s=1)
    assert len(hops(fabric, "npu0", "npu3")) == 3
    fabric.connect("npu0", "npu3", bandwidth_gb_s=1)
    assert hops(fabric, "npu0", "npu3") == ["npu0->npu3"]


def test_runs_are_identical() -> None:
    async def main() -> None:
        fabric, rng = switch(16, bandwidth_gb_s=50, latency_ns=100), random.Random(1)
        pairs = [rng.sample(fabric.endpoints, 2) for _ in range(200)]
        sending = [asyncio.ensure_future(fabric.send(a, b, rng.randint(1, 10**6))) for a, b in pairs]
        for task in sending[::7]:
            task.cancel()
        await asyncio.wait(sending)

    check_determinism(main, seed=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: switch(4, bandwidth_gb_s=1).path("npu0", "npu9"), "node 'npu9' is not in this fabric; did you mean"),
        (lambda: switch(4, bandwidth_gb_s=1).link("npu0", "npu1"), "no link npu0->npu1; did you mean"),
        (lambda: ring(1, bandwidth_gb_s=1), "two endpoints or more"),
        (lambda: ring(["a", "a"], bandwidth_gb_s=1), "different names"),
        (lambda: ring(3, bandwidth_gb_s=-1), "bandwidth -1 GB/s"),
        (lambda: switch(2, bandwidth_gb_s=1, fabric=switch(2, bandwidth_gb_s=1)), "is there already"),
        (lambda: Fabric().connect("a", "a", bandwidth_gb_s=1), "to itself"),
        (lambda: pcie_tree(2, bandwidth_gb_s=1, devices_per_switch=0), "devices_per_switch is 0"),
        (lambda: multi_dimensional([Dimension("Rings", 4, 1)]), "'Rings' is unknown.*did you mean 'Ring'"),  # type: ignore[arg-type]
        (lambda: multi_dimensional([Dimension("Ring", 4, 1)], nodes=["a", "b"]), "2 nodes do not fill"),
    ],
)
def test_what_cannot_be_a_fabric(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


def test_there_may_be_no_route() -> None:
    fabric = Fabric()
    fabric.connect("a", "b", bandwidth_gb_s=1, duplex=False)
    with pytest.raises(InputError, match="no route from 'b' to 'a'"):
        fabric.path("b", "a")
