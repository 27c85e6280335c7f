"""Scenario files -> :class:`Scenario`."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from simloop.content import content_names, find_content
from simloop.errors import InputError, did_you_mean
from simloop.scenario.checks import check_scenario
from simloop.scenario.explain import convert
from simloop.scenario.overrides import apply_overrides
from simloop.scenario.reading import SUFFIXES, check_finite, read_mapping
from simloop.scenario.structs import Scenario
from simloop.scenario.types import show_path

__all__ = ["find_scenario", "load_scenario"]


def load_scenario(source: str | Path | Mapping[str, Any], *, overrides: Iterable[str] = ()) -> Scenario:
    """Read and check a scenario.

    Names of files in a scenario file (traces, policies, devices, models) are relative to that file; in overrides and
    in mappings they are relative to the working directory.

    Args:
        source: A ``.yaml``, ``.json`` or ``.toml`` file, the name of a bundled one (``"quickstart"``), or a mapping.
        overrides: ``path=value``, as for ``--set``.

    Raises:
        InputError: Something in it is wrong; one line that says where, what was found and what was expected.
    """
    if isinstance(source, Mapping):
        file, data = None, copy.deepcopy(dict(source))
    else:
        file = find_scenario(source)
        data = read_mapping(file)
    check_finite(data, file=file)
    if file is not None:
        _anchor_files(data, file.resolve().parent)
    changed, places = apply_overrides(data, overrides, Scenario)
    try:
        return _checked(changed)
    except InputError as error:
        if error.file is not None:  # the mistake is in a file that the scenario names
            raise
        written = any(_is_within(error.path or "", show_path(place)) for place in places)
        blamed = "--set" if written or (places and _is_sound(data)) else file
        raise InputError(error.message, file=blamed, path=error.path) from error


def _checked(data: dict[str, Any]) -> Scenario:
    scenario = convert(data, Scenario)
    check_scenario(scenario)
    return scenario


def _is_within(path: str, place: str) -> bool:
    return path == place or path.startswith((f"{place}.", f"{place}["))


def _is_sound(data: dict[str, Any]) -> bool:
    try:
        _checked(data)
    except InputError:
        return False
    return True


def find_scenario(source: str | Path) -> Path:
    """Return the file of a scenario: a path, or the name of a bundled one.

    Raises:
        InputError: There is no such file.
    """
    path = Path(source)
    if path.exists() or path.suffix.lower() in SUFFIXES:
        if not path.exists() and path.parent.name in ("", "configs") and path.stem in content_names("configs"):
            raise InputError(f"there is no such file; the bundled one is called {path.stem!r}", file=path)
        return path
    names = content_names("configs")
    if str(source) not in names:
        raise InputError(
            f"there is no such file or bundled scenario{did_you_mean(path.name, names)} (bundled: {', '.join(names)})",
            file=source,
        )
    return find_content("configs", str(source))


def _anchor_files(data: dict[str, Any], base: Path) -> None:
    """Make names of files that lie beside the scenario absolute, so that it means the same from every folder."""
    groups = data.get("workers")
    for group in [data, *(groups if isinstance(groups, list) else [])]:
        for key in ("model", "device"):
            _anchor(group, key, base)
        _anchor_policy(group, "schedule", base)
        timing = group.get("timing") if isinstance(group, dict) else None
        _anchor(timing, "path", base)
        _anchor(timing.get("routing") if isinstance(timing, dict) else None, "recorded", base)
    _anchor(data.get("network"), "path", base)
    for key in ("route", "schedule", "control"):
        _anchor_policy(data.get("policies"), key, base)
    hooks = data.get("hooks")
    for hook in hooks if isinstance(hooks, list) else []:
        _anchor(hook, "call", base)
    workload = data.get("workload")
    for part in workload.values() if isinstance(workload, dict) else ():
        _anchor(part, "path", base)


def _anchor_policy(mapping: Any, key: str, base: Path) -> None:
    inner = mapping.get(key) if isinstance(mapping, dict) else None
    if isinstance(inner, dict):
        _anchor(inner, "name", base)
    else:
        _anchor(mapping, key, base)


def _anchor(mapping: Any, key: str, base: Path) -> None:
    """Rewrite one value if it names a file in ``base``: ``dir/model``, ``card.toml``, ``policy.py:function``."""
    value = mapping.get(key) if isinstance(mapping, dict) else None
    if not isinstance(value, str):
        return
    name, colon, function = value.partition(":") if ".py:" in value else (value, "", "")
    looks_like_file = "/" in name or bool(Path(name).suffix)
    if key in ("path", "recorded") or (looks_like_file and (base / name).exists()):
        mapping[key] = f"{(base / name).resolve()}{colon}{function}"
