"""How late an asyncio client is that sleeps between two requests, as benchmark clients do, while tokens come in.

    python -m tests.benchmarks.late_client

A selector's wait is rounded up to a whole millisecond, and starts anew with every byte that arrives: on an idle machine
a sleep ends half a millisecond late on average, on a busy one later. The client of the TokenSim paper's Table II is
taken to be like that (configs/tokensim-table2-real.yaml).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

GAP_S, REQUESTS = 0.025, 200
TOKENS = (
    "import os, sys, time\nwhile True:\n    os.write(int(sys.argv[1]), b'x')\n    time.sleep(1 / float(sys.argv[2]))"
)


async def sleep_between(read_from: int) -> float:
    """Sleep as often as there are requests; return by how much a gap was too long on average, seconds."""
    asyncio.get_running_loop().add_reader(read_from, lambda: os.read(read_from, 1 << 16))
    start_s = time.monotonic()
    for _ in range(REQUESTS):
        await asyncio.sleep(GAP_S)
    return (time.monotonic() - start_s) / REQUESTS - GAP_S


def main() -> None:
    """Print how late it is at several rates of tokens."""
    for rate in (1, 100, 400, 1000):
        reads, writes = os.pipe()
        command = [sys.executable, "-c", TOKENS, str(writes), str(rate)]
        with subprocess.Popen(command, pass_fds=[writes]) as tokens:
            time.sleep(0.3)
            late_ms = 1e3 * asyncio.run(sleep_between(reads))
            tokens.kill()
        print(f"{rate:>5} tokens/s: a gap of {1e3 * GAP_S:g} ms is {late_ms:.2f} ms longer")


if __name__ == "__main__":
    main()
