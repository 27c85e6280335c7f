"""Seconds to nanoseconds and back."""

from __future__ import annotations

__all__ = ["to_ns"]


def to_ns(seconds: float) -> int | None:
    """Return ``seconds`` in whole ns, to the nearest; None for ``inf``, which is never.

    A float holds whole nanoseconds up to about 13 days (2**50 ns); beyond that the last digits are lost.

    Raises:
        ValueError: ``seconds`` is not a number.
    """
    try:
        return int(seconds * 1e9 + 0.5)
    except OverflowError:
        return None if seconds > 0 else 0
    except ValueError:
        raise ValueError("a time must not be NaN") from None
