"""The composition of an iteration from layer profiles, slow and word for word; nothing is shared with simloop."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

Point = tuple[int, int, int, int]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


def ns(row: dict[str, str]) -> int:
    return max(1, round(float(row["time_us"]) * 1000))


def line(points: dict[int, float], x: float) -> float:
    """Clamp below, interpolate between, go on above."""
    xs = sorted(points)
    if x <= xs[0] or len(xs) == 1:
        return points[xs[0]]
    high = next((i for i, known in enumerate(xs) if known >= x), len(xs) - 1)
    a, b = xs[high - 1], xs[high]
    return points[a] + (points[b] - points[a]) * (x - a) / (b - a)


class Reference:
    def __init__(self, folder: Path, layers: int, bins: dict[tuple[int, int, int, int, int], float], default: float):
        self.layers, self.bins, self.default = layers, bins, default
        self.dense: dict[str, dict[int, float]] = {}
        for row in rows(folder / "dense.csv"):
            self.dense.setdefault(row["layer"], {})[int(row["tokens"])] = ns(row)
        self.heads: dict[str, dict[int, float]] = {}
        for row in rows(folder / "per_sequence.csv"):
            self.heads.setdefault(row["layer"], {})[int(row["sequences"])] = ns(row)
        names = ("prefill_chunk", "n_decode", "kv_prefill", "kv_decode")
        self.attention: dict[Point, float] = {}
        for row in rows(folder / "attention.csv"):
            pc, nd, kp, kd = (int(row[name]) for name in names)
            self.attention[pc, nd, kp, kd] = ns(row)

    def plane(self, pc: int, nd: int, kp: float, kd: float) -> float:
        pairs = sorted({point[:2] for point in self.attention})
        if (pc, nd) not in pairs:
            pc, nd = min(pairs, key=lambda pair: abs(pair[0] - pc) + abs(pair[1] - nd))
        by_history: dict[int, dict[int, float]] = {}
        for (a, b, history, context), time in self.attention.items():
            if (a, b) == (pc, nd):
                by_history.setdefault(history, {})[context] = time
        return line({history: line(points, kd) for history, points in by_history.items()}, kp)

    def lookup(self, pc: int, kp: float, nd: int, kd: float) -> float:
        chunks = {point[0] for point in self.attention}
        counts = {point[1] for point in self.attention}
        return line({a: line({b: self.plane(a, b, kp, kd) for b in counts}, nd) for a in chunks}, pc)

    def alpha(self, pc: int, n: int, rate: float, longest: int, kp: int) -> float:
        edges = (
            [0, 2, 4, 8, 16, 32, 64, 128, 256, 1e6],
            [-0.01, 0.05, 0.15, 0.4, 0.7, 1.01],
            [0, 1024, 4096, 16384, 1e9],
            [-1, 0, 512, 1024, 2048, 4096, 8192, 1e9],
        )
        place = [
            next(i for i, (low, high) in enumerate(pairwise(edge)) if low < value <= high)
            for edge, value in zip(edges, (n, rate, longest, kp), strict=True)
        ]
        return self.bins.get((pc, place[0], place[1], place[2], place[3]), self.default)

    def iteration_ns(self, step: list[tuple[int, int]]) -> int:
        """Price a step of (new tokens, computed tokens) for each request."""
        tokens = sum(new for new, _ in step)
        block = sum(
            (2 if name == "layernorm" else 1) * int(line(points, tokens))
            for name, points in self.dense.items()
            if name not in ("embedding", "final_layernorm")
        )
        once = sum(int(line(self.dense[name], tokens)) for name in ("embedding", "final_layernorm"))
        once += sum(int(line(points, len(step))) for points in self.heads.values())
        pc, kp = sum(new for new, _ in step if new > 1), sum(cached for new, cached in step if new > 1)
        contexts = [cached for new, cached in step if new == 1]
        mean = sum(contexts) // len(contexts) if contexts else 0
        time = self.lookup(pc, kp, len(contexts), mean)
        if len(contexts) > 1 and max(contexts) != mean:
            upper = self.lookup(pc, kp, len(contexts), max(contexts))
            rate = (mean - min(contexts)) / (max(contexts) - min(contexts))
            alpha = self.alpha(pc, len(contexts), rate, max(contexts), kp)
            time += alpha * (upper - time) if upper > time else 0
        return self.layers * (block + int(time)) + once + 2 * (tokens * 4 // 256)
