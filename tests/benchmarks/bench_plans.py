"""How far plans over several devices, experts and quantised weights are from measured systems.

    python -m tests.benchmarks.bench_plans DATA

DATA holds ``vidur/calib/compute``, ``blis_vllm0151_NOLICENCE/dev/requests`` (vLLM 0.15.1, CodeLlama-34B on two H100s),
``apex_vllm060_h100/dev`` (vLLM 0.6.0, Llama-3.1-70B on four and eight H100s), ``llm_inference_bench/dev`` (static
batches on two and four A100s and H100s) and ``aiconfigurator/dev`` (InferenceX: vLLM, closed loop, also quantised and
mixtures). Nothing but the kernels of the cards was fitted to any of it, and no host time is in the predictions.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import polars as pl

from simloop.hardware import Prices, Roofline, Shape, load_device
from simloop.model import Gemm, Plan, load_model, shard
from tests.benchmarks.bench_roofline import DEVICES, MODELS, card, replay, static_batch_s

VIDUR = {
    "attn_pre_proj": "qkv_proj",
    "attn_post_proj": "o_proj",
    "mlp_up_proj": "gate_up_proj",
    "mlp_down_proj": "down_proj",
}
VIDUR_MODELS = {"Llama-2-7b-hf": "llama-2-7b", "Llama-2-70b-hf": "llama-2-70b", "Meta-Llama-3-8B": "llama-3-8b"}
SILICON = {
    ("Qwen/Qwen3-32B", None): "qwen3-32b",
    ("Qwen/Qwen3-32B", "fp8"): "qwen3-32b-fp8",
    ("meta-llama/Llama-3.1-70B", "fp8"): "llama-3.1-70b-fp8",
    ("nvidia/Llama-3.1-8B-Instruct-FP8", "fp8"): "llama-3.1-8b-fp8",
    ("openai/gpt-oss-120b", "fp4"): "gpt-oss-120b",
}
SYSTEMS = {"h100_sxm": "h100-sxm-80gb", "h200_sxm": "h200-sxm-141gb"}


def show(title: str, ratios: list[float]) -> None:
    """Print the distribution of predicted over measured."""
    ratio = np.array(ratios)
    p10, median, p90 = np.quantile(ratio, [0.1, 0.5, 0.9])
    error = np.median(np.abs(ratio - 1))
    print(f"{title:<58}{len(ratio):>6}{median:>8.2f}{p10:>7.2f}{p90:>7.2f}{error:>7.0%}")


def head(title: str) -> None:
    """Print the head of a table of :func:`show`."""
    print(f"\n{title:<58}{'points':>6}{'median':>8}{'p10':>7}{'p90':>7}{'|err|':>7}")


def against_layers(data: Path) -> None:
    """Matrix products of one rank against Vidur's tables."""
    head("products of a rank, Vidur: predicted / measured")
    for device, name in (("a100", "a100-sxm-80gb"), ("h100", "h100-sxm-80gb")):
        prices = Prices(load_device(name), "float16")
        for file in sorted((data / "vidur/calib/compute" / device).rglob("mlp.csv.gz")):
            model, table = load_model(VIDUR_MODELS[file.parent.name]), pl.read_csv(file)
            for ranks in (1, 2, 4, 8):
                rows = table.filter(pl.col("num_tensor_parallel_workers") == ranks)
                (stage,) = shard(model, Plan(tensor_parallel=ranks))
                gemms = {op.name: op for op, _ in stage.operators if isinstance(op, Gemm)}
                ratios = [
                    prices.gemm(gemms[ours], tokens).total / (1e6 * ms)
                    for theirs, ours in VIDUR.items()
                    for tokens, ms in rows.select("num_tokens", f"time_stats.{theirs}.median").iter_rows()
                    if ms > 0.02
                ]
                if ratios:
                    show(f"{name} {model.name} TP {ranks}", ratios)


def against_codellama(data: Path) -> None:
    """Print the errors of the logs of CodeLlama-34B on two H100s."""
    plan = Plan(tensor_parallel=2)
    roofline = Roofline(load_model("codellama-34b"), load_device("h100-sxm-80gb"), dtype="float16", plan=plan)
    print(f"\n{'logs, vLLM 0.15.1, codellama-34b, TP 2':<46}{'measured ms':>13}{'predicted':>11}{'median |err|':>14}")
    for file in sorted((data / "blis_vllm0151_NOLICENCE/dev/requests").glob("*codellama-34b-tp2*.csv.gz")):
        log = pl.read_csv(file).filter(~pl.col("has_error")).sort("arrival_time_us")
        ttft, e2e = replay(roofline, log)
        steps = np.maximum(log["output_tokens_generated"].to_numpy() - 1, 1)
        real_ttft, real_e2e = log["ttft_s"].to_numpy(), log["e2e_s"].to_numpy()
        pairs = {"TTFT": (real_ttft, ttft), "inter-token": ((real_e2e - real_ttft) / steps, (e2e - ttft) / steps),
                 "end to end": (real_e2e, e2e)}  # fmt: skip
        for name, (real, ours) in pairs.items():
            title = f"{file.name.split('-tp2-')[1].split('.')[0]}: {name}"
            error = np.median(np.abs(ours / real - 1))
            print(f"{title:<46}{np.median(real) * 1e3:>13.1f}{np.median(ours) * 1e3:>11.1f}{error:>14.0%}")


