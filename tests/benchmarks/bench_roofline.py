"""What the roofline costs, what it says, and how far that is from measured systems.

    python tests/benchmarks/bench_roofline.py [DATA]

Without DATA: the price of a call, and the times of Llama-3.1-8B on every card. With DATA, a folder that holds
``llm_inference_bench/dev/static_batch_dev.csv.gz`` (LLM-Inference-Bench, arXiv 2411.00136; A100 and H100, static
batches, vLLM of mid 2024 and TensorRT-LLM) and ``blis_vllm0151_NOLICENCE/dev/requests`` (request logs of vLLM 0.15.1 on
an H100): the error of latencies. Nothing was fitted to either.
"""

from __future__ import annotations

import sys
import timeit
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from simloop.errors import InputError
from simloop.hardware import Device, Roofline, Shape, device_names, load_device, memory_plan
from simloop.model import Model, load_model

Floats = npt.NDArray[np.float64]

MODELS = {
    "meta-llama/Llama-2-7b-hf": "llama-2-7b",
    "meta-llama/Meta-Llama-3-8B": "llama-3-8b",
    "mistralai/Mistral-7B-v0.1": "mistral-7b-v0.1",
}
DEVICES = {"Nvidia A100 GPU": "a100-sxm-40gb", "Nvidia H100 GPU": "h100-sxm-80gb"}


def cost_of_a_call() -> None:
    """Print nanoseconds of one call, after warm-up."""
    roofline = Roofline(load_model("llama-3.1-8b"), load_device("a100-sxm-80gb"))
    mixed = Shape(2048, 9, ((2000, 0),), 48, 48 * 700)
    for name, shape in (("decode-only", Shape.decode(128, 700)), ("one chunk and 48 decodes", mixed)):
        calls = 200_000
        best = min(timeit.repeat(lambda shape=shape: roofline.iteration_ns(shape), number=calls, repeat=5)) / calls  # type: ignore[misc]
        print(f"iteration_ns, {name}: {best * 1e9:.0f} ns")


def what_it_says() -> None:
    """Print iteration times of Llama-3.1-8B in milliseconds."""
    shapes = [(f"decode {b} x {c}", Shape.decode(b, c)) for c in (512, 2048) for b in (1, 32, 128, 256)]
    shapes += [(f"prefill {n}", Shape.prefill(n)) for n in (512, 2048)]
    print(f"\n{'ms, llama-3.1-8b':<16}" + "".join(f"{name:>18}" for name, _ in shapes))
    for device in device_names():
        roofline = Roofline(load_model("llama-3.1-8b"), load_device(device))
        print(f"{device:<16}" + "".join(f"{roofline.iteration_ns(shape) / 1e6:>18.2f}" for _, shape in shapes))


