"""Bundled scenarios with prefill here and decode there show what their heads say."""

from __future__ import annotations

from collections import Counter

import pytest

import simloop
from simloop.hardware import Roofline, Shape, load_device
from simloop.model import load_model

FEW = ["workload.requests=150"]


@pytest.mark.parametrize(
    "device", ["a100-sxm-80gb", "a100-quarter-flops-80gb", "v100-sxm-32gb", "gddr6-aim-32gb"], ids=lambda name: name[:6]
)
def test_the_device_sets_the_time(device: str) -> None:
    """Decoding one request at a time costs what the device's roofline says, whatever reads the prompts."""
    changes = [f"workers[1].device={device}", "workload.arrivals={process: constant, rate: 0.2}"]
    lengths = ["workload.lengths={input: 500, output: 100}", "workload.requests=3"]
    summary = simloop.simulate("mixed-devices", overrides=changes + lengths).summary()
    model = load_model("llama-2-7b")
    prefill = Roofline(model, load_device("a100-sxm-80gb")).iteration_ns(Shape.prefill(500))
    decode = Roofline(model, load_device(device))
    steps = [decode.iteration_ns(Shape.decode(1, context)) for context in range(501, 600)]
    transfer_ms = 500 * model.kv_bytes_per_token / 12.5e6 + 0.01
    assert summary["mean_ttft_ms"] == pytest.approx(prefill / 1e6)
    assert summary["mean_tpot_ms"] == pytest.approx((sum(steps) / 1e6 + transfer_ms) / 99, rel=1e-6)


def test_what_decodes_on_mixed_devices_ranks_by_bandwidth() -> None:
    def tpot_ms(device: str) -> float:
        summary = simloop.simulate("mixed-devices", overrides=[*FEW, f"workers[1].device={device}"]).summary()
        return float(summary["median_tpot_ms"])

    aim, a100, quarter, v100 = map(
        tpot_ms, ("gddr6-aim-32gb", "a100-sxm-80gb", "a100-quarter-flops-80gb", "v100-sxm-32gb")
    )
    assert aim < a100 < quarter < 1.1 * a100 < v100  # decoding wants bandwidth, of which the quarter A100 has all


FIGURE_3 = ["policies.route=tokensim_figure_3", "policies.schedule=tokensim_figure_3", "hooks=[]"]


@pytest.mark.parametrize("changes", [[], FIGURE_3], ids=["its functions", "figure 3's schedulers"])
def test_the_cluster_of_figure_2_reads_here_and_generates_there(changes: list[str]) -> None:
    result = simloop.simulate("tokensim-figure-2", overrides=[*FEW, *changes])
    assert result.summary()["completed"] == 150
    samples = result.records.samples()
    read = {worker: max(samples["prompt"][samples["worker"] == worker]) for worker in range(8)}
    made = {worker: max(samples["generated"][samples["worker"] == worker]) for worker in range(8)}
    assert min(read[0], read[1]) > 5000
    assert min(made[worker] for worker in range(2, 8)) > 500
    assert made[0] + made[1] == 150  # a first token each


def test_the_functions_of_figure_2_are_called(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="tokensim")
    simloop.simulate("tokensim-figure-2", requests=20)
    said = Counter(message.split()[-1 if "request" in message else 1] for message in caplog.messages)
    assert (said["arrives"], said["ends"]) == (20, 20)
    assert said["layers.0.o_proj"] == said["layers.31.o_proj"] > 0


def test_vllm_06_makes_room_for_the_kv_that_was_sent() -> None:
    """What came with a request needs blocks too, not just the token that is computed."""
    little = [*FEW, "workers[1].engine.num_gpu_blocks_override=300", "workload.arrivals.rate=24"]
    summary = simloop.simulate("tokensim-figure-2", overrides=little).summary()
    assert summary["completed"] == 150
    assert summary["swaps"] == summary["preemptions"] > 0


def test_eight_decoders_behind_one_card_show_in_ttft_and_tpot() -> None:
    few = ["workload.requests=600"]
    shared = simloop.simulate("shared-nic", overrides=few).summary()
    own = simloop.simulate("shared-nic", overrides=[*few, "network.workers_per_nic=1"]).summary()
    assert shared["p99_tpot_ms"] > 1.5 * own["p99_tpot_ms"]
    assert shared["p99_ttft_ms"] > 1.05 * own["p99_ttft_ms"]
    assert shared["median_max_gap_ms"] > 2 * own["median_max_gap_ms"]
