from __future__ import annotations

from collections.abc import Callable

import pytest

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("devices", ["a100-sxm-80gb", "h100-sxm-80gb", "rtx-4090-24gb"]),
        ("models", ["llama-2-7b", "llama-3.1-8b", "qwen3-32b", "opt-13b"]),
        ("policies", ["least_loaded", "orca", "static", "vllm"]),
        ("workloads", ["azure-conv-2023", "mooncake-conversation", "sharegpt"]),
    ],
)
def test_lists_fit_80_columns_and_have_everything(simloop: Command, command: str, names: list[str]) -> None:
    status, stdout, stderr = simloop(command)
    assert (status, stderr) == (0, "")
    assert max(map(len, stdout.splitlines())) <= 80
    assert [name for name in names if name not in stdout] == []


@pytest.mark.parametrize(
    ("command", "name", "facts"),
    [
        ("devices", "a100-sxm-80gb", ["memory_bandwidth_gb_s", "2,039", "source", "nvidia"]),
        ("models", "llama-3.1-8b", ["8,030,261,248", "131,072", "huggingface.co"]),
        ("policies", "vllm", ["chunked prefill", "watermark", "Source:"]),
        ("workloads", "azure-conv-2023", ["azure", "19,366"]),
    ],
)
def test_one_is_shown_with_its_source(simloop: Command, command: str, name: str, facts: list[str]) -> None:
    status, stdout, stderr = simloop(command, name)
    assert (status, stderr) == (0, "")
    assert max(map(len, stdout.splitlines())) <= 80
    assert [fact for fact in facts if fact.lower() not in stdout.lower()] == []
