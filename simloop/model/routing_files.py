"""Files of recorded routing: how often each expert was chosen, in all layers alike or layer by layer.

- ``.json``: a list with a number for each expert, or one such list for each layer;
- ``.jsonl``: one mapping a line, ``{"layer": 0, "experts": [3, 17]}`` for what one token chose, or
  ``{"layer": 0, "counts": [9, 0, 4]}`` with a number for each expert;
- ``.csv``: the columns ``layer, expert, count``, one row for each expert that was chosen, or without ``count`` one row
  for each choice.

Lines may come in any order; what stands in several is added up. ``layer`` may be left out: then all layers are alike.
Only layers with experts count, whatever number they have. Each file may be gzipped (``.csv.gz``).
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from simloop.errors import InputError, did_you_mean
from simloop.model.experts import Experts

__all__ = ["read_counts"]

_Counts: TypeAlias = tuple[tuple[float, ...], ...]
_Choice: TypeAlias = tuple[str, int | None, int, float]  # line, layer, expert, how often
_COLUMNS = ("layer", "expert", "count")


class _Line(msgspec.Struct, forbid_unknown_fields=True):
    layer: int | None = None
    experts: list[int] | None = None
    counts: list[float] | None = None


def read_counts(file: Path, experts: Experts, num_layers: int) -> _Counts:
    """Return how often each expert was chosen, in each layer that has some or once for all of them.

    Args:
        file: The file; its format is told by its name.
        experts: Those of the model.
        num_layers: How many layers of the model have such.

    Raises:
        InputError: The file cannot be read, is something else, or is of another model; it names the line.
    """
    kind = file.name.removesuffix(".gz").rpartition(".")[2]
    readers = {"json": _json, "jsonl": _jsonl, "csv": _csv}
    if kind not in readers:
        raise InputError("expected a .json, .jsonl or .csv file of recorded routing", file=file)
    choices = readers[kind](file, _text(file), experts)
    return _added_up(file, choices, experts, num_layers)


def _text(file: Path) -> str:
    try:
        content = file.read_bytes()
        return (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", file=file) from error
    except (UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InputError(f"cannot be read: {error}", file=file) from error


def _json(file: Path, text: str, experts: Experts) -> Iterator[_Choice]:
    try:
        found = msgspec.json.decode(text)
        nested = isinstance(found, list) and any(isinstance(entry, list) for entry in found)
        layers = msgspec.convert(found if nested else [found], list[list[float]])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        expected = "a JSON list with a number for each expert, or one such list for each layer"
        raise InputError(f"expected {expected}: {error}", file=file) from error
    for layer, counts in enumerate(layers):
        yield from _each(file, f"[{layer}]" if nested else "", layer if nested else None, counts, experts)


def _jsonl(file: Path, text: str, experts: Experts) -> Iterator[_Choice]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            row = msgspec.json.decode(line, type=_Line)
        except msgspec.DecodeError as error:
            raise InputError(str(error), file=file, path=place) from error
        if (row.experts is None) == (row.counts is None):
            raise InputError("expected either 'experts' or 'counts'", file=file, path=place)
        if row.counts is not None:
            yield from _each(file, place, row.layer, row.counts, experts)
            continue
        chosen = row.experts or []
        if len(set(chosen)) != experts.top_k or len(chosen) != experts.top_k:
            raise InputError(
                f"expected the {experts.top_k} different experts of one token, found {len(set(chosen))}",
                file=file,
                path=place,
            )
        yield from ((place, row.layer, expert, 1.0) for expert in chosen)


def _each(file: Path, place: str, layer: int | None, counts: list[float], experts: Experts) -> Iterator[_Choice]:
    if len(counts) != experts.num_experts:
        raise InputError(
            f"found {len(counts)} numbers, the model has {experts.num_experts} experts", file=file, path=place or None
        )
    yield from ((place, layer, expert, count) for expert, count in enumerate(counts))


def _csv(file: Path, text: str, _: Experts) -> Iterator[_Choice]:
    reader = csv.reader(text.splitlines())
    header = [name.strip() for name in next(reader, [])]
    for name in header:
        if name not in _COLUMNS:
            near = did_you_mean(name, _COLUMNS)
            raise InputError(f"unknown column {name!r}{near} (known: {', '.join(_COLUMNS)})", file=file, path="line 1")
    if "expert" not in header:
        raise InputError("no column 'expert'", file=file, path="line 1")
    for row in reader:
        if not row:
            continue
        place = f"line {reader.line_num}"
        if len(row) != len(header):
            raise InputError(f"has {len(row)} cells, the header has {len(header)}", file=file, path=place)
        cells = dict(zip(header, row, strict=True))
        try:
            layer = int(cells["layer"]) if "layer" in cells else None
            yield place, layer, int(cells["expert"]), float(cells.get("count", 1))
        except ValueError as error:
            raise InputError(f"expected numbers, found {', '.join(row)!r}", file=file, path=place) from error


def _added_up(file: Path, choices: Iterable[_Choice], experts: Experts, num_layers: int) -> _Counts:
    layers: dict[int | None, list[float]] = {}
    for place, layer, expert, count in choices:
        if not 0 <= expert < experts.num_experts:
            last = experts.num_experts - 1
            raise InputError(f"found expert {expert}, the model has 0 to {last}", file=file, path=place or None)
        if not (math.isfinite(count) and count >= 0) or (layer is not None and layer < 0):
            what = f"count {count}" if layer is None or layer >= 0 else f"layer {layer}"
            raise InputError(f"found {what}, expected a number of at least 0", file=file, path=place or None)
        if layers and (layer is None) != (None in layers):
            raise InputError("expected a layer everywhere or nowhere", file=file, path=place or None)
        layers.setdefault(layer, [0.0] * experts.num_experts)[expert] += count
    for layer, counts in layers.items():
        if sum(counts) == 0:
            raise InputError("no expert was chosen" + ("" if layer is None else f" in layer {layer}"), file=file)
    if not layers:
        raise InputError("no expert was chosen", file=file)
    if None not in layers and len(layers) != num_layers:
        raise InputError(f"has {len(layers)} layers, the model has {num_layers} with experts", file=file)
    return tuple(tuple(layers[layer]) for layer in sorted(layers, key=lambda layer: layer or 0))
