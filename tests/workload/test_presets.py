"""The bundled presets: what they say, and that what is drawn follows their own tables."""

from __future__ import annotations

import bisect
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

import simloop.workload
from simloop.errors import InputError
from simloop.workload import Preset, load_preset, open_workload, preset_names
from simloop.workload.preset import Tables
from simloop.workload.quantiles import JointQuantiles

Lengths: TypeAlias = npt.NDArray[np.int64]

FOLDER = Path(simloop.workload.__file__).parent / "presets"
FITTED = ["arxiv-summarization", "azure-code-2023", "azure-conv-2023", "mooncake-conversation"]


def drawn(preset: str, requests: int = 60_000, *, seed: int = 0) -> tuple[Lengths, Lengths]:
    spec = {"requests": requests, "arrivals": {"process": "burst"}, "lengths": {"preset": preset}}
    rows = np.array([row[1:3] for row in open_workload(spec, seed=seed)])
    return rows[:, 0], rows[:, 1]


def tables_of(name: str) -> Tables:
    tables = load_preset(name).tables
    assert tables is not None
    return tables


def test_the_names() -> None:
    assert preset_names() == sorted([*FITTED, "sharegpt"])


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_says_where_it_comes_from(name: str) -> None:
    preset = load_preset(name)
    text = preset.describe()
    assert preset.name == name
    assert preset.source.url.startswith("https://")
    assert all(fact in text for fact in (name, preset.title, preset.source.url, preset.source.licence, "fit:"))
    assert len(text.splitlines()) >= 6


@pytest.mark.parametrize("name", FITTED)
def test_a_preset_is_a_small_table_and_not_the_data(name: str) -> None:
    path = FOLDER / f"{name}.json"
    rows = load_preset(name).source.rows or 0
    assert path.stat().st_size < 10_000
    assert sum(len(row) for row in tables_of(name).output) < rows / 10


@pytest.mark.parametrize("name", FITTED)
def test_the_fit_that_a_preset_states_is_close(name: str) -> None:
    preset = load_preset(name)
    assert preset.fit.sample >= 1_000_000
    assert preset.fit.input_ks is not None
    assert preset.fit.input_ks < 0.01
    assert preset.fit.output_ks is not None
    assert preset.fit.output_ks < 0.01
    assert abs(preset.fit.input_mean_error) < 0.01
    assert abs(preset.fit.output_mean_error) < 0.02
    assert preset.rank_correlation == pytest.approx(preset.fit.rank_correlation, abs=0.01)


@pytest.mark.parametrize("name", FITTED)
def test_tables_rise(name: str) -> None:
    tables = tables_of(name)
    for levels, rows in (
        (tables.levels, [tables.input]),
        (tables.output_levels, tables.output),
        (tables.gap_levels, [tables.gaps_s]),
    ):
        assert all(earlier < later for earlier, later in pairwise(levels))
        assert not levels or (levels[0], levels[-1]) == (0, 1)
        assert all(len(row) == len(levels) and row == sorted(row) for row in rows)


@pytest.mark.parametrize("name", FITTED)
def test_drawn_inputs_follow_the_table(name: str) -> None:
    """Kolmogorov-Smirnov against the preset's own quantiles; 5 x 40,000 draws stay within 0.0037 in 99 % of cases."""
    tables = tables_of(name)
    ordered = np.sort(np.concatenate([drawn(name, 40_000, seed=seed)[0] for seed in range(5)]))
    for level, tokens in zip(tables.levels, tables.input, strict=True):
        low, high = np.searchsorted(ordered, [tokens - 1, tokens + 1]) / len(ordered)
        assert low - 0.0037 <= level <= high + 0.0037


@pytest.mark.parametrize("name", FITTED)
def test_drawn_means_are_those_of_the_source(name: str) -> None:
    preset, (inputs, outputs) = load_preset(name), drawn(name)
    assert inputs.mean() == pytest.approx(preset.input.mean, rel=0.03)
    assert outputs.mean() == pytest.approx(preset.output.mean, rel=0.06)


@pytest.mark.parametrize("name", FITTED)
def test_outputs_depend_on_inputs_as_the_table_says(name: str) -> None:
    """The median output of each group of inputs is that of its row, unless the limit on both together cuts it."""
    tables, (inputs, outputs) = tables_of(name), drawn(name)
    middle = tables.output_levels.index(0.5)
    groups = np.array_split(np.argsort(inputs, kind="stable"), len(tables.output))
    checked = 0
    for row, members in zip(tables.output, groups, strict=True):
        if row[middle + 10] + inputs[members].max() <= tables.max_total:
            below, above = (np.mean(outputs[members] < row[middle]), np.mean(outputs[members] <= row[middle]))
            assert below - 0.04 <= 0.5 <= above + 0.04
            checked += 1
    assert checked >= len(tables.output) - 1


@pytest.mark.parametrize("name", FITTED)
def test_no_request_is_longer_than_the_longest_of_the_source(name: str) -> None:
    inputs, outputs = drawn(name)
    assert min(inputs.min(), outputs.min()) >= 1
    assert (inputs + outputs).max() <= max(tables_of(name).max_total, int(inputs.max()) + 1)


def test_a_context_of_4096_holds_all_of_arxiv_summarization() -> None:
    inputs, outputs = drawn("arxiv-summarization")
    assert (inputs + outputs).max() <= 4096


@pytest.mark.parametrize("name", FITTED)
def test_the_vectorised_draw_is_the_obvious_one(name: str) -> None:
    tables, rng = tables_of(name), np.random.default_rng(5)
    uniform, uniform_output = rng.random(2_000), rng.random(2_000)
    inputs, outputs = JointQuantiles(tables).draw(uniform, uniform_output)
    for one, other, found in zip(uniform, uniform_output, zip(inputs, outputs, strict=True), strict=True):
        assert found == obvious_draw(tables, float(one), float(other))


def obvious_draw(tables: Tables, uniform: float, uniform_output: float) -> tuple[int, int]:
    def at(levels: list[float], values: list[float], level: float) -> float:
        right = bisect.bisect_right(levels, level)
        share = (level - levels[right - 1]) / (levels[right] - levels[right - 1])
        return values[right - 1] + share * (values[right] - values[right - 1])

    tokens = max(1, round(at(tables.levels, tables.input, uniform)))
    row = tables.output[int(uniform * len(tables.output))]
    output = round(at(tables.output_levels, row, uniform_output))
    return tokens, max(1, min(output, tables.max_total - tokens))


def test_sharegpt_has_the_published_means() -> None:
    inputs, outputs = drawn("sharegpt", 200_000)
    assert inputs.mean() == pytest.approx(161.31, rel=0.01)
    assert outputs.mean() == pytest.approx(337.99, rel=0.01)
    assert (inputs + outputs).max() <= 2048
    source = load_preset("sharegpt").source
    assert "161.31" in str(source.published)
    assert "log-normal" in str(source.assumed)


def test_an_unknown_preset_is_named_with_the_nearest_one() -> None:
    with pytest.raises(InputError, match="no preset is called 'azure-conv'; did you mean 'azure-conv-2023'"):
        load_preset("azure-conv")


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_survives_being_written(name: str) -> None:
    preset = load_preset(name)
    assert msgspec.json.decode(msgspec.json.encode(preset), type=Preset) == preset
