"""How fast workloads stream, and what memory they need: ``python tests/benchmarks/bench_workload.py [requests]``.

Each line is one workload, iterated to its end in a process of its own; the best of three times is printed.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

from simloop.workload import open_workload

POISSON = {"process": "poisson", "rate": 8}
LOGNORMAL = {"distribution": "lognormal", "mean": 200, "std": 300, "max": 4096}
SYNTHETIC: dict[str, dict[str, Any]] = {
    "poisson, fixed lengths": {"arrivals": POISSON, "lengths": {"input": 512, "output": 64}},
    "gamma, fixed lengths": {
        "arrivals": {"process": "gamma", "rate": 8, "burstiness": 0.5},
        "lengths": {"input": 512, "output": 64},
    },
    "poisson, log-normal lengths": {"arrivals": POISSON, "lengths": {"input": LOGNORMAL, "output": LOGNORMAL}},
    "poisson, azure-conv-2023": {"arrivals": POISSON, "lengths": {"preset": "azure-conv-2023"}},
}
HEADERS = {
    "csv trace, ns": ("arrival_ns,input_tokens,output_tokens", "{ns},512,64"),
    "csv trace, s": ("arrival_s,input_tokens,output_tokens", "{s:.6f},512,64"),
    "azure trace": ("TIMESTAMP,ContextTokens,GeneratedTokens", "2023-11-16 {h:02d}:{m:02d}:{rest:010.7f},512,64"),
    "mooncake trace": (
        "",
        '{{"timestamp": {ms}, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2, 3]}}',
    ),
}


def write_trace(path: Path, header: str, row: str, requests: int) -> None:
    """Write a trace of one request every 10 ms."""
    with path.open("w") as file:
        file.write(f"{header}\n" if header else "")
        for number in range(requests):
            seconds = number / 100
            minutes, rest = divmod(seconds, 60)
            times = {"ns": number * 10**7, "ms": number * 10, "s": seconds, "rest": rest}
            file.write(row.format(h=int(minutes) // 60, m=int(minutes) % 60, **times) + "\n")


def measure(spec: dict[str, Any]) -> tuple[float, float]:
    """Return the shortest of three times, s, and the growth of the process while iterating, MB."""
    workload = open_workload(spec, seed=0)
    deque(zip(range(10_000), workload, strict=False), maxlen=0)  # imports and tables
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for _arrival in workload:
            pass
        times.append(time.perf_counter() - started)
    return min(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    """Measure all of them."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        specs = {name: {"requests": requests, **spec} for name, spec in SYNTHETIC.items()}
        for number, (name, (header, row)) in enumerate(HEADERS.items()):
            path = Path(folder, f"trace{number}")
            write_trace(path, header, row, min(requests, 200_000))
            specs[name] = {"trace": {"path": str(path)}}
        print(f"{'workload':<30}{'requests':>10}{'seconds':>9}{'requests/s':>12}{'grows MB':>10}")
        for name, spec in specs.items():
            count = requests if "requests" in spec else min(requests, 200_000)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, grown_mb = pool.apply(measure, (spec,))
            print(f"{name:<30}{count:>10,}{seconds:>9.2f}{count / seconds:>12,.0f}{grown_mb:>10.1f}")


if __name__ == "__main__":
    main()
