"""The JSON Schema of scenario files, for editors."""

from __future__ import annotations

from typing import Any

import msgspec
import msgspec.inspect

from simloop.scenario.docs import field_docs, summary_of
from simloop.scenario.structs import Scenario

__all__ = ["scenario_schema", "scenario_structs"]


def scenario_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of scenario files.

    Every key is described by its struct's docstring; keys that take names list the bundled ones as examples.
    """
    (root,), definitions = msgspec.json.schema_components([Scenario], ref_template="#/$defs/{name}")
    for struct in scenario_structs():
        _describe(definitions[struct.__name__], struct)
    _add_examples(definitions)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "simloop scenario"}
    return {**head, "description": summary_of(Scenario), **root, "$defs": definitions}


def scenario_structs() -> list[type[msgspec.Struct]]:
    """Return every struct that a scenario is made of, itself first, in the order in which the keys come."""
    found: dict[type[msgspec.Struct], None] = {}
    _collect(msgspec.inspect.type_info(Scenario), found)
    return list(found)


def _collect(kind: msgspec.inspect.Type, found: dict[type[msgspec.Struct], None]) -> None:
    if isinstance(kind, msgspec.inspect.StructType):
        if kind.cls in found:
            return
        found[kind.cls] = None
        for field in kind.fields:
            _collect(field.type, found)
        return
    if isinstance(kind, msgspec.inspect.UnionType):
        for member in kind.types:
            _collect(member, found)
    for attribute in ("type", "item_type", "value_type"):
        inner = getattr(kind, attribute, None)
        if isinstance(inner, msgspec.inspect.Type):
            _collect(inner, found)


def _describe(definition: dict[str, Any], struct: type[msgspec.Struct]) -> None:
    definition["description"] = summary_of(struct)
    for name, text in field_docs(struct).items():
        if name in definition["properties"]:
            _beside_reference(definition["properties"][name])["description"] = text


def _beside_reference(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema, with a bare ``$ref`` wrapped: some editors ignore what stands beside one."""
    if "$ref" in schema:
        schema["allOf"] = [{"$ref": schema.pop("$ref")}]
    return schema


def _add_examples(definitions: dict[str, Any]) -> None:
    from simloop.hardware import device_names
    from simloop.model import model_names
    from simloop.serving import policy_names

    examples = {
        ("Scenario", "model"): model_names(),
        ("WorkerGroup", "model"): model_names(),
        ("WorkerGroup", "device"): device_names(),
        ("WorkerGroup", "schedule"): policy_names("schedule"),
        ("Policies", "route"): policy_names("route"),
        ("Policies", "schedule"): policy_names("schedule"),
        ("Policies", "control"): policy_names("control"),
        ("HookRef", "call"): policy_names("hook"),
    }
    for (struct, key), names in examples.items():
        definitions[struct]["properties"][key]["examples"] = names
