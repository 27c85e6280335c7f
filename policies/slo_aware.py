"""Routing by predicted TTFT: the fullest worker that keeps the limit, or the one with the least TTFT if none does.

Packing the requests that can wait leaves the emptier workers to those that cannot, at the price of a longer TPOT. The
prediction is the price of the iterations that read all prompts before this one and its own (but for what the prefix
cache has), each beside the requests that decode now. A worker where the request would have to wait for a seat or for KV
memory, nobody knows how long, does not keep the limit. Costs a walk over all requests whose prompt is not read, and a
search in every prefix cache.

Source: Qin et al., "Mooncake", FAST 2025, algorithm 1 (the prediction: queue, cached prefix, prefill time; Mooncake
rejects where none keeps the limit); predicted-latency routing of the Gateway API inference extension (least headroom).

Parameters:
    ttft_s: Limit on the time to the first token, seconds.
"""

from __future__ import annotations

from simloop.serving import Cluster, Request, Worker
from simloop.serving.policy import check_number


class route:  # noqa: N801 - named after what it is, like the functions
    """The limit."""

    def __init__(self, ttft_s: float = 1.0) -> None:
        self.ttft_s = check_number("ttft_s", ttft_s, least=0)

    async def __call__(self, request: Request, cluster: Cluster) -> Worker:
        """Return a worker that is predicted to keep the limit."""
        predicted = {worker: predicted_ttft_s(request, worker) for worker in cluster.workers}
        keeping = [worker for worker, (full, ttft_s) in predicted.items() if not full and ttft_s <= self.ttft_s]
        if keeping:
            return max(keeping, key=lambda worker: predicted[worker])
        return min(cluster.workers, key=lambda worker: predicted[worker])


def predicted_ttft_s(request: Request, worker: Worker) -> tuple[bool, float]:
    """Return whether a request must wait for room on a worker, and its TTFT if it need not, seconds."""
    kv, engine = worker.kv, worker.engine
    cached, _ = kv.found(request)
    queued = [*worker.arriving, *worker.inbox, *worker.waiting, *worker.prefilling]
    tokens = request.to_prefill - cached * kv.block_size + sum(other.to_prefill for other in queued)
    decodes = len(worker.decoding)
    chunk = min(tokens, max(1, engine.max_num_batched_tokens - decodes))
    step = worker.batch()  # only to be priced
    step.decodes = decodes > 0
    step.chunks.append((chunk, 0))
    step.num_tokens, step.num_sequences = chunk + decodes, 1 + decodes
    step.num_decodes, step.decode_context = decodes, worker.decoding.context + decodes
    full = worker.load >= engine.max_num_seqs or kv.blocks_for(tokens) > kv.free
    return full, -(-tokens // chunk) * worker.timing.iteration_ns(step) / 1e9
