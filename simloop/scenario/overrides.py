"""``--set workers[0].count=4``: write into a scenario before it is checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec.inspect as mi

from simloop.errors import InputError, did_you_mean
from simloop.scenario.explain import known_keys
from simloop.scenario.reading import check_finite, parse_yaml_value
from simloop.scenario.types import Step, parse_path, resolve, show, show_path, step_into

__all__ = ["apply_overrides"]

_FILE = "--set"


def apply_overrides(
    data: dict[str, Any], overrides: Iterable[str], kind: type
) -> tuple[dict[str, Any], list[list[Step]]]:
    """Return a copy of ``data`` with each ``path=value`` written into it, and the paths.

    A path is dotted, with ``[i]`` for the entries of lists that exist; a value is YAML. Mappings on the way are made
    where they are missing, and a policy that was given as a bare name becomes a mapping.

    Args:
        data: What the file contained.
        overrides: ``path=value``.
        kind: The struct that the result is meant for; it says which paths there are.

    Raises:
        InputError: An override is malformed, given twice, or names a place that does not exist.
    """
    changed = _unshared(data)
    places: list[list[Step]] = []
    for text in overrides:
        path, equals, value = text.partition("=")
        path = path.strip()
        if not equals or not path:
            raise InputError(f"found {text!r}, expected path=value, such as workers[0].count=4", file=_FILE)
        steps = _steps(path)
        if steps in places:
            raise InputError("given twice", file=_FILE, path=path)
        parsed = parse_yaml_value(value, file=_FILE, path=path)
        check_finite({path: parsed}, file=_FILE)
        _write(changed, steps, parsed, mi.type_info(kind))
        places.append(steps)
    return changed, places


def _unshared(data: Any) -> Any:
    """Copy mappings and lists; what YAML's aliases share becomes separate, so that a write changes one place."""
    if isinstance(data, dict):
        return {key: _unshared(value) for key, value in data.items()}
    return [_unshared(value) for value in data] if isinstance(data, list) else data


def _steps(path: str) -> list[Step]:
    try:
        steps = parse_path(path)
    except ValueError:
        steps = []
    if not steps or None in steps or isinstance(steps[0], int):
        raise InputError(f"found {path!r}, expected a path such as workers[0].count", file=_FILE)
    return steps


def _write(data: Any, steps: list[Step], value: Any, kind: mi.Type) -> None:
    for depth, step in enumerate(steps):
        done, here = steps[: depth + 1], resolve(kind, data)
        inside = step_into(here, step)
        if inside is None:
            _refuse(data, done, here)
        if isinstance(step, int) and not (isinstance(data, list) and step < len(data)):
            size = len(data) if isinstance(data, list) else 0
            raise InputError(f"there is no entry {step}: the list has {size}", file=_FILE, path=show_path(done))
        if not isinstance(data, (dict, list)):
            raise InputError(f"found {show(data)} on the way", file=_FILE, path=show_path(steps[:depth]))
        if depth == len(steps) - 1:
            data[step] = value  # type: ignore[index]
            return
        data = _descend(data, step, inside or mi.AnyType(), nested=not isinstance(steps[depth + 1], int))
        kind = inside or mi.AnyType()


def _descend(data: Any, step: Step, kind: mi.Type, *, nested: bool) -> Any:
    """Return what stands at ``step``; make a mapping of it if it is missing, or a policy's bare name."""
    found = data.get(step) if isinstance(data, dict) else data[step]
    if nested and found is None:
        found = data[step] = {}
    elif nested and isinstance(found, str) and "name" in known_keys(resolve(kind, {})):
        found = data[step] = {"name": found}
    return found


def _refuse(data: Any, done: list[Step], here: mi.Type) -> None:
    keys = known_keys(here)
    path, step = show_path(done), done[-1]
    if isinstance(step, int):
        raise InputError(f"found {show(data)}, which has no entries by number", file=_FILE, path=show_path(done[:-1]))
    if not keys:
        raise InputError(f"found {show(data)}, which has no keys", file=_FILE, path=show_path(done[:-1]))
    near = did_you_mean(str(step), keys)
    raise InputError(f"found an unknown key{near} (known: {', '.join(keys)})", file=_FILE, path=path)
