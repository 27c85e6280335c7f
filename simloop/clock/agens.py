"""The asynchronous generators that are open, in the order in which they were first iterated."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["OrderedWeakSet"]


class OrderedWeakSet:
    """What asyncio uses of a ``WeakSet``, in order of insertion: a plain one would close generators by address."""

    def __init__(self) -> None:
        self._items: WeakKeyDictionary[AsyncGenerator[Any, Any], None] = WeakKeyDictionary()

    def add(self, item: AsyncGenerator[Any, Any]) -> None:
        """Add ``item`` at the end, unless it is there."""
        self._items.setdefault(item, None)

    def discard(self, item: AsyncGenerator[Any, Any]) -> None:
        """Remove ``item`` if it is there."""
        self._items.pop(item, None)

    def clear(self) -> None:
        """Remove everything."""
        self._items.clear()

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[AsyncGenerator[Any, Any]]:
        return iter(list(self._items))
