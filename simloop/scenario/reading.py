"""YAML, JSON and TOML files -> plain mappings, with nothing lost on the way.

A key that stands twice is an error in all three, and so is a number that is not finite.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from simloop.errors import InputError, did_you_mean
from simloop.scenario.types import Step, show_path

__all__ = ["SUFFIXES", "check_finite", "parse_yaml_value", "read_mapping"]

_DEPTH = 50  # levels; the deepest scenario has seven

SUFFIXES = (".yaml", ".yml", ".json", ".toml")


class _DuplicateKeyError(ValueError):
    """A key stands twice in one mapping."""


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain values of YAML 1.2.

    PyYAML follows YAML 1.1, where ``1e3`` is text, ``no`` is false, ``12:30`` is 750 and ``2024-01-01`` is a date.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 # as PyYAML declares it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice in one mapping", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def _add_resolvers() -> None:
    core: Iterable[tuple[str, str, str]] = (
        ("merge", r"<<", "<"),
        ("null", r"~|null|Null|NULL|", "~nN\0"),
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("int", r"[-+]?[0-9][0-9_]*|0x[0-9a-fA-F]+", "-+0123456789"),
        ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
        ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    )
    for tag, pattern, first in core:
        starts = ["" if letter == "\0" else letter for letter in first]
        _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), starts)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    return int(text, 16) if "x" in text else int(text)  # PyYAML's own would read 010 as eight


_add_resolvers()
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # a subclass of SafeLoader


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKeyError(f"the key {key!r} stands twice in one mapping")
        found[key] = value
    return found


def _load_json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_unique)


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".yaml": _load_yaml,
    ".yml": _load_yaml,
    ".json": _load_json,
    ".toml": tomllib.loads,
}


def read_mapping(path: Path) -> dict[str, Any]:
    """Read one configuration file.

    Args:
        path: A ``.yaml``, ``.yml``, ``.json`` or ``.toml`` file, UTF-8.

    Raises:
        InputError: It is missing, unreadable, not well-formed, or not a mapping; a key stands twice.
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise InputError(f"found the suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}", file=path)
    data = _parse(parse, _read_text(path), path)
    if data is None:
        raise InputError("the file is empty, expected a mapping of keys to values", file=path)
    if not isinstance(data, dict):
        raise InputError(f"found a {type(data).__name__}, expected a mapping of keys to values", file=path)
    return data


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"there is no such file{_nearest_file(path)}", file=path) from None
    except IsADirectoryError:
        raise InputError("found a folder, expected a file", file=path) from None
    except UnicodeDecodeError as error:
        raise InputError(f"byte {error.start} is not UTF-8 text", file=path) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=path) from None


def _nearest_file(path: Path) -> str:
    try:
        return did_you_mean(path.name, [other.name for other in path.parent.iterdir() if other.suffix in SUFFIXES])
    except OSError:
        return f" (nor the folder {str(path.parent)!r})"


def _parse(parse: Callable[[str], Any], text: str, file: object) -> Any:
    try:
        return parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else None
        raise InputError(f"not valid YAML: {error.problem or error.context}", file=file, path=where) from None
    except yaml.YAMLError as error:
        raise InputError(f"not valid YAML: {_one_line(error)}", file=file) from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InputError(f"not valid JSON: {error.msg}", file=file, path=where) from None
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"not valid TOML: {_one_line(error)}", file=file) from None
    except _DuplicateKeyError as error:
        raise InputError(str(error), file=file) from None
    except (ValueError, RecursionError) as error:  # an integer of 5,000 digits; lists 1,000 deep
        raise InputError(f"cannot be read: {_one_line(error)}", file=file) from None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def parse_yaml_value(text: str, *, file: str, path: str) -> Any:
    """Return what ``text`` means as a YAML value: ``8``, ``true``, ``[a, b]``, ``{rate: 8}`` or plain text.

    Raises:
        InputError: It is not well-formed.
    """
    try:
        return _parse(_load_yaml, text, file)
    except InputError as error:
        raise InputError(error.message, file=file, path=path) from None


def check_finite(data: Any, *, file: object = None) -> None:
    """Refuse NaN, infinities and lists that contain themselves.

    Raises:
        InputError: One was found; it names the place.
    """
    for steps, value in _leaves(data, []):
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"found {value}, expected a finite number", file=file, path=show_path(steps))
        if isinstance(value, (dict, list)):
            raise InputError(f"nested more than {_DEPTH} levels deep", file=file, path=show_path(steps[:3]))


def _leaves(data: Any, steps: list[Step]) -> Iterator[tuple[list[Step], Any]]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else None
    if entries is None or len(steps) > _DEPTH:
        yield steps, data
        return
    for step, value in entries:
        yield from _leaves(value, [*steps, step if isinstance(data, list) else str(step)])
