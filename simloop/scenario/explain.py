"""msgspec's validation errors -> lines that name file, path, what was found, what was expected."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
import msgspec.inspect as mi

from simloop.errors import InputError, did_you_mean
from simloop.scenario.types import Step, expected, parse_path, resolve, show, show_path, step_into

__all__ = ["convert"]

T = TypeVar("T")

_MESSAGE = re.compile(
    r"^(?P<what>.*?)(?: - at (?P<key>`key` in )?`(?P<path>\$(?:\.\w+|\[\d+\]|\[\.\.\.\])*)`)?$", re.DOTALL
)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")


def convert(data: Any, kind: type[T]) -> T:
    """Return ``data``, which a file contained, as a struct.

    Raises:
        InputError: It does not fit.
    """
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        path, message = _explain(error, data, mi.type_info(kind))
    raise InputError(message, path=path or None)


def _explain(error: msgspec.ValidationError, data: Any, kind: mi.Type) -> tuple[str, str]:
    match = _MESSAGE.match(str(error))
    what, in_key, path = match.group("what", "key", "path") if match else (str(error), None, None)
    steps, value, place = _walk(parse_path(path or "$"), data, kind, what)
    if isinstance(error.__cause__, InputError):  # of a struct's own check
        inner = error.__cause__
        return ".".join(filter(None, (show_path(steps), inner.path))), inner.message
    if in_key:
        odd = next((key for key in value if not isinstance(key, str)), None)
        return show_path(steps), f"found the key {show(odd)}, expected text"
    if unknown := _UNKNOWN.fullmatch(what):
        return show_path([*steps, unknown[1]]), _unknown_key(unknown[1], place)
    if missing := _MISSING.fullmatch(what):
        inside = step_into(place, missing[1])
        return show_path([*steps, missing[1]]), f"missing, expected {expected(inside) if inside else 'a value'}"
    if what.startswith(("Expected ", "Invalid ")):
        return show_path(steps), _mismatch(value, place)
    return show_path(steps), " ".join(what.split())


def _mismatch(value: Any, place: mi.Type) -> str:
    members = place.types if isinstance(place, mi.UnionType) else (place,)
    options = [str(option) for member in members if isinstance(member, mi.LiteralType) for option in member.values]
    near = did_you_mean(value, options) if isinstance(value, str) else ""
    qualified = expected(place) + (" that is not empty" if value == "" else "")
    return f"found {show(value)}, expected {qualified}{near}"


def _unknown_key(key: str, place: mi.Type) -> str:
    keys = known_keys(place)
    return f"found an unknown key{did_you_mean(key, keys)} (known: {', '.join(keys)})"


def known_keys(place: mi.Type) -> list[str]:
    """Return the keys that a struct takes; none for what is not a struct."""
    if not isinstance(place, mi.StructType):
        return []
    tag = [place.tag_field] if place.tag_field else []
    return tag + [field.encode_name for field in place.fields]


def _walk(steps: list[Step], data: Any, kind: mi.Type, what: str) -> tuple[list[Step], Any, mi.Type]:
    """Return the steps with dict keys filled in, and the data and type that stand there."""
    walked: list[Step] = []
    for step in steps:
        inside = resolve(kind, data)
        name = _culprit(data, what) if step is None else step
        walked.append(name)
        data = _get(data, name)
        kind = step_into(inside, step) or mi.AnyType()
    return walked, data, resolve(kind, data) if isinstance(data, dict) else kind


def _get(data: Any, step: Step) -> Any:
    if isinstance(data, dict):
        return data.get(step)
    return data[step] if isinstance(data, list) and isinstance(step, int) and step < len(data) else None


_JSON_NAMES = {str: "str", bool: "bool", int: "int", float: "float", list: "array", dict: "object", type(None): "null"}


def _culprit(data: Any, what: str) -> str | None:
    """Guess which value of a mapping is meant: msgspec does not tell its key, only the value's type."""
    if not isinstance(data, dict):
        return None
    return next(
        (str(key) for key, value in data.items() if what.endswith(f"got `{_JSON_NAMES.get(type(value))}`")), None
    )
