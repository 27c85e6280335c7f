"""What a simulated iteration, request and worker cost.

    python tests/benchmarks/bench_serving.py [TRACE.csv.gz]

Prints: (1) 50,000 ShareGPT-like requests on one A100 as a whole process, wall seconds and peak memory, start-up
included; (2) microseconds an iteration as the batch grows from 8 to 256; (3) microseconds a request as the fleet grows.
TRACE has the columns prompt_len and output_len; request i arrives at i/8 s. Without it lengths come from the bundled
preset ``sharegpt``.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import simloop

MODELS = ("llama-3.1-8b", "llama-2-7b")


def main() -> None:
    """Run the three measurements and print them."""
    trace = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for model in MODELS:
        print(f"50,000 requests at 8/s, {model}, one A100-80GB:", fifty_thousand(model, trace))
    sizes = {batch: iteration_us(batch) for batch in (8, 32, 128, 256)}
    print("us an iteration by batch:", sizes, f"256 against 8: {sizes[256] / sizes[8]:.2f}x")
    print("us a request by workers:", {workers: request_us(workers) for workers in (10, 100, 1000)})


def fifty_thousand(model: str, trace: Path | None) -> dict[str, Any]:
    """Run the command three times in processes of their own; return median wall seconds, peak MB and what it served."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scenario.json"
        path.write_text(json.dumps(scenario(model, trace)))
        command = [sys.executable, "-m", "simloop", "run", str(path), "--json", "--quiet"]
        walls = []
        for _ in range(3):
            started_s = time.perf_counter()
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            walls.append(time.perf_counter() - started_s)
    summary = json.loads(done.stdout)
    return {
        "wall_s": round(statistics.median(walls), 2),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
        "completed": summary["completed"],
        "iterations": summary["iterations"],
        "output_tokens": summary["total_output_tokens"],
    }


def scenario(model: str, trace: Path | None) -> dict[str, Any]:
    """Return the scenario of the first measurement."""
    columns = {"input_tokens": "prompt_len", "output_tokens": "output_len"}
    lengths = {"path": str(trace.resolve()), "format": "csv", "columns": columns} if trace else {"preset": "sharegpt"}
    workload = {"requests": 50_000, "arrivals": {"process": "constant", "rate": 8}, "lengths": lengths}
    return {"model": model, "workers": [{"name": "gpu", "device": "a100-sxm-80gb"}], "workload": workload}


def iteration_us(batch: int) -> float:
    """Return the cost of a decode iteration with a constant batch and more KV blocks than it can fill."""
    spec = {
        "model": "llama-3.1-8b",
        "workers": [{"device": "h200-sxm-141gb", "engine": {"max_num_seqs": batch, "num_gpu_blocks_override": 10**6}}],
        "workload": {
            "requests": batch,
            "arrivals": {"process": "burst"},
            "lengths": {"input": 16, "output": 20_000},
        },
    }
    results = [simloop.simulate(spec) for _ in range(5)]
    return round(statistics.median(r.wall_s / r.iterations * 1e6 for r in results), 2)


def request_us(workers: int) -> float:
    """Return the cost of a request, with 100 requests a worker."""
    requests = workers * 100
    spec = {
        "model": "llama-3.1-8b",
        "workers": [{"device": "a100-sxm-80gb", "count": workers}],
        "policies": {"route": "least_loaded"},
        "workload": {
            "requests": requests,
            "arrivals": {"process": "poisson", "rate": workers * 4},
            "lengths": {"preset": "sharegpt"},
        },
    }
    result = simloop.simulate(spec)
    return round(result.wall_s / requests * 1e6, 1)


if __name__ == "__main__":
    main()
