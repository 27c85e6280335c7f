"""A folder of layer profiles: what one transformer layer takes on one rank of one device, as vLLM's layers ran it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import attrs
import msgspec

from simloop.errors import InputError
from simloop.hardware.profile.attention import AttentionGrid
from simloop.hardware.profile.curve import Curve
from simloop.hardware.profile.moe import MoeTable
from simloop.hardware.profile.reading import find_table, has_table, read_table, time_number, whole
from simloop.hardware.profile.skew import DEFAULT_BINS, SkewBins, SkewFit, fit_skew, read_skew_fit

__all__ = ["ONCE", "TWICE", "Bundle", "load_bundle"]

ONCE = ("embedding", "final_layernorm")
"""Layers of ``dense.csv`` that run once in an iteration; all others run in every decoder block."""

TWICE = ("layernorm",)
"""Layers that run twice in a decoder block."""

_NEEDED = ("qkv_proj", "o_proj")


class _Axes(msgspec.Struct):
    """Bins of ``skew_fit.csv``: edges, and names of what lies between them."""

    n_bins: list[float] = msgspec.field(default_factory=list)
    n_labels: list[str] = msgspec.field(default_factory=list)
    skew_rate_bins: list[float] = msgspec.field(default_factory=list)
    skew_rate_labels: list[str] = msgspec.field(default_factory=list)
    kv_big_bins: list[float] = msgspec.field(default_factory=list)
    kv_big_labels: list[str] = msgspec.field(default_factory=list)
    kp_bins: list[float] = msgspec.field(default_factory=list)
    kp_labels: list[str] = msgspec.field(default_factory=list)

    def bins(self) -> SkewBins:
        """Return them; those of the profiler where some are not given."""
        labels = (self.n_labels, self.skew_rate_labels, self.kv_big_labels, self.kp_labels)
        edges = (self.n_bins, self.skew_rate_bins, self.kv_big_bins, self.kp_bins)
        return SkewBins(*edges, labels) if all((*labels, *edges)) else DEFAULT_BINS


class _PerTp(msgspec.Struct):
    alpha_default: float = 0.0


class _SkewSettings(msgspec.Struct):
    enabled: bool = True
    bucket_axes: _Axes = msgspec.field(default_factory=_Axes)
    per_tp: dict[int, _PerTp] = msgspec.field(default_factory=dict)


class _Meta(msgspec.Struct):
    skew_fit: _SkewSettings = msgspec.field(default_factory=_SkewSettings)


@attrs.frozen
class Bundle:
    """Layer profiles of one model on one device, one rank. Times are nanoseconds.

    Attributes:
        folder: Where they were read.
        tp: Degree of tensor parallelism that they were measured for.
        dense: Time of each operator on every token, by the number of tokens.
        per_sequence: Time of ``lm_head`` and ``sampler``, by the number of sequences.
        attention: Time of the attention of a mixed batch.
        skew: Correction for unequal contexts, where there is one.
        moe: Time of the experts, where the model has some.
        meta: What ``meta.yaml`` says (engine and version, device, grids).
    """

    folder: Path
    tp: int
    dense: dict[str, Curve]
    per_sequence: dict[str, Curve]
    attention: AttentionGrid
    skew: SkewFit | None = None
    moe: MoeTable | None = None
    meta: Mapping[str, Any] = attrs.Factory(dict)

    @property
    def source(self) -> str:
        """Where the measurements come from, in one line."""
        facts = [str(self.meta[key]) for key in ("gpu", "model", "variant") if key in self.meta]
        if "vllm_version" in self.meta:
            facts.append(f"vLLM {self.meta['vllm_version']}")
        return f"{', '.join(facts) or self.folder} (tp {self.tp})"


def load_bundle(path: str | Path, *, tp: int = 1) -> Bundle:
    """Read layer profiles.

    Args:
        path: A folder with ``tp1``, ``tp2`` ... and ``meta.yaml``, or one of those with the tables themselves
            (``dense``, ``per_sequence``, ``attention``, and perhaps ``moe``, ``skew_fit`` or ``skew``; ``.csv`` or
            ``.csv.gz``). Columns as LLMServingSim's profiler writes them, times in microseconds.
        tp: Degree of tensor parallelism. A layer that its tables lack is taken from ``tp1``, experts too.

    Raises:
        InputError: The folder or a table is missing or not right.
    """
    folder = _tables_folder(Path(path), tp)
    return _load(_Files.of(folder, tp))


@attrs.frozen
class _Files:
    """What a bundle is read from, as it is now; different when one of the files has changed."""

    folder: Path
    tp: int
    stamp: tuple[tuple[Path, int, int, int], ...]

    @classmethod
    def of(cls, folder: Path, tp: int) -> _Files:
        folders = {folder, folder.parent / "tp1"}
        files = [file for place in folders if place.is_dir() for file in place.iterdir() if file.is_file()]
        if (meta := folder.parent / "meta.yaml").is_file():
            files.append(meta)
        stats = [(file, file.stat()) for file in sorted(files)]
        return cls(folder, tp, tuple((file, stat.st_ino, stat.st_mtime_ns, stat.st_size) for file, stat in stats))


@lru_cache(maxsize=16)
def _load(files: _Files) -> Bundle:
    """Read a folder once, however many scenarios and groups of workers name it."""
    folder, tp = files.folder, files.tp
    meta, skew = _read_meta(folder)
    dense = _curves(folder, "dense", "tokens")
    per_sequence = _curves(folder, "per_sequence", "sequences")
    stable = folder.parent / "tp1"
    if tp > 1 and stable.is_dir():
        dense = {**_curves(stable, "dense", "tokens"), **dense}
        per_sequence = {**_curves(stable, "per_sequence", "sequences"), **per_sequence}
    _check_layers(folder, dense, per_sequence)
    moe = has_table(folder, "moe") or has_table(stable, "moe")
    return Bundle(
        folder,
        tp,
        dense,
        per_sequence,
        _attention(folder),
        _skew(folder, tp, skew),
        None if moe is None else MoeTable.read(moe),
        meta,
    )


def _tables_folder(root: Path, tp: int) -> Path:
    if not root.is_dir():
        raise InputError("no such folder of measured kernels", file=root)
    if (folder := root / f"tp{tp}").is_dir():
        if has_table(folder, "layers") is not None:
            raise InputError("has layers by PyTorch: give model: kernels, or an engine's layers", file=folder)
        return folder
    if has_table(root, "dense") is not None:
        return root
    found = ", ".join(sorted(child.name for child in root.iterdir() if child.is_dir())) or "nothing"
    raise InputError(f"has no tables for tp {tp}: expected a folder tp{tp}, found {found}", file=root)


def _read_meta(folder: Path) -> tuple[dict[str, Any], _SkewSettings]:
    """Return all that ``meta.yaml`` says, and what of it counts."""
    import yaml  # slow to import, and only needed here

    for file in (folder / "meta.yaml", folder.parent / "meta.yaml"):
        if file.is_file():
            try:
                meta = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
                return meta, msgspec.convert(meta, _Meta, strict=False).skew_fit
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise InputError(f"is not YAML: {' '.join(str(error).split())}", file=file) from error
            except msgspec.ValidationError as error:
                raise InputError(str(error), file=file) from error
    return {}, _SkewSettings()


def rounded_ns(time_us: float) -> int:
    """Return a time of a table in whole nanoseconds, at least one."""
    return max(1, round(time_us * 1000))


def _curves(folder: Path, name: str, axis: str) -> dict[str, Curve]:
    pairs: dict[str, list[tuple[int, float]]] = {}
    for layer, point, time in read_table(find_table(folder, name), {"layer": str, axis: whole, "time_us": time_number}):
        pairs.setdefault(layer, []).append((point, rounded_ns(time)))
    return {layer: Curve.of(points) for layer, points in pairs.items()}


def _check_layers(folder: Path, dense: Mapping[str, Curve], per_sequence: Mapping[str, Curve]) -> None:
    for name, found, needed in (("dense", dense, _NEEDED), ("per_sequence", per_sequence, ("lm_head",))):
        for layer in needed:
            if layer not in found:
                raise InputError(f"no layer {layer!r} (there are: {', '.join(found)})", file=find_table(folder, name))


def _attention(folder: Path) -> AttentionGrid:
    file = find_table(folder, "attention")
    axes = dict.fromkeys(("prefill_chunk", "kv_prefill", "n_decode", "kv_decode"), whole)
    rows = read_table(file, {**axes, "time_us": time_number})
    if not any(row[0] == 0 for row in rows):
        raise InputError("has no row with prefill_chunk 0: decode-only steps have no time", file=file)
    return AttentionGrid((*row[:4], rounded_ns(row[4])) for row in rows)


def _skew(folder: Path, tp: int, settings: _SkewSettings) -> SkewFit | None:
    """Return the fit that the folder has, else one of its experiments, else the default of ``meta.yaml``."""
    if not settings.enabled:
        return None
    bins = settings.bucket_axes.bins()
    default = settings.per_tp[tp].alpha_default if tp in settings.per_tp else 0.0
    if (file := has_table(folder, "skew_fit")) is not None:
        return read_skew_fit(file, default, bins)
    if (file := has_table(folder, "skew")) is not None:
        return fit_skew(file, default, bins)
    return SkewFit(default, bins=bins) if default else None
