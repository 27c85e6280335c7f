"""What breakpoints cost: microseconds of processor time for an iteration of 8 decoding requests.

    python tests/benchmarks/bench_hooks.py

The hooks await nothing. Without one the worker sleeps once an iteration; with one at operators it walks them.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import simloop
from simloop.serving import Cluster

CASES = {
    "no hook": None,
    "at token (8 calls)": ("at", "token"),
    "at finished (no call)": ("at", "finished"),
    "after lm_head (1 call)": ("after", "lm_head"),
    "after layers[::4] (8 calls)": ("after", "layers[::4]"),
    "after layers.*.o_proj (32 calls)": ("after", "layers.*.o_proj"),
    "after layers.*.o_proj, in the background": ("background", "layers.*.o_proj"),
    "after layers.*.* and * (292 calls)": ("all", ""),
}
STEPS = 2_000


def main() -> None:
    """Measure every case and print it."""
    for name, case in CASES.items():
        costs = [iteration_us(case) for _ in range(5)]
        print(f"{name:42} {statistics.median(costs):8.1f} us")


def iteration_us(case: tuple[str, str] | None) -> float:
    """Return the processor time of an iteration."""
    cluster = simloop.cluster(SCENARIO)
    if case is not None:
        register(cluster, *case)
    workload = [simloop.Arrival(0, prompt_tokens=16, output_tokens=STEPS)] * 8
    started_s = time.process_time()
    simloop.run(cluster.serve(workload))
    return (time.process_time() - started_s) / cluster.workers[0].iterations * 1e6


def register(cluster: Cluster, when: str, what: str) -> None:
    """Hook something that does nothing."""
    if when == "at":
        cluster.hook(what, quiet)
    elif when == "all":
        cluster.after("layers.*.*", quiet)
        cluster.after("*", quiet)
    else:
        cluster.after(what, quiet, background=when == "background")


async def quiet(moment: Any) -> None: ...


SCENARIO: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "workers": [{"device": "a100-sxm-80gb", "engine": {"max_num_seqs": 8}}],
    "workload": {"requests": 8, "arrivals": {"process": "burst"}, "lengths": {"input": 16, "output": STEPS}},
}


if __name__ == "__main__":
    main()
