"""Which operators of a model a pattern means: ``lm_head``, ``layers.*.o_proj``, ``layers[::4]``."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Sequence
from fnmatch import fnmatchcase

import attrs

from simloop.errors import InputError, did_you_mean
from simloop.hardware import OperatorCall
from simloop.model import Model

__all__ = ["Place", "find_operators"]

_PATTERN = re.compile(r"(?P<layers>layers(?:\.(?P<number>[^.\[\]]+)|\[(?P<slice>[^\]]*)\]))?(?P<dot>\.)?(?P<name>.*)")


@attrs.frozen
class Place:
    """Where a pattern fits.

    Attributes:
        path: The operator's path, or that of a decoder block, ``layers.3``.
        layer: The decoder block.
        first: How many calls are over when it begins.
        last: How many calls are over when it ends.
    """

    path: str
    layer: int | None
    first: int
    last: int


def find_operators(pattern: str, calls: Sequence[OperatorCall], model: Model) -> list[Place]:
    """Return the places that a pattern fits, in order of execution.

    Args:
        pattern: The path of an operator, with ``*``, ``?`` and ``[...]`` in its last part. Decoder blocks are
            ``layers.3``, ``layers.*`` or a slice, ``layers[0]``, ``layers[-1]``, ``layers[::4]``; without a last part
            it is whole blocks.
        calls: The calls of an iteration, in order.
        model: The model that they are of, or are a stage of.

    Raises:
        InputError: It fits none.
    """
    match = _PATTERN.fullmatch(pattern)
    if match is None or bool(match["layers"] and match["name"]) != bool(match["dot"]):
        raise _none(pattern, calls, model.name)
    layers: set[int] = set()
    if not match["layers"]:
        found = [place for place in _places(calls) if place.layer is None and fnmatchcase(place.path, match["name"])]
    else:
        layers = _layers(match, pattern, calls, model)
        found = [place for place in _chosen(calls, match["name"]) if place.layer in layers]
    if not found:
        raise _none(pattern, calls, model.name, layers)
    return found


def _places(calls: Sequence[OperatorCall]) -> Iterator[Place]:
    for index, call in enumerate(calls):
        yield Place(call.path, call.layer, index, index + 1)


def _chosen(calls: Sequence[OperatorCall], name: str) -> Iterator[Place]:
    """Yield the operators of all blocks that a name fits; without a name the blocks."""
    inside = [place for place in _places(calls) if place.layer is not None]
    if name:
        yield from (place for place in inside if fnmatchcase(place.path.rpartition(".")[2], name))
        return
    for layer in dict.fromkeys(place.layer for place in inside):
        mine = [place for place in inside if place.layer == layer]
        yield Place(f"layers.{layer}", layer, mine[0].first, mine[-1].last)


def _layers(match: re.Match[str], pattern: str, calls: Sequence[OperatorCall], model: Model) -> set[int]:
    """Return the numbers of the decoder blocks that the first part of a pattern means."""
    numbers, number, part = range(model.num_layers), match["number"], match["slice"]
    if number is not None:
        found = {layer for layer in numbers if fnmatchcase(str(layer), number)}
    else:
        found = _sliced(numbers, part.split(":"), pattern)
    if not found and match["name"] == "" and number is not None and number.isidentifier():
        raise _none(pattern, calls, model.name)
    if not found:
        raise InputError(f"{pattern!r} fits no layer: {model.name} has layers 0 to {model.num_layers - 1}")
    return found


def _sliced(numbers: range, parts: list[str], pattern: str) -> set[int]:
    try:
        bounds = [int(part) if part.strip() else None for part in parts]
        if len(bounds) > 1:
            return set(numbers[slice(*bounds)])
        layer = int(parts[0])
        return {numbers[layer]} if -len(numbers) <= layer < len(numbers) else set()
    except (ValueError, TypeError) as error:
        raise InputError(
            f"found {pattern!r}, expected a layer or a slice as in layers[0], layers[-1], layers[::4]"
        ) from error


def _none(pattern: str, calls: Sequence[OperatorCall], model: str, layers: Container[int | None] = ()) -> InputError:
    """Say what there is instead: in the layers that the pattern names, if it names some, or in all of them."""
    match = _PATTERN.fullmatch(pattern)
    where = match["layers"] if match is not None and layers else "layers.*"
    inside = [call for call in calls if call.layer is not None and (call.layer in layers or not layers)]
    names = list(dict.fromkeys(call.path.rpartition(".")[2] for call in inside))
    tops = [call.path for call in calls if call.layer is None]
    if match is not None and match["layers"] and match["name"]:
        near = did_you_mean(match["name"], names)
    else:
        near = did_you_mean(pattern, [*tops, *(f"{where}.{name}" for name in names)])
    return InputError(
        f"{pattern!r} fits no operator of {model}{near} (there are: {', '.join(tops)}; in {where}: {', '.join(names)})"
    )
