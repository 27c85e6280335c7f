from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simloop.errors import InputError
from simloop.scenario import Scenario, load_scenario
from simloop.scenario.explain import convert
from simloop.scenario.types import parse_path, show_path


def replaced(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a scenario with one place changed; ``...`` removes it."""
    data = copy.deepcopy(data)
    *way, last = parse_path(path)
    here: Any = data
    for step in way:
        here = here[step]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model", ..., "model: missing, expected text"),
        ("model", "", "model: found '', expected text that is not empty"),
        ("model", 8, "model: found 8, expected text"),
        ("modle", "x", "modle: found an unknown key; did you mean 'model'? (known: model, workers, "),
        ("workers", {}, "workers: found a mapping, expected a list of at least 1"),
        ("workers", [], "workers: found an empty list, expected a list of at least 1"),
        ("workers[0]", "gpu", "workers[0]: found 'gpu', expected a mapping (keys: name, device, "),
        ("workers[0].device", ..., "workers[0].device: missing, expected text"),
        ("workers[0].devcie", 1, "workers[0].devcie: found an unknown key; did you mean 'device'? (known: name, "),
        ("workers[0].count", 0, "workers[0].count: found 0, expected a whole number >= 1 and <= 1000000"),
        ("workers[0].count", 2.5, "workers[0].count: found 2.5, expected a whole number >= 1 and <= 1000000"),
        ("workers[0].count", "2", "workers[0].count: found '2', expected a whole number >= 1 and <= 1000000"),
        ("workers[0].count", True, "workers[0].count: found true, expected a whole number >= 1 and <= 1000000"),
        (
            "workers[0].engine.gpu_memory_utilization",
            1.2,
            "workers[0].engine.gpu_memory_utilization: found 1.2, expected a number > 0 and <= 1",
        ),
        ("policies.route", [], "policies.route: found an empty list, expected text or a mapping (keys: name, params)"),
        ("policies.schedule.parms", {}, "policies.schedule.parms: found an unknown key; did you mean 'params'?"),
        ("policies.schedule.params", {1: 2}, "policies.schedule.params: found the key 1, expected text"),
        ("workload.arrivals", {"rate": 3}, "workload.arrivals.process: missing, expected one of "),
        ("workload.arrivals.process", "poison", "workload.arrivals.process: found 'poison', expected one of "),
        ("workload.arrivals.rate", 0, "workload.arrivals.rate: found 0, expected a number > 0"),
        (
            "workload.arrivals.burstiness",
            2,
            "workload.arrivals.burstiness: found an unknown key (known: process, rate)",
        ),
        (
            "workload.lengths.input",
            {"distribution": "uniform", "min": 9, "max": 3},
            "workload.lengths.input.max: found 3",
        ),
        ("workload.requests", 0, "workload.requests: found 0, expected a whole number >= 1"),
        ("slo", {}, "slo: expected at least one of ttft_s, tpot_s, max_gap_s, e2e_s"),
        ("slo.ttft_s", -1, "slo.ttft_s: found -1, expected a number > 0"),
        ("seed", 2**63, "seed: found 9223372036854775808, expected a whole number >= 0 and <= 9223372036854775807"),
        ("until_s", None, None),
    ],
)
def test_a_mistake_says_where_what_was_found_and_what_was_expected(
    good: dict[str, Any], path: str, value: Any, message: str | None
) -> None:
    data = replaced(good, path, value)
    if message is None:
        convert(data, Scenario)
        return
    with pytest.raises(InputError) as error:
        convert(data, Scenario)
    assert str(error.value).startswith(message)


def places(data: Any, path: str = "") -> Iterator[str]:
    entries = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in entries:
        here = show_path([*parse_path(path), step])
        yield here
        yield from places(value, here)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data(), value=junk)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_junk_anywhere_is_one_line_that_says_where(good: dict[str, Any], data: st.DataObject, value: Any) -> None:
    path = data.draw(st.sampled_from(list(places(good))))
    found: InputError | None = None
    try:
        load_scenario(replaced(good, path, value))
    except InputError as error:
        found = error
    if found is not None:
        assert "\n" not in str(found)
        assert found.path is not None
        assert found.path.startswith(("workers", path.split(".")[0].split("[")[0]))


def test_keys_that_would_confuse_are_quoted(good: dict[str, Any]) -> None:
    for key in ("", "a.b", "a\nb"):
        with pytest.raises(InputError) as error:
            load_scenario({**good, key: 1})
        assert str(error.value).startswith(f"{key!r}: found an unknown key")


@given(st.lists(st.text("abc_", min_size=1) | st.integers(0, 99), min_size=1))
def test_paths_are_read_as_they_are_shown(steps: list[str | int]) -> None:
    assert parse_path(show_path(list(steps))) == steps
