"""The compatibility with ASTRA-sim's analytical backend, against 458 of its runs, which are not part of the project."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from simloop.errors import InputError
from simloop.network import AstraNetwork, read_astra_network, schedule, store_and_forward_ns

DATA = Path(os.environ.get("SIMLOOP_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
RUNS = DATA / "devices" / "astra_analytical_runs.csv"

needs_runs = pytest.mark.skipif(
    not RUNS.exists(), reason=f"{RUNS} is not there: set SIMLOOP_DATA to the folder of reference data"
)


def read_runs() -> list[dict[str, str]]:
    with RUNS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def network_of(row: dict[str, str]) -> AstraNetwork:
    """Return the network of a run; of the two-dimensional ones, the dimensions that took part."""
    if "x" in row["topology"]:
        topology, npus = ["FullyConnected", "Switch"], [4, 2]
    else:
        topology, npus = [row["topology"]], [int(row["npus"])]
    gib_s = [float(value) for value in row["bw_GBps"].split("|")]
    latency = [float(value) for value in row["latency_ns"].split("|")]
    part = {"d0": slice(0, 1), "d1": slice(1, 2)}.get(row["collective"][-2:], slice(None))
    return AstraNetwork(topology=topology[part], npus_count=npus[part], bandwidth=gib_s[part], latency=latency[part])


def computed(row: dict[str, str]) -> int:
    network, nbytes, aware = network_of(row), int(row["comm_size_bytes"]), row["backend"] == "Aware"
    if row["collective"] == "send_recv_0to1":
        return network.send_ns(0, 1, nbytes, aware=aware)
    kind: Any = row["collective"].split("_2d")[0]
    algorithm: Any = row["impl"]
    splits, delay = int(row["splits"]), int(row["endpoint_delay"])
    return network.collective_ns(kind, nbytes, algorithm, aware=aware, splits=splits, endpoint_delay_ns=delay)


def uses_fifo(row: dict[str, str]) -> bool:
    return row["backend"] == "Aware" and row["topology"] == "Ring" and row["impl"] in ("direct", "halvingDoubling")


@needs_runs
def test_every_run_of_astra_sim_is_met() -> None:
    rows = read_runs()
    assert len(rows) == 458
    too_far = {}
    for row in rows:
        if row["cycles_ns"]:
            expected = float(row["cycles_ns"])
            error = abs(computed(row) - expected) / expected
            if error > (0.01 if uses_fifo(row) else 0.005):
                too_far[tuple(row.values())] = error
    assert not too_far


@needs_runs
def test_what_astra_sim_refuses_is_refused() -> None:
    refused = [row for row in read_runs() if not row["cycles_ns"]]
    assert {(row["collective"], row["impl"]) for row in refused} == {("all_to_all", "halvingDoubling")}
    for row in refused:
        with pytest.raises(InputError, match="no all_to_all by 'halvingDoubling'"):
            computed(row)


@pytest.mark.parametrize(
    ("row", "ns"),
    [
        (("all_reduce", 4, 65536, "Ring", "ring", "Unaware"), 4837),
        (("all_reduce", 8, 1048576, "Ring", "ring", "Unaware"), 41210),
        (("reduce_scatter", 8, 1048576, "FullyConnected", "direct", "Unaware"), 2946),
        (("reduce_scatter", 8, 1048576, "Switch", "direct", "Aware"), 20533),
        (("all_to_all", 8, 1048576, "Ring", "direct", "Aware"), 25412),
        (("all_to_all", 8, 1048576, "Switch", "direct", "Unaware"), 3443),
    ],
)
def test_published_points(row: tuple[Any, ...], ns: int) -> None:
    """Points that the specification quotes, for when the runs are not at hand."""
    kind, npus, nbytes, topology, algorithm, backend = row
    network = AstraNetwork(topology=[topology], npus_count=[npus], bandwidth=[50], latency=[500])
    found = network.collective_ns(kind, nbytes, algorithm, aware=backend == "Aware")
    assert found == pytest.approx(ns, rel=0.005)


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
@pytest.mark.parametrize("algorithm", ["ring", "direct", "halvingDoubling"])
@pytest.mark.parametrize("topology", ["Switch", "FullyConnected"])
def test_the_closed_forms_are_what_store_and_forward_gives(kind: Any, algorithm: Any, topology: str) -> None:
    """A slow run of every message, for what has a closed form."""
    if kind == "all_to_all" and algorithm != "direct":
        return  # ASTRA-sim's ring goes from neighbour to neighbour, and the third it does not have
    network = AstraNetwork(topology=[topology], npus_count=[8], bandwidth=[50], latency=[500])
    ours: Any = {"halvingDoubling": "halving_doubling"}.get(algorithm, algorithm)
    fabric = network.fabric()
    buffer = (1 << 20) * (8 if kind == "all_gather" else 1)
    slow = store_and_forward_ns(fabric, fabric.endpoints, schedule(kind, buffer, 8, ours))
    fast = network.collective_ns(kind, 1 << 20, algorithm, aware=True, endpoint_delay_ns=0)
    assert abs(slow - fast) <= 1


def test_one_message() -> None:
    two = AstraNetwork(topology=["Ring", "Switch"], npus_count=[4, 2], bandwidth=[50, 25], latency=[500, 2000])
    assert two.send_ns(0, 3, 1 << 20) == 20031  # one hop, the other way round
    assert two.send_ns(0, 2, 1 << 20, aware=True) == 40062
    assert two.send_ns(0, 4, 1 << 20) == 4000 + 39062
    assert two.send_ns(5, 5, 1 << 20) == 0


def test_a_network_file_is_read_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "network.yml"
    file.write_text(
        "topology: [ FullyConnected, Switch ]\nnpus_count: [ 4, 2 ]\nbandwidth: [ 200.0, 50 ]  # GB/s\n"
        "latency: [ 500.0, 2000 ]  # ns\n"
    )
    network = read_astra_network(file)
    fabric = network.fabric()
    assert len(fabric.endpoints) == 8
    assert fabric.path("npu0", "npu3").bandwidth_gb_s == 200 * 2**30 / 1e9
    assert fabric.path("npu0", "npu4").latency_ns == 4000
    assert network.collective_ns("all_reduce", 1 << 20, "direct") == pytest.approx(16338, rel=0.005)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("topology: [Ring", "network.yml: line 1: not YAML: "),
        ("- Ring", "network.yml: found list, expected the keys topology, npus_count, bandwidth, latency"),
        ("topologie: [Ring]", "network.yml: topologie: unknown key.*did you mean 'topology'"),
        ("topology: [Ring]\nnpus_count: [4]\nbandwidth: [50]", "network.yml: .*missing required field `latency`"),
        ("topology: [Ring]\nnpus_count: [four]\nbandwidth: [50]\nlatency: [5]", r"npus_count\[.*\]: Expected `int`"),
        ("topology: [Rnig]\nnpus_count: [4]\nbandwidth: [50]\nlatency: [5]", r"topology\[0\]: .*did you mean 'Ring'"),
        ("topology: [Ring]\nnpus_count: [1]\nbandwidth: [50]\nlatency: [5]", r"npus_count\[0\]: found 1, expected 2"),
        ("topology: [Ring]\nnpus_count: [4]\nbandwidth: [0]\nlatency: [5]", r"bandwidth\[0\]: found 0"),
        ("topology: [Ring]\nnpus_count: [4]\nbandwidth: [5]\nlatency: [-5]", r"latency\[0\]: found -5"),
        ("topology: [Ring]\nnpus_count: [4, 2]\nbandwidth: [5]\nlatency: [5]", "npus_count: found 2 values for 1"),
    ],
)
def test_a_network_file_that_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "network.yml"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_astra_network(file)
    assert "\n" not in str(caught.value)


def test_a_network_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_astra_network(tmp_path / "none.yml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("all_reduc", 1, "ring"), "did you mean 'all_reduce'"),
        (("all_reduce", 1, "oneRing"), "implementation 'oneRing' is unknown"),
        (("all_reduce", 1, "halvingDoubling"), "powers of two"),
    ],
)
def test_what_the_backend_does_not_know(arguments: tuple[Any, ...], message: str) -> None:
    network = AstraNetwork(topology=["Ring"], npus_count=[6], bandwidth=[50], latency=[500])
    with pytest.raises(InputError, match=message):
        network.collective_ns(*arguments)


def test_the_aware_backend_knows_one_dimension() -> None:
    network = AstraNetwork(topology=["Ring"] * 2, npus_count=[4] * 2, bandwidth=[50] * 2, latency=[500] * 2)
    with pytest.raises(InputError, match="one dimension only"):
        network.collective_ns("all_reduce", 1, aware=True)
