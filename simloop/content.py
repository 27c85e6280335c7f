"""Where bundled content lies: ``policies/``, ``devices/`` and ``configs/``.

A wheel carries the three folders under ``simloop/_content``; in a checkout they lie beside the package.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from simloop.errors import InputError, did_you_mean

__all__ = ["content_dir", "content_names", "find_content"]

_PACKAGE = Path(__file__).resolve().parent
_SUFFIX = {"policies": ".py", "devices": ".toml", "configs": ".yaml"}


@cache
def content_dir(kind: str) -> Path:
    """Return the folder of ``kind``: ``"policies"``, ``"devices"`` or ``"configs"``."""
    inside = _PACKAGE / "_content" / kind
    return inside if inside.is_dir() else _PACKAGE.parent / kind


def content_names(kind: str) -> list[str]:
    """Return the names of everything bundled of one kind, sorted, without suffixes."""
    return sorted(path.stem for path in content_dir(kind).glob(f"*{_SUFFIX[kind]}"))


def find_content(kind: str, name: str) -> Path:
    """Return the file of one bundled thing.

    Raises:
        InputError: Nothing of that name is bundled; the message names the nearest one.
    """
    path = content_dir(kind) / f"{name}{_SUFFIX[kind]}"
    if not path.is_file():
        singular = {"policies": "policy", "devices": "device", "configs": "config"}[kind]
        names = content_names(kind)
        raise InputError(
            f"no bundled {singular} is called {name!r}{did_you_mean(name, names)} (there are: {', '.join(names)})"
        )
    return path
