"""What the keys of a scenario mean, taken from the structs' docstrings, so that it is said once."""

from __future__ import annotations

import inspect
import re
from functools import cache
from typing import Any

__all__ = ["field_docs", "summary_of"]

_SECTION = re.compile(r"^(Attributes|Args|Raises|Note|Example|Examples):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+)(?: \([^)]*\))?: ", re.MULTILINE)


def summary_of(struct: type[Any]) -> str:
    """Return a struct's docstring without its sections."""
    return _SECTION.split(inspect.cleandoc(struct.__doc__ or ""))[0].strip()


@cache
def field_docs(struct: type[Any]) -> dict[str, str]:
    """Return what the ``Attributes`` sections of a struct's docstring, and of its bases', say, by field."""
    found: dict[str, str] = {}
    for base in reversed(struct.__mro__):
        parts = _SECTION.split(inspect.cleandoc(base.__doc__ or ""))
        sections = dict(zip(parts[1::2], parts[2::2], strict=True))
        entries = _ENTRY.split(sections.get("Attributes", ""))
        found |= {name: " ".join(text.split()) for name, text in zip(entries[1::2], entries[2::2], strict=True)}
    return found