def against_apex(data: Path) -> None:
    """Print mean TTFT and time per token of Llama-3.1-70B on four and eight H100s."""
    print(f"\n{'means, vLLM 0.6.0, llama-3.1-70b, H100':<46}{'TTFT ms':>10}{'ours':>8}{'ratio':>7}{'TPOT ms':>10}"
          f"{'ours':>8}{'ratio':>7}")  # fmt: skip
    device, model = load_device("h100-sxm-80gb"), load_model("llama-3.1-70b")
    for row in pl.read_csv(data / "apex_vllm060_h100/dev/runs_dev.csv").iter_rows(named=True):
        roofline = Roofline(model, device, plan=Plan(tensor_parallel=row["tp"]))
        file = data / f"apex_vllm060_h100/dev/requests/{row['run']}.csv.gz"
        log = pl.read_csv(file).sort("arrival_s").select(
            arrival_time_us=pl.col("arrival_s") * 1e6, input_tokens="input_tokens", prompt_id=pl.int_range(pl.len()),
            output_tokens_generated=pl.col("output_tokens").clip(1),
        )  # fmt: skip
        ttft, e2e = replay(roofline, log, most=256, budget=512)
        outputs = log["output_tokens_generated"].to_numpy()
        tpot = float(np.sum(e2e - ttft) / max(1, np.sum(outputs - 1)))
        ours = (1e3 * float(np.mean(ttft)), 1e3 * tpot)
        real = (1e3 * row["mean_ttft_s"], 1e3 * row["mean_tpot_s"])
        cells = "".join(f"{r:>10.1f}{o:>8.1f}{o / r:>7.2f}" for r, o in zip(real, ours, strict=True))
        print(f"{row['run'].replace('_validation', ''):<46}{cells}")


def against_static_batches(data: Path) -> None:
    """Latency of static batches on two and four devices."""
    head("static batches, LLM-Inference-Bench: predicted / measured")
    table = pl.read_csv(data / "llm_inference_bench/dev/static_batch_dev.csv.gz").filter(
        (pl.col("Num of Hardware") > 1) & pl.col("Hardware").is_in(list(DEVICES))
        & (pl.col("Framework") != "Deepspeed-MII")
    )  # fmt: skip
    keys = ("Hardware", "Num of Hardware", "Framework", "Model")
    for (hardware, ranks, framework, name), rows in table.group_by(keys, maintain_order=True):
        device, model = DEVICES[str(hardware)], load_model(MODELS[str(name)])
        plan = Plan(tensor_parallel=int(str(ranks)))
        roofline = Roofline(model, card(device, str(framework)), dtype="float16", plan=plan)
        ratios = [
            static_batch_s(roofline, int(batch), int(length)) / float(latency)
            for length, batch, latency in rows.select("Input Output Length", "Batch Size", "Latency").iter_rows()
        ]
        show(f"{device[:8]} x {ranks} {framework} {model.name}", ratios)


def against_silicon(data: Path) -> None:
    """Time per token of a closed loop: a decode step, and the prefills that share its time.

    Rows whose requests waited for more than 5 s to start are left out: there the engine ran fewer than were sent.
    NVIDIA's own runs stand apart: their load is not stated, so that the number of requests need not be the batch.
    """
    head("InferenceX, vLLM, time per output token: predicted / measured")
    table = pl.read_csv(data / "aiconfigurator/dev/silicon_e2e_dev.csv.gz", infer_schema_length=None).filter(
        (pl.col("mode") == "agg") & (pl.col("backend") == "vllm") & pl.col("silicon_tpot_ms").is_between(1, 200)
        & (pl.col("silicon_ttft_ms") < 5000)
    ).with_columns(own=pl.col("silicon_data_source").str.contains("_sxm/vllm/"))  # fmt: skip
    keys = ("model_path", "system", "precision", "own")
    for (path, system, precision, own), rows in table.group_by(keys, maintain_order=True):
        name = SILICON.get((str(path), precision if precision is None else str(precision)))
        if name is None:
            continue
        ratios = []
        for row in rows.iter_rows(named=True):
            ranks, experts = int(row["tp_size"]), int(row["moe_ep_size"] or 1) > 1
            plan = Plan(tensor_parallel=ranks, expert_parallel=experts)
            roofline = Roofline(load_model(name), load_device(SYSTEMS[str(system)]), plan=plan)
            batch, inputs, outputs = int(row["batch_size"]), round(0.9 * row["isl"]), round(0.9 * row["osl"])
            step = roofline.iteration_ns(Shape.decode(batch, inputs + outputs // 2))
            step_ms = (step + batch * roofline.iteration_ns(Shape.prefill(inputs)) / outputs) / 1e6
            ratios.append(step_ms / row["silicon_tpot_ms"])
        show(f"{system} {name}{' (NVIDIA)' if own else ''}", ratios)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    against_layers(folder)
    against_codellama(folder)
    against_apex(folder)
    against_static_batches(folder)
    against_silicon(folder)
