from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simloop.errors import InputError
from simloop.scenario.reading import check_finite, parse_yaml_value, read_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        ("2.5e-3", 0.0025),
        (".5", 0.5),
        ("-7", -7),
        ("100_000", 100_000),
        ("0x1f", 31),
        ("010", 10),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-01", "2024-01-01"),
        ("", None),
        ("~", None),
        ("[a, 1, {b: 2}]", ["a", 1, {"b": 2}]),
        ("'8'", "8"),
        ("llama-3.1-8b", "llama-3.1-8b"),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    parsed = parse_yaml_value(text, file="--set", path="x")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.yaml",
            "x: {a: 1, b: 2, a: 3}",
            "line 1, column 17: not valid YAML: the key 'a' stands twice in one mapping",
        ),
        ("a.json", '{"x": {"a": 1, "a": 3}}', "the key 'a' stands twice in one mapping"),
        ("a.toml", "a = 1\na = 3\n", "not valid TOML: Cannot overwrite a value (at line 2, column 6)"),
        ("a.yaml", "x: [", "line 1, column 5: not valid YAML: expected the node content, but found '<stream end>'"),
        ("a.json", '{"x": }', "line 1, column 7: not valid JSON: Expecting value"),
        ("a.toml", "a = ", "not valid TOML: Invalid value (at end of document)"),
        ("a.yaml", "", "the file is empty, expected a mapping of keys to values"),
        ("a.json", "[1]", "found a list, expected a mapping of keys to values"),
        ("a.yaml", "just text", "found a str, expected a mapping of keys to values"),
        ("a.txt", "x: 1", "found the suffix '.txt', expected one of .yaml, .yml, .json, .toml"),
        ("a.yaml", "a: 1\n---\nb: 2", "line 2, column 1: not valid YAML: but found another document"),
    ],
)
def test_files_that_are_not_well_formed(write: Callable[..., Path], name: str, text: str, message: str) -> None:
    path = write(text, name)
    with pytest.raises(InputError) as error:
        read_mapping(path)
    assert str(error.value) == f"{path}: {message}"


def test_a_merged_key_may_be_overridden(write: Callable[..., Path]) -> None:
    path = write("base: &base {count: 1, device: x}\nother: {<<: *base, count: 2}")
    assert read_mapping(path)["other"] == {"count": 2, "device": "x"}


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"model: \xff\xfe")
    with pytest.raises(InputError, match="byte 7 is not UTF-8 text"):
        read_mapping(path)


def test_a_missing_file_names_the_nearest(write: Callable[..., Path]) -> None:
    path = write("x: 1", "cluster.yaml")
    with pytest.raises(InputError, match=r"there is no such file; did you mean 'cluster\.yaml'"):
        read_mapping(path.with_name("clutser.yaml"))
    with pytest.raises(InputError, match="found a folder, expected a file"):
        read_mapping(_folder(path.with_name("folder.yaml")))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_must_be_finite(value: float) -> None:
    with pytest.raises(InputError, match=r"^f: a\[1\]\.b: found -?(nan|inf), expected a finite number$"):
        check_finite({"a": [0, {"b": value}]}, file="f")


def test_a_list_that_contains_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InputError, match="nested more than 50 levels deep"):
        check_finite({"a": loop})