def static_batch_s(roofline: Roofline, batch: int, length: int) -> float:
    """Return the time of a batch of equal requests, prompt and output of the same length, seconds.

    Whole prompts go in groups of at most 8,192 tokens; then all decode together.
    """
    group = max(1, min(batch, 8192 // length))
    prompts = [group] * (batch // group) + ([batch % group] if batch % group else [])
    ns = sum(roofline.iteration_ns(Shape.prefill(*[length] * size)) for size in prompts)
    ns += sum(roofline.iteration_ns(Shape.decode(batch, length + step)) for step in range(1, length))
    return ns / 1e9


def fits(model: Model, device: str, batch: int, length: int) -> bool:
    """Return whether the batch's KV cache fits at once: otherwise it was preempted, and is no static batch."""
    try:
        plan = memory_plan(model, load_device(device), dtype="float16", gpu_memory_utilization=0.95)
    except InputError:
        return False
    return batch * 2 * length <= plan.num_tokens


def card(name: str, framework: str) -> Device:
    """Return a device as an engine uses it: only vLLM decodes with FlashAttention 2 where a window is masked."""
    device = load_device(name)
    if framework == "vLLM":
        return device
    return msgspec.structs.replace(device, calibration=msgspec.structs.replace(device.calibration, unpacked=None))


def against_static_batches(data: Path) -> None:
    """Print the error of predicted latency against LLM-Inference-Bench, on one device."""
    table = pl.read_csv(data / "llm_inference_bench/dev/static_batch_dev.csv.gz").filter(
        (pl.col("Num of Hardware") == 1) & pl.col("Hardware").is_in(list(DEVICES)) & pl.col("Model").is_in(list(MODELS))
    )
    print(f"\n{'static batches: predicted / measured':<52}{'points':>7}{'median':>8}{'p10':>7}{'p90':>7}{'|err|':>7}")
    for (hardware, framework, name), rows in table.group_by("Hardware", "Framework", "Model", maintain_order=True):
        device, model = DEVICES[str(hardware)], load_model(MODELS[str(name)])
        roofline = Roofline(model, card(device, str(framework)), dtype="float16")
        cells = [
            (int(batch), static_batch_s(roofline, int(batch), int(length)) / float(latency))
            for length, batch, latency in rows.select("Input Output Length", "Batch Size", "Latency").iter_rows()
            if fits(model, device, int(batch), int(length))
        ]
        for label, low, high in (("batch 1", 1, 1), ("batch >1", 2, 10**6)):
            ratio = np.array([value for batch, value in cells if low <= batch <= high])
            if len(ratio):
                p10, median, p90 = np.quantile(ratio, [0.1, 0.5, 0.9])
                title = f"{device[:8]} {framework} {model.name} {label}"
                error = np.median(np.abs(ratio - 1))
                print(f"{title:<52}{len(ratio):>7}{median:>8.2f}{p10:>7.2f}{p90:>7.2f}{error:>7.0%}")


def replay(roofline: Roofline, log: pl.DataFrame, *, most: int = 128, budget: int = 2048) -> tuple[Floats, Floats]:
    """Replay a request log through the simplest continuous batching, and return TTFT and end-to-end times, seconds.

    The log has 100 prompts that come again and again, and the engine caches prefixes: from its second time on a prompt
    has one block of 16 tokens to compute. There is no host time in this, and KV memory never runs out.
    """
    arrivals, prompts, outputs = (
        log[name].to_list() for name in ("arrival_time_us", "input_tokens", "output_tokens_generated")
    )
    ttft, e2e = np.zeros(len(arrivals)), np.zeros(len(arrivals))
    now, following, seen = 0.0, 0, set[int]()
    waiting: list[tuple[int, int, int]] = []
    running: dict[int, int] = {}
    while following < len(arrivals) or waiting or running:
        if not waiting and not running:
            now = max(now, arrivals[following] / 1e6)
        while following < len(arrivals) and arrivals[following] / 1e6 <= now:
            prompt = int(log["prompt_id"][following])
            new = 16 if prompt in seen else prompts[following]
            waiting.append((following, min(new, prompts[following]), prompts[following]))
            seen.add(prompt)
            following += 1
        left = budget - len(running)
        chunks: list[tuple[int, int]] = []
        done: list[int] = []
        while waiting and left > 0 and len(running) + len(chunks) < most:
            index, new, prompt = waiting.pop(0)
            size = min(new, left)
            chunks.append((size, prompt - new))
            left -= size
            if size < new:
                waiting.insert(0, (index, new - size, prompt))
            else:
                done.append(index)
        context = sum(prompts[index] + made for index, made in running.items())
        sequences = len(running) + len(chunks)
        shape = Shape(budget - left, sequences, tuple(chunks), len(running), context)
        now += roofline.iteration_ns(shape) / 1e9
        for index in [*running, *done]:
            if index in done:
                ttft[index] = now - arrivals[index] / 1e6
            running[index] = running.get(index, 0) + 1
            if running[index] >= outputs[index]:
                e2e[index] = now - arrivals[index] / 1e6
                del running[index]
    return ttft, e2e


def against_request_logs(data: Path) -> None:
    """Print the error of TTFT, inter-token time and end-to-end time of the logs of Llama-2-7B on one H100."""
    print(
        f"\n{'request logs, vLLM 0.15.1, llama-2-7b, H100':<52}{'measured ms':>13}{'predicted':>11}{'median |err|':>14}"
    )
    roofline = Roofline(load_model("llama-2-7b"), load_device("h100-sxm-80gb"), dtype="float16")
    for file in sorted((data / "blis_vllm0151_NOLICENCE/dev/requests").glob("*llama-2-7b-tp1*.csv.gz")):
        log = pl.read_csv(file).filter(~pl.col("has_error")).sort("arrival_time_us")
        ttft, e2e = replay(roofline, log)
        steps = np.maximum(log["output_tokens_generated"].to_numpy() - 1, 1)
        real_ttft, real_e2e = log["ttft_s"].to_numpy(), log["e2e_s"].to_numpy()
        pairs = {"TTFT": (real_ttft, ttft), "inter-token": ((real_e2e - real_ttft) / steps, (e2e - ttft) / steps),
                 "end to end": (real_e2e, e2e)}  # fmt: skip
        for name, (real, ours) in pairs.items():
            title = f"{file.name.split('-tp1-')[1].split('.')[0]}: {name}"
            error = np.median(np.abs(ours / real - 1))
            print(f"{title:<52}{np.median(real) * 1e3:>13.1f}{np.median(ours) * 1e3:>11.1f}{error:>14.0%}")


if __name__ == "__main__":
    cost_of_a_call()
    what_it_says()
    if len(sys.argv) > 1:
        against_static_batches(Path(sys.argv[1]))
        against_request_logs(Path(sys.argv[1]))
