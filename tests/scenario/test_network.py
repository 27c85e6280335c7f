"""The network of a scenario: how it is connected, shared and used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import simloop
from simloop.errors import InputError
from simloop.metrics import Records
from simloop.scenario import load_scenario
from simloop.scenario.build import build_cluster
from simloop.serving import Cluster

KV_BYTES = 131_072  # a token of Llama-3.1-8B


def spec(**network: Any) -> dict[str, Any]:
    return {
        "model": "llama-3.1-8b",
        "workers": [
            {"name": "prefill", "device": "a100-sxm-80gb"},
            {"name": "decode", "device": "a100-sxm-80gb", "count": 4},
        ],
        "network": network,
        "policies": {"route": "disaggregated", "schedule": "disaggregated"},
        "workload": {
            "requests": 8,
            "arrivals": {"process": "burst"},
            "lengths": {"input": 200, "output": 20},
        },
    }


def built(**network: Any) -> Cluster:
    return build_cluster(load_scenario(spec(**network)), Records())


def hops(cluster: Cluster, src: str, dst: str) -> list[str]:
    assert cluster.network is not None
    return [link.name for link in cluster.network.path(src, dst).links]


def test_each_worker_has_a_port_of_a_switch() -> None:
    cluster = built(bandwidth_gb_s=10, latency_us=3)
    assert hops(cluster, "prefill-0", "decode-2") == ["prefill-0->switch", "switch->decode-2"]
    assert cluster.network is not None
    assert cluster.network.path("prefill-0", "decode-2").latency_ns == 3000


def test_workers_behind_one_card_share_it() -> None:
    cluster = built(bandwidth_gb_s=10, workers_per_nic={"decode": 3}, inside_gb_s=300)
    assert hops(cluster, "prefill-0", "decode-2")[-2:] == ["switch->decode/nic0", "decode/nic0->decode-2"]
    assert hops(cluster, "prefill-0", "decode-3")[-2:] == ["switch->decode/nic1", "decode/nic1->decode-3"]
    assert hops(cluster, "decode-0", "decode-1") == ["decode-0->decode/nic0", "decode/nic0->decode-1"]
    assert cluster.network is not None
    assert cluster.network.path("decode-0", "decode-1").bandwidth_gb_s == 300
    assert cluster.network.path("prefill-0", "decode-1").bandwidth_gb_s == 10
    alike = built(bandwidth_gb_s=10, workers_per_nic=2, topology="ring")
    assert hops(alike, "prefill-0", "decode-3")[-2:] == ["prefill/nic0->decode/nic1", "decode/nic1->decode-3"]
    assert hops(built(bandwidth_gb_s=10, topology="fully_connected"), "decode-1", "decode-3") == ["decode-1->decode-3"]


def test_an_astra_sim_file_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "network.yml").write_text(
        "topology: [Ring]\nnpus_count: [5]\nbandwidth: [10.0]\nlatency: [500.0]\n", encoding="utf-8"
    )
    file = tmp_path / "scenario.json"
    file.write_bytes(json.dumps(spec(path="network.yml")).encode())
    cluster = build_cluster(load_scenario(file), Records())
    assert hops(cluster, "prefill-0", "decode-1") == ["prefill-0->decode-0", "decode-0->decode-1"]
    assert simloop.simulate(file).summary()["completed"] == 8
    with pytest.raises(InputError, match=r"network.path: found 6 workers, expected 5 workers, the npus_count"):
        load_scenario(file, overrides=["workers[1].count=5"])
    with pytest.raises(InputError, match=r"nothing.yml: cannot be read"):
        load_scenario(file, overrides=["network.path=nothing.yml"])


def last_ends(*, count: int = 8, **network: Any) -> list[float]:
    """Return when the requests of one burst end, s."""
    scenario = {**spec(**network), "workload": {**spec()["workload"], "requests": count}}
    return sorted(simloop.simulate(scenario).requests["finish_s"].to_list())


def test_contention_behind_a_card_shows_in_the_run() -> None:
    own, shared = last_ends(bandwidth_gb_s=1), last_ends(bandwidth_gb_s=1, workers_per_nic={"decode": 4})
    assert own == pytest.approx(shared)  # one sender: its own port is the bottleneck anyway
    scenario = spec(bandwidth_gb_s=1)
    scenario["workers"][0]["count"] = 4
    few = simloop.simulate(scenario).summary()
    scenario["network"]["workers_per_nic"] = {"decode": 4}
    many = simloop.simulate(scenario).summary()
    transfer_ms = 200 * KV_BYTES / 1e6
    more_ms = many["mean_max_gap_ms"] - few["mean_max_gap_ms"]
    assert more_ms == pytest.approx((8 - 2) * transfer_ms, rel=0.01)  # eight at once, not two at each port


def test_how_it_is_shared_and_sent_is_the_scenarios_to_say() -> None:
    base = max(last_ends(bandwidth_gb_s=1))
    assert max(last_ends(bandwidth_gb_s=1, sharing="fifo")) == pytest.approx(base, rel=0.03)  # for the last it is one
    assert min(last_ends(bandwidth_gb_s=1, sharing="fifo")) < 0.7 * base < min(last_ends(bandwidth_gb_s=1))
    assert max(last_ends(bandwidth_gb_s=1, preload=0)) > 1.1 * base  # each decoder serves one at a time
    cluster = built(bandwidth_gb_s=1, send_kv="layer", first_layers=2, preload=3, sharing=2)
    assert (cluster.kv_by, cluster.first_layers) == ("layer", 2)
    assert all(worker.preload is not None and worker.preload.places == 3 for worker in cluster.workers)
    assert cluster.network is not None
    assert {link.limit for link in cluster.network.links.values()} == {2}
    alone = {"bandwidth_gb_s": 1, "count": 1}
    assert last_ends(**alone, send_kv="layer") < last_ends(**alone, send_kv="whole") == last_ends(**alone)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({}, "network: give bandwidth_gb_s, or the path of an ASTRA-sim network file"),
        ({"bandwidth_gb_s": 1, "path": "a.yml"}, "network: give bandwidth_gb_s, or the path"),
        ({"path": "a.yml", "topology": "ring"}, "network: topology says nothing beside path: the file has it"),
        ({"bandwidth_gb_s": 1, "inside_gb_s": 2}, "inside_gb_s says nothing without workers_per_nic"),
        ({"bandwidth_gb_s": 1, "first_layers": 2}, "first_layers goes with send_kv: layer"),
        ({"bandwidth_gb_s": 1, "send_kv": "layer", "first_layers": 40}, "network.first_layers: found 40, expected at"),
        ({"bandwidth_gb_s": 1, "send_kv": "layers"}, "network.send_kv: found 'layers', expected one of block, layer,"),
        ({"bandwidth_gb_s": 1, "sharing": "fare"}, "network.sharing: found 'fare', expected one of fair, fifo or a"),
        ({"bandwidth_gb_s": 1, "workers_per_nic": {"decod": 2}}, "workers_per_nic.decod: no group is called that; did"),
        ({"bandwidth_gb_s": 1, "preload": -1}, "network.preload: found -1, expected a whole number >= 0"),
    ],
)
def test_what_cannot_be_a_network(network: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_scenario(spec(**network))
