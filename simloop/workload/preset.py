"""Presets: the lengths (and gaps) of real requests as small tables of quantiles, never the data themselves."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from simloop.errors import InputError, did_you_mean
from simloop.workload.spec import LengthSpec

if TYPE_CHECKING:
    from simloop.workload.quantiles import Quantiles

__all__ = ["Fit", "Preset", "Side", "Source", "Tables", "load_preset", "preset_names"]

_FOLDER = Path(__file__).resolve().parent / "presets"


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the figures of a preset come from.

    Attributes:
        dataset: What it is called.
        url: Where it was published.
        file: The file that was read.
        licence: Its licence.
        rows: Requests in that file.
        published: What was published, where a preset rests on published statistics and not on data.
        assumed: What was added to them.
    """

    dataset: str
    url: str
    licence: str
    file: str | None = None
    rows: int | None = None
    published: str | None = None
    assumed: str | None = None


class Side(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lengths of one side in the source, tokens."""

    mean: float
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    min: int | None = None
    max: int | None = None


class Fit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far a large sample of the preset is from its source.

    Attributes:
        sample: Requests drawn.
        input_ks: Kolmogorov-Smirnov distance of the input lengths: largest difference of the two distributions.
        output_ks: The same of the output lengths.
        input_mean_error: Mean of the sample over mean of the source, less one.
        output_mean_error: The same of the output lengths.
        rank_correlation: Spearman's, between input and output, of the sample.
        gap_ks: Kolmogorov-Smirnov distance of the gaps between requests.
        rate_error: Rate of the sample over rate of the source, less one.
    """

    sample: int
    input_mean_error: float
    output_mean_error: float
    input_ks: float | None = None
    output_ks: float | None = None
    rank_correlation: float | None = None
    gap_ks: float | None = None
    rate_error: float | None = None


class Tables(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Quantile tables.

    Attributes:
        levels: The probabilities that the columns of ``input`` stand for, from 0 to 1.
        input: Input lengths at those levels, tokens.
        output_levels: The probabilities that the columns of ``output`` stand for.
        output: One row for each equal share of the requests in order of their input length: output lengths, tokens.
        max_total: Most tokens of one request, input and output together: the limit of the service.
        gap_levels: The probabilities that the columns of ``gaps_s`` stand for.
        gaps_s: Times from one request to the next, s; empty where the source has no times.
    """

    levels: list[float]
    input: list[float]
    output_levels: list[float]
    output: list[list[float]]
    max_total: int
    gap_levels: list[float] = []
    gaps_s: list[float] = []


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lengths of requests that somebody has really sent.

    Attributes:
        name: What scenarios call it.
        title: What it is, in one line.
        source: Where it comes from.
        input: Input lengths in the source.
        output: Output lengths in the source.
        rank_correlation: Spearman's, between input and output, in the source.
        rate: Mean requests per second in the source; None where it has no times.
        gap_cv: Coefficient of variation of the gaps in the source: 1 for Poisson.
        fit: How well the preset reproduces it.
        tables: The quantile tables, or
        lengths: the distributions, where only statistics were published.
    """

    name: str
    title: str
    source: Source
    input: Side
    output: Side
    fit: Fit
    rank_correlation: float | None = None
    rate: float | None = None
    gap_cv: float | None = None
    tables: Tables | None = None
    lengths: LengthSpec | None = None

    def gaps(self) -> Quantiles:
        """Return the table of gaps, s.

        Raises:
            InputError: The source has no times.
        """
        from simloop.workload.quantiles import Quantiles

        if self.tables is None or not self.tables.gaps_s:
            timed = [name for name in preset_names() if load_preset(name).rate is not None]
            raise InputError(f"the source of preset {self.name} has no times; these have: {', '.join(timed)}")
        return Quantiles(self.tables.gap_levels, self.tables.gaps_s)

    def describe(self) -> str:
        """Return everything one wants to know before using it, as a few lines of text."""
        rank, gaps = self.rank_correlation, self.gap_cv
        facts = [
            ("source", f"{self.source.dataset}, {self.source.url}"),
            ("licence", self.source.licence),
            ("rows", "" if self.source.rows is None else f"{self.source.rows:,}"),
            ("input tokens", _describe_side(self.input)),
            ("output tokens", _describe_side(self.output)),
            (
                "rank correlation",
                "" if rank is None else f"{rank:+.3f} (input, output)",
            ),
            (
                "arrivals",
                "" if self.rate is None else f"{self.rate:.3g} requests/s, variation of gaps {gaps:.2f} (Poisson: 1)",
            ),
            ("published", self.source.published or ""),
            ("assumed", self.source.assumed or ""),
            ("fit", _describe_fit(self.fit)),
        ]
        return "\n".join([f"{self.name}: {self.title}", *(f"  {key + ':':<18}{text}" for key, text in facts if text)])


def _describe_side(side: Side) -> str:
    parts = [f"mean {side.mean:,.2f}" if side.p50 is None else f"mean {side.mean:,.0f}"]
    parts += [f"{name} {value:,.0f}" for name in ("p50", "p90", "p99") if (value := getattr(side, name)) is not None]
    parts += [f"{side.min:,} to {side.max:,}"] if side.min is not None else []
    return ", ".join(parts)


def _describe_fit(fit: Fit) -> str:
    parts = [f"mean {fit.input_mean_error:+.2%} in, {fit.output_mean_error:+.2%} out"]
    if fit.input_ks is not None and fit.output_ks is not None:
        parts.append(f"KS distance {fit.input_ks:.4f} in, {fit.output_ks:.4f} out")
    if fit.rank_correlation is not None:
        parts.append(f"rank correlation {fit.rank_correlation:+.3f}")
    if fit.gap_ks is not None and fit.rate_error is not None:
        parts.append(f"gaps: KS distance {fit.gap_ks:.4f}, rate {fit.rate_error:+.2%}")
    return "; ".join(parts)


def preset_names() -> list[str]:
    """Return the names of all presets, sorted."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


@cache
def load_preset(name: str) -> Preset:
    """Return a preset.

    Args:
        name: As in ``lengths: {preset: azure-conv-2023}``.

    Raises:
        InputError: There is no preset of that name; the message names the nearest one.
    """
    names = preset_names()
    if name not in names:
        raise InputError(f"no preset is called {name!r}{did_you_mean(name, names)} (there are: {', '.join(names)})")
    return msgspec.json.decode((_FOLDER / f"{name}.json").read_bytes(), type=Preset)
