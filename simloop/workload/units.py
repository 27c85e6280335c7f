"""Fields of a trace row -> whole nanoseconds and whole tokens, exactly."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any

__all__ = ["UNITS", "shorten", "to_hash_ids", "to_priority", "to_session", "to_tokens"]

_MINUTE_NS = 60 * 10**9
_MOST = 2**62
_MOST_TOKENS = 10**9


def _scaled(value: Any, ns: int) -> int:
    if type(value) is int:
        number: int | Decimal = value * ns
    elif isinstance(value, (str, float)):
        try:
            number = Decimal(value if isinstance(value, str) else repr(value)) * ns
            number = round(number) if abs(number) < _MOST else _MOST
        except ArithmeticError:  # not a number; infinite; too large even for Decimal
            raise ValueError from None
    else:
        raise ValueError
    return _limited(int(number))


def _limited(number: int) -> int:
    if abs(number) >= _MOST:
        raise ValueError
    return number


def _from_s(value: Any) -> int:
    return _scaled(value, 10**9)


def _from_ms(value: Any) -> int:
    return _scaled(value, 10**6)


def _from_ns(value: Any) -> int:
    return _limited(int(value)) if type(value) is str and value.isdecimal() else _scaled(value, 1)


@lru_cache(maxsize=64)
def _minute_ns(text: str) -> int:
    day, hours, colon, minutes = text[:10], text[11:13], text[13:14], text[14:16]
    if text[10:11] not in (" ", "T") or colon != ":" or int(hours) > 23 or int(minutes) > 59:
        raise ValueError
    return (date.fromisoformat(day).toordinal() * 1440 + int(hours) * 60 + int(minutes)) * _MINUTE_NS


def _from_timestamp(value: Any) -> int:
    """Read ``2023-11-16 18:15:46.6805900`` to its last digit, as ns since the year 1, in UTC."""
    if not isinstance(value, str):
        raise ValueError
    text = value.strip().removesuffix("Z").removesuffix("+00:00")
    seconds, point, fraction = text[17:19], text[19:20], text[20:]
    if text[16:17] != ":" or not (seconds + fraction).isdecimal() or len(seconds) != 2 or len(fraction) > 9:
        raise ValueError
    if (point == ".") != (fraction != "") or int(seconds) > 60:  # 60: a leap second
        raise ValueError
    return _minute_ns(text[:16]) + int(seconds) * 10**9 + int(fraction.ljust(9, "0"))


UNITS: dict[str, tuple[Callable[[Any], int], str]] = {
    "s": (_from_s, "a time in seconds"),
    "ms": (_from_ms, "a time in milliseconds"),
    "ns": (_from_ns, "a time in nanoseconds"),
    "timestamp": (_from_timestamp, "a time like 2023-11-16 18:15:46.6805900"),
}
"""How a time is written -> what reads it, and how to say what it expects. What reads raises ValueError."""


def to_tokens(value: Any) -> int:
    """Return a number of tokens; ``"512"``, ``512`` and ``512.0`` are the same.

    Raises:
        ValueError: It is not a whole number of at least 1.
    """
    tokens = int(value) if type(value) is str and value.isdecimal() else _whole(value)
    if not 0 < tokens <= _MOST_TOKENS:
        raise ValueError
    return tokens


def to_session(value: Any) -> str | None:
    """Return the name of a conversation, if there is one.

    Raises:
        ValueError: It is neither text nor a whole number.
    """
    if value is None or value == "":
        return None
    if type(value) not in (str, int):
        raise ValueError
    return str(value)


def to_priority(value: Any) -> int:
    """Return a priority; an empty field is 0.

    Raises:
        ValueError: It is not a whole number.
    """
    return 0 if value in (None, "") else _whole(value)


def to_hash_ids(value: Any) -> tuple[int, ...] | None:
    """Return block hashes, if there are any.

    Raises:
        ValueError: They are not a list of whole numbers.
    """
    if value is None:
        return None
    if not isinstance(value, list) or not all(type(one) is int for one in value):
        raise ValueError
    return tuple(value)


def shorten(value: Any) -> str:
    """Return a value as one short piece of text, for messages."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _whole(value: Any) -> int:
    number = _scaled(value, 1)
    if type(value) is not int and Decimal(str(value)) != number:
        raise ValueError
    return number
