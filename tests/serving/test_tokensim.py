"""The public TokenSim on its own inputs: a user's timing model and a user's policy give the same answers.

Both are written here as a user would write them, from the description of that simulator; its outputs are read from the
folder of measured data, and the test is skipped where there is none. Our times are whole nanoseconds, its are floats.
"""

from __future__ import annotations

import os
from heapq import heapify, heappop
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from simloop.hardware import IterationShape
from simloop.serving import Batch, Engine, Request, Worker
from tests.serving.world import make_cluster, serve, token_times

DATA = Path(os.environ.get("SIMLOOP_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "tokensim"
HIDDEN, LAYERS, FFN, FFN_MATRICES = 4096, 32, 11008, 3
TERA = 2**40


class Cost:
    """Its cost of an iteration of Llama-7B; what rounding to a nanosecond leaves over goes to the next iteration."""

    def __init__(self, tflops: float, terabytes_s: float) -> None:
        self.flops, self.bytes_s = tflops * TERA, terabytes_s * TERA
        self.weights = LAYERS * (4 * HIDDEN**2 + FFN_MATRICES * HIDDEN * FFN)
        self.rest_ns = 0.0

    def seconds(self, shape: IterationShape) -> float:
        if shape.chunks:
            tokens = 128 * (shape.num_tokens // 128) + 128
            dense = max(2 * self.weights * tokens / self.flops, 2 * self.weights / self.bytes_s)
            attention = sum(4 * prompt**2 * HIDDEN * LAYERS / self.flops for prompt, _ in shape.chunks)
            return 1.41 * (dense + attention) + 0.009
        dense = max(2 * self.weights * shape.num_decodes / self.flops, 2 * self.weights / self.bytes_s)
        return (dense + shape.decode_context * 4 * HIDDEN * LAYERS / self.bytes_s) / 0.55

    def iteration_ns(self, shape: IterationShape) -> int:
        exact_ns = self.seconds(shape) * 1e9 + self.rest_ns
        self.rest_ns = exact_ns - round(exact_ns)
        return round(exact_ns)


class Equal:
    """A message whose priority is that of all others, in a binary heap."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def __lt__(self, other: object) -> bool:
        return False


class PromptsFirst:
    """Whole prompts in iterations of their own; what arrived in one iteration leaves a heap of equals, out of order."""

    def __init__(self) -> None:
        self.known = -1

    async def __call__(self, worker: Worker) -> Batch:
        fresh = [Equal(request) for request in worker.waiting if request.id > self.known]
        if fresh:
            self.known = max(message.request.id for message in fresh)
            for _ in fresh:
                worker.waiting.pop()
            heapify(fresh)
            while fresh:
                worker.waiting.append(heappop(fresh).request)
        batch, kv = worker.batch(), worker.kv
        while worker.waiting and kv.free - kv.blocks_for(worker.waiting[0].prompt_tokens) >= kv.total // 100:
            request = worker.waiting[0]
            worker.admit(request)
            batch.add_prefill(request, request.prompt_tokens)
        if not batch:
            batch.add_decodes()
        return batch


RUNS = {
    "a80_uniform_q2_n2000": (312, 2.0, 8655),
    "a80_uniform_q4_n2000": (312, 2.0, 8655),
    "a80_uniform_q8_n2000": (312, 2.0, 8655),
    "a80_poisson_q8_n2000": (312, 2.0, 8655),
    "h1_uniform_q8_n2000": (312, 1.555, 3535),
}


@pytest.mark.parametrize("name", RUNS)
def test_the_same_times_as_the_public_code(name: str) -> None:
    file = DATA / f"{name}.csv.gz"
    if not file.is_file():
        pytest.skip(f"there is no {file.name} in the folder of measured data (SIMLOOP_DATA)")
    theirs = pl.read_csv(file).sort("id")
    tflops, terabytes_s, blocks = RUNS[name]
    cluster: Any = make_cluster(
        blocks=blocks, timing=Cost(tflops, terabytes_s), engine=Engine(max_num_seqs=99_999), check=False
    )
    cluster.workers[0].schedule = PromptsFirst()
    rows = [(round(t * 1e9), p, o) for t, p, o in theirs.select("arrival_s", "prompt_len", "output_len").iter_rows()]
    requests, times = serve(cluster, rows), token_times(cluster)
    for mine, ttft_s, finish_s in zip(requests, theirs["ttft_s"], theirs["finish_s"], strict=True):
        assert (times[mine.id][0] - mine.arrival_ns) / 1e9 == pytest.approx(ttft_s, abs=3e-9, rel=0)
        assert mine.finish_ns / 1e9 == pytest.approx(finish_s, abs=3e-9, rel=0)
