"""The folder that a run is written to: all of it or nothing."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from simloop.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from simloop.metrics import Result

__all__ = ["check_out_dir", "write_run"]

PARTIAL = "PARTIAL.txt"
_FILES = {
    "summary.json",
    "requests.parquet",
    "timeseries.parquet",
    "tokens.parquet",
    "lockstep.parquet",
    "scenario.yaml",
    PARTIAL,
}


def write_run(result: Result, out_dir: str | Path, *, token_times: bool = False) -> Path:
    """Write a run to a folder: ``summary.json``, ``requests.parquet``, ``timeseries.parquet``, ``scenario.yaml``.

    Where data-parallel ranks share experts there is ``lockstep.parquet`` too, one row per iteration and rank.

    The files are written to a hidden folder beside it, which takes its name when all of them are there; a run that
    stood there before is replaced, file by file where the folder is a mount point. ``PARTIAL.txt`` is added if the run
    is not complete. The Parquet files hold nothing but what was simulated: the same scenario and seed give the same
    bytes.

    Args:
        result: The run.
        out_dir: The folder; its parents are made.
        token_times: Write ``tokens.parquet`` too, one row per token.

    Returns:
        The folder.

    Raises:
        InputError: The folder cannot be written, or holds something other than a run.
    """
    target = check_out_dir(out_dir)
    staging = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        staging.mkdir(parents=True)
        _write_files(result, staging, token_times=token_times)
        _replace(target, staging)
    except OSError as error:
        raise InputError(f"cannot write the run: {error.strerror or error}", file=out_dir) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def check_out_dir(out_dir: str | Path) -> Path:
    """Return the absolute path of a folder that a run may be written to; worth asking before a long run.

    Raises:
        InputError: It is not a folder, holds something other than a run, or stands where nothing can be written.
    """
    target = Path(out_dir).resolve()
    if target.exists():
        _check_replaceable(target, out_dir)
    parent = next(folder for folder in target.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"cannot write to {str(parent)!r}", file=out_dir)
    return target


def _check_replaceable(target: Path, out_dir: str | Path) -> None:
    """Let nothing be replaced but a run, whose summary tells it from a scenario that somebody wrote."""
    if not target.is_dir():
        raise InputError("expected a folder to write the run to, found a file", file=out_dir)
    if target == Path.cwd():
        raise InputError("a run replaces its folder, which cannot be the current one; name one inside it", file=out_dir)
    names = {entry.name for entry in target.iterdir()}
    foreign = names if names and "summary.json" not in names else names - _FILES
    if foreign:
        raise InputError(f"the folder holds something other than a run: {min(foreign)!r}", file=out_dir)


def _write_files(result: Result, folder: Path, *, token_times: bool) -> None:
    import yaml

    summary = json.dumps(result.summary(), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "summary.json").write_text(summary + "\n", encoding="utf-8")
    scenario = yaml.safe_dump(dict(result.scenario), sort_keys=False, allow_unicode=True, width=120)
    (folder / "scenario.yaml").write_text(scenario, encoding="utf-8")
    _write_parquet(result.requests, folder / "requests.parquet")
    _write_parquet(result.timeseries, folder / "timeseries.parquet")
    if len(result.lockstep):
        _write_parquet(result.lockstep, folder / "lockstep.parquet")
    if token_times:
        from simloop.metrics.frames import tokens_frame

        _write_parquet(tokens_frame(result), folder / "tokens.parquet")
    if not result.complete:
        text = f"This run is not complete: {result.reason or 'unknown reason'}\n"
        (folder / PARTIAL).write_text(text, encoding="utf-8")


def _write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write with every setting that shapes the bytes spelled out, so that no default of polars changes them."""
    frame.write_parquet(path, compression="zstd", compression_level=3, statistics=True, row_group_size=1 << 18)


def _replace(target: Path, staging: Path) -> None:
    """Let a folder take the name of another, which is gone only when it has."""
    if not target.exists():
        staging.rename(target)
        return
    old = staging.with_suffix(".old")
    try:
        target.rename(old)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        _fill(target, staging)
        return
    try:
        staging.rename(target)
    except BaseException:
        with suppress(OSError):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(target: Path, staging: Path) -> None:
    """Let a folder that cannot be replaced, a mount point, have the files of another; each appears whole."""
    for name in sorted(_FILES):
        if (staging / name).exists():
            copy = target / f".{name}.{os.getpid()}.new"
            try:
                shutil.copyfile(staging / name, copy)
                copy.replace(target / name)
            finally:
                copy.unlink(missing_ok=True)
        else:
            (target / name).unlink(missing_ok=True)
