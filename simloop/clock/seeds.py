"""Named random streams: everything random draws from one of these, so that one draw more here changes nothing there."""

from __future__ import annotations

import asyncio
import hashlib
import random
from weakref import WeakKeyDictionary

from simloop.clock.base import current

__all__ = ["drawn_streams", "rng", "run_seed", "seed_for"]

_streams: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, random.Random]] = WeakKeyDictionary()


def seed_for(seed: int, name: str) -> int:
    """Return a 64-bit seed for the stream ``name`` of a run with ``seed``: the same in every process, for ever."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def run_seed() -> int:
    """Return the seed of the running loop; 0 on a loop that is not simloop's."""
    loop = current.loop
    if loop is None:
        asyncio.get_running_loop()
        return 0
    return loop.seed


def rng(name: str) -> random.Random:
    """Return the random stream ``name`` of the running loop, always the same object.

    Its seed follows from the run's seed and the name alone.
    """
    streams = _streams.setdefault(asyncio.get_running_loop(), {})
    stream = streams.get(name)
    if stream is None:
        stream = streams[name] = random.Random(seed_for(run_seed(), name))
    return stream


def drawn_streams(loop: asyncio.AbstractEventLoop) -> dict[str, object]:
    """Return the state of every random stream of ``loop``, by name."""
    return {name: stream.getstate() for name, stream in _streams.get(loop, {}).items()}
