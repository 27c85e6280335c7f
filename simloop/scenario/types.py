"""The types of a scenario's keys, walked by path, and said in words."""

from __future__ import annotations

import re
from typing import Any

import msgspec.inspect as mi

__all__ = ["Step", "expected", "parse_path", "resolve", "show", "show_path", "step_into"]

Step = str | int | None
"""One step of a path: a key, an index, or None for a key that msgspec does not tell."""

_PLAIN_KEY = re.compile(r"[^.\[\]\s'\"]+")
_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def parse_path(text: str) -> list[Step]:
    """Split ``workers[0].device`` (or msgspec's ``$.workers[0].device``) into steps.

    Raises:
        ValueError: It is not of that form.
    """
    text = text.removeprefix("$").removeprefix(".")
    steps: list[Step] = []
    end = 0
    for match in _STEP.finditer(text):
        if match.start() != end:
            raise ValueError(text)
        key, index = match.groups()
        steps.append(key if index is None else None if index == "..." else int(index))
        end = match.end()
    if end != len(text):
        raise ValueError(text)
    return steps


def show_path(steps: list[Step]) -> str:
    """Return ``workers[0].device`` for ``["workers", 0, "device"]``; a key that would confuse is quoted."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{_show_key(step)}" for step in steps).removeprefix(".")


def _show_key(key: str | None) -> str:
    if key is None:
        return "..."
    return key if _PLAIN_KEY.fullmatch(key) else repr(key)


def resolve(kind: mi.Type, data: Any) -> mi.Type:
    """Return the member of a union that ``data`` seems meant for; other types as they are."""
    if isinstance(kind, mi.Metadata):
        return resolve(kind.type, data)
    if not isinstance(kind, mi.UnionType):
        return kind
    members = [resolve(member, data) for member in kind.types]
    fitting = [member for member in members if isinstance(data, _TAKES.get(type(member), ()))]
    tagged = [member for member in fitting if isinstance(member, mi.StructType) and member.tag_field]
    if len(tagged) > 1:
        return next(
            (member for member in tagged if data.get(member.tag_field) == member.tag), mi.UnionType(tuple(tagged))
        )
    return (fitting or [kind])[0]


_TAKES: dict[type, tuple[type, ...]] = {
    mi.StructType: (dict,),
    mi.DictType: (dict,),
    mi.ListType: (list,),
    mi.VarTupleType: (list,),
    mi.StrType: (str,),
    mi.BoolType: (bool,),
    mi.IntType: (int,),
    mi.FloatType: (int, float),
    mi.NoneType: (type(None),),
}


def step_into(kind: mi.Type, step: Step) -> mi.Type | None:
    """Return the type one step down, or None where there is no such place."""
    if isinstance(kind, mi.StructType):
        if step == kind.tag_field:
            return mi.LiteralType((kind.tag,))
        return next((field.type for field in kind.fields if field.encode_name == step), None)
    if isinstance(kind, mi.DictType) and not isinstance(step, int):
        return kind.value_type
    if isinstance(kind, (mi.ListType, mi.VarTupleType)) and isinstance(step, int):
        return kind.item_type
    if isinstance(kind, mi.TupleType) and isinstance(step, int) and step < len(kind.item_types):
        return kind.item_types[step]
    if isinstance(kind, mi.UnionType):  # of tagged structs, where the tag itself is wrong
        inside = [found for member in kind.types if (found := step_into(member, step))]
        return mi.UnionType(tuple(inside)) if inside else None
    return mi.AnyType() if isinstance(kind, mi.AnyType) else None


def show(value: Any) -> str:
    """Say what was found, shortly: ``'abc'``, ``-1``, ``a list``."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def expected(kind: mi.Type) -> str:
    """Say what a type takes: ``a whole number >= 1``."""
    if isinstance(kind, mi.Metadata):
        return expected(kind.type)
    if isinstance(kind, mi.UnionType):
        return _either(kind)
    if isinstance(kind, (mi.IntType, mi.FloatType)):
        limits = {">": kind.gt, ">=": kind.ge, "<": kind.lt, "<=": kind.le}
        noun = "a whole number" if isinstance(kind, mi.IntType) else "a number"
        bounds = " and ".join(f"{sign} {_plain(limit)}" for sign, limit in limits.items() if limit is not None)
        return f"{noun} {bounds}".strip()
    if isinstance(kind, (mi.LiteralType, mi.EnumType)):
        values = kind.values if isinstance(kind, mi.LiteralType) else [member.value for member in kind.cls]
        return _one_of(list(values))
    if isinstance(kind, (mi.ListType, mi.VarTupleType)):
        return f"a list of at least {kind.min_length}" if kind.min_length else "a list"
    if isinstance(kind, mi.StructType):
        return f"a mapping (keys: {', '.join(field.encode_name for field in kind.fields)})"
    return _PLAIN.get(type(kind), "something else")


def _plain(limit: float) -> str:
    return f"{limit:g}" if isinstance(limit, float) else str(limit)


_PLAIN: dict[type, str] = {
    mi.StrType: "text",
    mi.BoolType: "true or false",
    mi.NoneType: "nothing",
    mi.DictType: "a mapping",
    mi.TupleType: "a list",
    mi.AnyType: "anything",
}


def _either(kind: mi.UnionType) -> str:
    members = [member for member in kind.types if not isinstance(member, mi.NoneType)]
    if members and all(isinstance(member, mi.LiteralType) for member in members):
        return _one_of([value for member in members if isinstance(member, mi.LiteralType) for value in member.values])
    tags = {member.tag_field for member in members if isinstance(member, mi.StructType) and member.tag_field}
    if len(tags) == 1 and len(members) > 1:
        return f"a mapping with the key {tags.pop()}"
    return " or ".join(dict.fromkeys(expected(member) for member in members))


def _one_of(values: list[Any]) -> str:
    return f"one of {', '.join(str(value) for value in values)}" if len(values) > 1 else repr(values[0])
