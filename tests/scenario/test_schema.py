from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from simloop.content import content_names
from simloop.scenario.loading import find_scenario
from simloop.scenario.reading import read_mapping
from simloop.scenario.schema import scenario_schema

SCHEMA = scenario_schema()
TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
}
CHECKS: dict[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, name: TYPES[name](value),
    "$ref": lambda value, ref: valid(value, SCHEMA["$defs"][ref.removeprefix("#/$defs/")]),
    "allOf": lambda value, inner: all(valid(value, schema) for schema in inner),
    "anyOf": lambda value, inner: any(valid(value, schema) for schema in inner),
    "enum": lambda value, options: value in options,
    "minimum": lambda value, limit: value >= limit,
    "maximum": lambda value, limit: value <= limit,
    "exclusiveMinimum": lambda value, limit: value > limit,
    "minLength": lambda value, limit: len(value) >= limit,
    "minItems": lambda value, limit: len(value) >= limit,
    "items": lambda value, inner: all(valid(item, inner) for item in value),
    "required": lambda value, keys: set(keys) <= set(value),
    "properties": lambda value, inner: all(valid(value[key], inner[key]) for key in inner if key in value),
}
IGNORED = {"title", "description", "default", "examples", "additionalProperties", "discriminator", "$schema", "$defs"}


def valid(value: Any, schema: dict[str, Any]) -> bool:
    """Check a value as the JSON Schema specification says, for the keywords that our schema uses."""
    unknown = set(schema) - set(CHECKS) - IGNORED
    assert not unknown, f"the schema uses {unknown}, which this check does not know"
    closed = schema.get("additionalProperties") is False
    if closed and isinstance(value, dict) and not set(value) <= set(schema["properties"]):
        return False
    ordered = sorted(schema.keys() & CHECKS.keys(), key=lambda key: key != "type")
    return all(CHECKS[key](value, schema[key]) for key in ordered)


def schemas(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
        for inner in schema.values():
            yield from schemas(inner)
    elif isinstance(schema, list):
        for inner in schema:
            yield from schemas(inner)


@pytest.mark.parametrize("name", content_names("configs"))
def test_bundled_scenarios_are_valid(name: str) -> None:
    assert valid(read_mapping(find_scenario(name)), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"modle": 1},
        {"model": 1},
        {"seed": -1},
        {"workers": []},
        {"workers": [{}]},
        {"slo": {"ttft_s": 0}},
        {"policies": 3},
    ],
)
def test_mistakes_are_not_valid(good: dict[str, Any], change: dict[str, Any]) -> None:
    assert valid(good, SCHEMA)
    assert not valid({**good, **change}, SCHEMA)


def test_it_says_what_it_is_and_is_complete() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    references = {schema["$ref"] for schema in schemas(SCHEMA) if isinstance(schema.get("$ref"), str)}
    assert references == {f"#/$defs/{name}" for name in SCHEMA["$defs"]}


def test_names_are_offered_to_editors() -> None:
    assert "a100-sxm-80gb" in SCHEMA["$defs"]["WorkerGroup"]["properties"]["device"]["examples"]
    assert "least_loaded" in SCHEMA["$defs"]["Policies"]["properties"]["route"]["examples"]


@pytest.mark.parametrize("name", ["Scenario", "WorkerGroup", "Engine", "Policies", "PolicyRef", "WorkloadSpec", "SLO"])
def test_every_key_is_described(name: str) -> None:
    definition = SCHEMA["$defs"][name]
    assert definition["description"]
    assert [key for key, schema in definition["properties"].items() if not schema.get("description")] == []
