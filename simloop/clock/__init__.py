"""Virtual time: the event loop, sleeping, named random streams, deadlock reports.

Nothing in here knows of language models; it is a discrete-event kernel on which ordinary asyncio and anyio code runs.
"""

from simloop.clock.determinism import check_determinism
from simloop.clock.event import Event
from simloop.clock.loop import VirtualLoop
from simloop.clock.running import add_note, new_event_loop, run
from simloop.clock.seeds import rng, run_seed, seed_for
from simloop.clock.sleeping import alone, now, now_ns, sleep, sleep_ns, sleep_until, sleep_until_ns

__all__ = [
    "Event",
    "VirtualLoop",
    "add_note",
    "alone",
    "check_determinism",
    "new_event_loop",
    "now",
    "now_ns",
    "rng",
    "run",
    "run_seed",
    "seed_for",
    "sleep",
    "sleep_ns",
    "sleep_until",
    "sleep_until_ns",
]
