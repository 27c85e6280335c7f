"""Keys and values on their way from one worker to another, beside what both compute.

How they are sent:

- ``whole``: in one piece, when the prompt is read;
- ``layer``: each layer's when the last iteration of the prefill has done that layer, so that most of the transfer hides
  behind the prefill. Layers are equal shares of an iteration's time (the embedding and the head are counted in);
- ``block``: each KV block's when it is full: what earlier chunks of a prompt have stored leaves during the last one.

The receiver may start when the first layers are there. Its first iteration with the request then does no layer before
that layer's keys and values have come; everybody in that batch waits with it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

import attrs

from simloop.clock import Event, sleep_until_ns
from simloop.errors import InputError, did_you_mean
from simloop.network import Path, Stream, split

if TYPE_CHECKING:
    from simloop.serving.request import Request
    from simloop.serving.worker import Worker

__all__ = [
    "Departure",
    "Preload",
    "SendKV",
    "check_send",
    "expect",
    "forget_kv",
    "layers_done_ns",
    "stream_kv",
]

SendKV = Literal["whole", "layer", "block"]


@attrs.define(eq=False)
class Departure:
    """A request that was handed back while the last part of its prompt was being scheduled: it leaves after that.

    Attributes:
        tokens: Tokens that will be stored for it then.
        earlier: Those of them that were stored before.
        span_ns: Start and end of the iteration, as far as known when it starts.
        begun: Set when the iteration starts.
        over: Set when it is over, and the request has left.
    """

    tokens: int
    earlier: int
    span_ns: tuple[int, int] = (0, 0)
    begun: Event = attrs.Factory(lambda: Event("the last iteration of a prefill to start"))
    over: Event = attrs.Factory(lambda: Event("the last iteration of a prefill to end"))


@attrs.define(eq=False)
class Preload:
    """A receiver's buffer for keys and values: so many requests at once may be under way to it, or wait there.

    A request has a place from the start of its transfer until the receiver admits it. Without a buffer (0 places) it
    is one at a time, and the next is only loaded when the one before has ended: TokenSim's default.

    Attributes:
        places: How many; 0 is sequential.
        name: The receiver's, for reports.
    """

    places: int
    name: str
    _held: dict[Request, None] = attrs.Factory(dict)
    _line: deque[tuple[Request, Event]] = attrs.Factory(deque)

    async def take(self, request: Request) -> None:
        """Wait for a place; first come, first served."""
        if not self._line and len(self._held) < max(self.places, 1):
            self._held[request] = None
            return
        turn = Event(f"a place in the preload buffer of {self.name}")
        self._line.append((request, turn))
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self.release(request)
            else:
                self._line.remove((request, turn))
            raise

    def admitted(self, request: Request) -> None:
        """Note that the receiver has taken a request out of the buffer."""
        if self.places:
            self.release(request)

    def release(self, request: Request) -> None:
        """Give a request's place, if it has one, to the next in line."""
        if request not in self._held:
            return
        del self._held[request]
        if self._line:
            following, turn = self._line.popleft()
            self._held[following] = None
            turn.set()


def check_send(by: str, first_layers: int | None, num_layers: int) -> None:
    """Refuse a way of sending that there is not.

    Raises:
        InputError: ``by`` is unknown, or ``first_layers`` is not a number of layers, or goes with something else.
    """
    ways = ("whole", "layer", "block")
    if by not in ways:
        raise InputError(f"KV is sent by {', '.join(ways)}, found {by!r}{did_you_mean(by, ways)}")
    if first_layers is None:
        return
    if by != "layer":
        raise InputError(f"first_layers goes with KV that is sent by layer, not {by}")
    if not 0 < first_layers <= num_layers:
        raise InputError(f"first_layers: found {first_layers}, expected 1 to {num_layers}, the layers of the model")


def expect(worker: Worker, request: Request) -> None:
    """Count a request whose keys and values are sent here."""
    worker.coming[request] = None
    worker.load_changed(1)


def forget_kv(worker: Worker, request: Request) -> None:
    """Give a request's place in the preload buffer to the next one: it is not needed any more."""
    worker.incoming.pop(request, None)
    if worker.coming.pop(request, 0) is None:
        worker.load_changed(-1)
    if worker.preload is not None:
        worker.preload.release(request)


async def stream_kv(request: Request, source: Worker, over: Path, by: SendKV, first_layers: int | None) -> Stream:
    """Send a request's keys and values; return when all of them, or the first layers, have arrived.

    By then the request has left its worker. What is cancelled gives its share of the links back at once.
    """
    departure = request._departure
    sizes, earlier = _parts(request, source, by)
    stream = Stream(over, sizes, name=f"KV of request {request.id}")
    try:
        if departure is not None:
            await departure.begun.wait()
            stream.ready(earlier)
            if by == "layer":
                await _follow_layers(stream, departure.span_ns)
            await departure.over.wait()
        stream.ready_all()
        await stream.arrived(first_layers)
    except BaseException:
        stream.cancel()
        raise
    return stream


def layers_done_ns(arrivals_ns: Iterable[Iterable[int]], start_ns: int, end_ns: int) -> int:
    """Return when an iteration is over that does no layer before that layer's keys and values have arrived.

    A layer starts when the one before is done and its keys and values are there, and takes an equal share ``d`` of the
    iteration: with ``a[i]`` the arrival of layer ``i`` of ``n``, the end is ``max(end, max_i(a[i] + (n - i) d))``.

    Args:
        arrivals_ns: For each request that was sent by layer, when each of its layers arrived.
        start_ns: When the iteration starts.
        end_ns: When it would be over if everything were there.
    """
    latest = end_ns
    for arrivals in map(list, arrivals_ns):
        count, length = len(arrivals), end_ns - start_ns
        for layer, arrival in enumerate(arrivals):
            latest = max(latest, arrival + length - length * layer // count)
    return latest


def _parts(request: Request, worker: Worker, by: SendKV) -> tuple[list[int], int]:
    """Return the sizes of what is sent, in bytes, and how many of the parts are there already."""
    departure = request._departure
    tokens = request.computed if departure is None else departure.tokens
    per_token = worker.model.kv_bytes_per_token
    if by == "layer":
        return split(tokens * per_token, worker.model.num_layers), 0
    if by == "whole":
        return [tokens * per_token], 0
    block = worker.kv.block_size
    sizes = [min(block, tokens - first) * per_token for first in range(0, tokens, block)]
    return sizes, 0 if departure is None else departure.earlier // block


async def _follow_layers(stream: Stream, span_ns: tuple[int, int]) -> None:
    """Let each layer but the last go when the iteration has done it; the last is done when the iteration is over."""
    (start_ns, end_ns), count = span_ns, len(stream.parts)
    for layer in range(1, count):
        await sleep_until_ns(start_ns + (end_ns - start_ns) * layer // count)
        stream.ready()
