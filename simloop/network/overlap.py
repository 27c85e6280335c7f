"""What overlapping transfers with computation gains: closed forms."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["pipeline_ns", "streamed_ns"]


def pipeline_ns(transfer_ns: Sequence[int], compute_ns: Sequence[int], buffer: int | None = None) -> int:
    """Return when a receiver that loads and computes one item after another is done with the last.

    With ``T[i]`` the end of the ``i``-th transfer and ``S[i]`` the start of its computation::

        T[i] = max(T[i-1], place[i]) + transfer[i]
        S[i] = max(T[i], S[i-1] + compute[i-1])

    where ``place[i]`` is the time at which the buffer has room: ``S[i-buffer]``, for an item leaves it when its
    computation starts; without a buffer ``S[i-1] + compute[i-1]``, when the receiver asks for the next. With ``n``
    items of equal times this is ``n (t + c)`` without a buffer, and ``t + (n - 1) max(t, c) + c`` with any: more places
    help only when times vary. It is what ``Channel(link, capacity=buffer)`` measures.

    Args:
        transfer_ns: Time on the link of each item.
        compute_ns: What the receiver does with each.
        buffer: Places in the preload buffer: 0 is sequential, None any number, the ideal overlap.
    """
    started: list[int] = []
    link_free = receiver_free = 0
    for i, (transfer, compute) in enumerate(zip(transfer_ns, compute_ns, strict=True)):
        if buffer == 0:
            link_free = max(link_free, receiver_free)
        elif buffer is not None and i >= buffer:
            link_free = max(link_free, started[i - buffer])
        link_free += transfer
        started.append(max(link_free, receiver_free))
        receiver_free = started[-1] + compute
    return receiver_free


def streamed_ns(produce_ns: Sequence[int], transfer_ns: Sequence[int], latency_ns: int = 0) -> int:
    """Return when the last part arrives that a sender makes and sends while it makes the next.

    ``L[i] = max(L[i-1], P[i]) + transfer[i]``, where ``P[i]`` is when the ``i``-th part is made and ``L[i]`` when it
    has left. With ``n`` equal parts: ``n p + t`` when making one takes longer than sending it, else ``p + n t``. It is
    what a :class:`Stream` measures.

    Args:
        produce_ns: Time to make each part.
        transfer_ns: Time of each part on the link.
        latency_ns: Latency of the link.
    """
    made = left = 0
    for produce, transfer in zip(produce_ns, transfer_ns, strict=True):
        made += produce
        left = max(left, made) + transfer
    return left + latency_ns
