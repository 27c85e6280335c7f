"""Devices by name: the bundled cards, cards by path, and those that installed packages offer."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from simloop.content import content_names, find_content
from simloop.errors import InputError, did_you_mean
from simloop.hardware.calibration import AttentionFit, Calibration, ElementwiseFit, GemmFit, Launch
from simloop.hardware.device import Device, PeakIdentity
from simloop.hardware.interconnect import Interconnect, PointToPoint

__all__ = ["ENTRY_POINT_GROUP", "device_names", "load_device"]

ENTRY_POINT_GROUP = "simloop.devices"
"""Packages offer devices here: an entry point is a :class:`Device`, the path of a card, or a function returning one."""

_STRUCTS = {
    "": Device,
    "peak_identity": PeakIdentity,
    "calibration": Calibration,
    "calibration.gemm": GemmFit,
    "calibration.prefill_attention": AttentionFit,
    "calibration.decode_attention": AttentionFit,
    "calibration.elementwise": ElementwiseFit,
    "calibration.launch": Launch,
    "calibration.moe": GemmFit,
    "calibration.latent_decode": AttentionFit,
    "interconnect": Interconnect,
    "interconnect.point_to_point": PointToPoint,
}
_UNKNOWN = re.compile(r"unknown field `(?P<key>[^`]*)`")
_PLACE = re.compile(r" - at `\$?\.?(?P<path>[^`]*)`$")


def device_names() -> list[str]:
    """Return the names of all devices, bundled and offered by installed packages, sorted."""
    return sorted({*content_names("devices"), *_offered()})


def load_device(name_or_path: str) -> Device:
    """Return a device.

    Args:
        name_or_path: A bundled name or one that an installed package offers (see :func:`device_names`), or the path of
            a card, a file that ends in ``.toml``.

    Raises:
        InputError: There is no such device, or its card is not right; the message names the file and the key.
    """
    if name_or_path.endswith(".toml"):
        return _read(Path(name_or_path))
    if name_or_path in content_names("devices"):
        return _bundled(name_or_path)
    offered = _offered()
    if name_or_path in offered:
        return _from_entry_point(name_or_path, offered[name_or_path]())
    names = device_names()
    near = did_you_mean(name_or_path.lower(), names)
    raise InputError(f"no device is called {name_or_path!r}{near} (there are: {', '.join(names)})")


@cache
def _bundled(name: str) -> Device:
    return _read(find_content("devices", name))


def _offered() -> dict[str, Callable[[], Any]]:
    """Return the loaders of the entry points, by name; nothing is imported yet."""
    from importlib.metadata import entry_points  # slow to import, and rarely needed

    return {point.name: point.load for point in entry_points(group=ENTRY_POINT_GROUP)}


def _from_entry_point(name: str, offer: Any) -> Device:
    found = offer() if callable(offer) else offer
    if isinstance(found, Device):
        return found
    if isinstance(found, str | os.PathLike):
        return _read(Path(found))
    raise InputError(
        f"entry point {name!r} of {ENTRY_POINT_GROUP}: expected a device or the path of a card, found {found!r}"
    )


def _read(file: Path) -> Device:
    values = _values(file)
    try:
        return msgspec.convert(values, Device)
    except msgspec.ValidationError as error:
        raise _explained(str(error), values, file) from error


def _values(file: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return what a card says, on top of what the card says that it names as its ``base``.

    Args:
        file: The card.
        above: The cards whose base it is.
    """
    try:
        with file.open("rb") as stream:
            values = tomllib.load(stream)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is not TOML: {error}", file=file) from error
    if "base" not in values:
        return values
    above = (*above, file.resolve())
    base = _base(values.pop("base"), file)
    if base.resolve() in above:
        raise InputError(f"the card is its own base, over {' and '.join(path.name for path in above)}", file=file)
    return _merged(_values(base, above), values)


def _base(name: Any, file: Path) -> Path:
    """Return the file of a base: the name of a bundled card, or a path relative to the card that names it."""
    names = content_names("devices")
    if isinstance(name, str) and name.endswith(".toml"):
        return file.parent / name
    if name in names:
        return find_content("devices", name)
    near = did_you_mean(name, names) if isinstance(name, str) else ""
    raise InputError(f"found {name!r}, expected a bundled device or the path of a card{near}", file=file, path="base")


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``: tables key by key, anything else as a whole."""
    both = {
        key: _merged(base[key], change)
        for key, change in changes.items()
        if isinstance(change, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **changes, **both}


def _explained(message: str, values: dict[str, Any], file: Path) -> InputError:
    """Turn msgspec's message into ours: the place first, and the nearest key for one that is misspelt."""
    place = _PLACE.search(message)
    path = place["path"] if place else ""
    text = message[: place.start()] if place else message
    unknown = _UNKNOWN.search(text)
    if unknown and path in _STRUCTS:
        key = unknown["key"]
        near = did_you_mean(key, _STRUCTS[path].__struct_fields__)
        return InputError(f"unknown key {key!r}{near}", file=file, path=path or None)
    found = _found(values, path) if "Expected" in text else None
    if found is not None:
        text = f"{text}, found {found!r}"
    return InputError(text, file=file, path=path or None)


def _found(values: Any, path: str) -> Any:
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values
