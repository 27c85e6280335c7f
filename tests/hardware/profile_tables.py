"""Small layer profiles for tests: every time is different, nothing is monotone, and the attention table has holes."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DENSE = ["embedding", "layernorm", "qkv_proj", "rotary_emb", "o_proj", "gate_up_proj", "act_fn", "down_proj"]
BINS = ["n<=2", "n<=4", "n<=8", "n<=16"], ["sr<=5%", "sr<=15%", "sr<=40%", "sr<=70%", "sr>70%"], ["kvB<=1k", "kvB<=4k"]


def write_csv(file: Path, header: str, rows: Iterable[Iterable[Any]]) -> None:
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)


def attention_points(rng: random.Random) -> Iterable[tuple[int, int, int, int, float]]:
    for chunk in (0, 16, 64, 100):
        for decodes in (0, 1, 2, 8):
            if (chunk, decodes) in ((0, 0), (64, 2), (100, 8)):
                continue
            for history in (0, 16, 128) if chunk else (0,):
                for context in ((16, 64, 300) if decodes < 8 else (16, 48, 300)) if decodes else (0,):
                    yield chunk, history, decodes, context, round(rng.uniform(5, 50), 3)


def write_bundle(folder: Path, seed: int = 0) -> Path:
    """Write a whole bundle below a folder; return the folder."""
    rng, tables = random.Random(seed), folder / "tp1"
    tables.mkdir(parents=True)
    layers = [*DENSE, "final_layernorm"]
    dense = [(layer, tokens, round(rng.uniform(2, 9), 3)) for layer in layers for tokens in (1, 2, 8, 64, 128)]
    write_csv(tables / "dense.csv", "layer,tokens,time_us", dense)
    heads = [(layer, count, round(rng.uniform(2, 9), 3)) for layer in ("lm_head", "sampler") for count in (1, 4, 16)]
    write_csv(tables / "per_sequence.csv", "layer,sequences,time_us", heads)
    header = "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us"
    write_csv(tables / "attention.csv", header, attention_points(rng))
    bins = [
        (0, n, rate, kv, "kp=0", round(rng.uniform(-0.1, 0.9), 4), 3)
        for n in BINS[0]
        for rate in BINS[1]
        for kv in BINS[2]
    ]
    bins += [(64, "n<=4", "sr<=40%", "kvB<=1k", "kp<=512", 0.5, 1)]
    write_csv(tables / "skew_fit.csv", "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples", bins)
    settings = "skew_fit:\n  enabled: true\n  per_tp:\n    1: {alpha_default: 0.0543}\n"
    (folder / "meta.yaml").write_text("gpu: a card\nvllm_version: 0.19.0\n" + settings)
    return folder
