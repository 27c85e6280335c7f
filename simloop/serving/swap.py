"""Swapping: keys and values of a request wait in host memory while others use its KV blocks.

As vLLM did it until 0.6 (``preemption_mode="swap"``) and TokenSim does it: the scheduler decides, its books change at
once, and the copies are made before the next iteration, which is that much longer. What was swapped is not computed
again. Where nobody swaps, nothing here costs anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from simloop.errors import PolicyError
from simloop.serving.books import join
from simloop.serving.request import Phase, Request

if TYPE_CHECKING:
    from simloop.serving.worker import Worker

__all__ = ["SwapSpace", "swap_in", "swap_out"]


@attrs.define(eq=False)
class SwapSpace:
    """The part of the host's memory that a worker swaps KV blocks to, and the link to it.

    Attributes:
        total: KV blocks that it holds.
        block_bytes: Size of one, on each device of the worker.
        gb_s: Bandwidth of the link to the host, GB/s.
        latency_ns: What the copies of one iteration take beside their bytes, in each direction, nanoseconds.
        free_return: Whether swapping in takes no time, as in TokenSim.
        used: Blocks that are held.
    """

    total: int
    block_bytes: int
    gb_s: float
    latency_ns: int = 0
    free_return: bool = False
    used: int = 0
    _started: list[int] = attrs.Factory(lambda: [-1, -1])

    @property
    def free(self) -> int:
        """Blocks that nobody holds."""
        return self.total - self.used

    def copy_ns(self, blocks: int, iteration: int, *, back: bool) -> int:
        """Return how much longer copying so many blocks makes an iteration.

        Args:
            blocks: How many.
            iteration: The iteration, by its number: the copies before it share one latency.
            back: From the host to the device, not to the host.
        """
        if back and self.free_return:
            return 0
        first = self._started[back] != iteration
        self._started[back] = iteration
        return self.latency_ns * first + round(blocks * self.block_bytes / self.gb_s)


def swap_out(worker: Worker, request: Request) -> None:
    """Move a decoding or paused request to host memory; see :meth:`Worker.swap_out`."""
    space = _space(worker)
    if request.phase not in (Phase.DECODING, Phase.PAUSED) or request.worker is not worker:
        raise PolicyError(f"{request!r} was swapped out on {worker.name}, where it does not decode")
    if request.blocks > space.free:
        raise PolicyError(
            f"{request!r} with {request.blocks} KV blocks was swapped out where {space.free} of {space.total} blocks "
            "of host memory are free: raise engine.swap_space"
        )
    worker._stop(request, "swapped out")
    blocks = request._blocks
    worker.kv.release(request, blocks)
    space.used += blocks
    request.phase = Phase.SWAPPED
    worker.swapped[request] = None
    request.preemptions += 1
    request.swaps += 1
    worker.preemptions += 1
    worker.warm_up_ns += space.copy_ns(blocks, worker.turn, back=False)
    worker.wake.set()
    worker.news.add("preempted", request)


def swap_in(worker: Worker, request: Request) -> None:
    """Move a request back from host memory; see :meth:`Worker.swap_in`."""
    space, blocks = _space(worker), request._blocks
    worker._check_between("swapped in")
    if request not in worker.swapped:
        raise PolicyError(f"{request!r} was swapped in on {worker.name}, where it is not swapped out")
    if worker.decoding.scheduled is not None:
        raise PolicyError(f"{request!r} was swapped in after the decodes had been added to the batch")
    worker.kv.take(blocks)
    drop(worker, request)
    request._blocks = blocks
    worker.running[request] = None
    join(worker, request, worker.decoding)
    worker.news.add("resumed", request)
    worker.warm_up_ns += space.copy_ns(blocks, worker.turn, back=True)


def drop(worker: Worker, request: Request) -> None:
    """Free what a request holds of the host's memory."""
    _space(worker).used -= request._blocks
    request._blocks = 0
    del worker.swapped[request]


def _space(worker: Worker) -> SwapSpace:
    if worker.swap is None:
        raise PolicyError(
            f"{worker.name} cannot swap: its device {worker.device.name} states no host_link_gb_s; add it to the card"
        )
    return worker.swap
