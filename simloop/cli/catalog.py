"""``simloop devices|models|policies|workloads [NAME]``: what can be named in a scenario, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from simloop.cli.console import WIDTH, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from simloop.model import Model

__all__ = ["devices", "models", "policies", "workloads"]


def devices(
    name: Annotated[str | None, typer.Argument(help="A device to show, with the source of each number.")] = None,
) -> None:
    """List the devices, or show one with the source of each number.

    Example: `simloop devices a100-sxm-80gb`
    """
    from simloop.hardware import device_names, load_device

    if name is not None:
        _show(_device_facts(name), "key", "value and source")
        return
    cards = [(name, load_device(name)) for name in device_names()]
    _show(
        (
            (name, f"{card.memory_gib:g}", f"{card.memory_bandwidth_gb_s:,.0f}", f"{_peak(card.peak_tflops):,g}")
            for name, card in cards
        ),
        *("device", "memory, GiB", "bandwidth, GB/s", "16-bit peak, TFLOP/s"),
    )


def _peak(peaks: dict[str, float]) -> float:
    """Return the dense peak in the precision that models are usually served in."""
    return peaks.get("bfloat16", peaks.get("float16", max(peaks.values())))


def _device_facts(name: str) -> Iterable[Sequence[str]]:
    import msgspec

    from simloop.hardware import load_device

    card = msgspec.to_builtins(load_device(name))
    sources: dict[str, str] = card.pop("sources", {})
    for key, value in _flat(card):
        source = _source(key, sources)
        yield key, _text(value) + (f"\n{source}" if source else "")


def _flat(mapping: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield what is given, by its dotted key; a table without tables inside, and each of a list of them, is one."""
    for key, value in mapping.items():
        if value is None or value in ({}, []):
            continue
        if isinstance(value, dict) and any(isinstance(inner, dict | list) for inner in value.values()):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, dict):
            yield f"{prefix}{key}", "\n".join(_settings(value))
        elif isinstance(value, list):
            yield f"{prefix}{key}", "\n".join(", ".join(_settings(item)) for item in value)
        else:
            yield f"{prefix}{key}", value


def _settings(table: dict[str, Any]) -> list[str]:
    return [f"{key} {_text(value)}" for key, value in table.items() if value is not None]


def _source(key: str, sources: dict[str, str]) -> str:
    """Return the source of a key, or of the nearest table that it stands in."""
    while key and key not in sources:
        key = key.rpartition(".")[0]
    return sources.get(key, "")


def models(
    name: Annotated[str | None, typer.Argument(help="A model to show; a path to a config.json works too.")] = None,
) -> None:
    """List the models, or show one with its sizes, the operators that breakpoints name, and its source.

    Example: `simloop models llama-3.1-8b`
    """
    from simloop.model import load_model, model_names

    if name is not None:
        _show(_model_facts(name), "key", "value")
        return
    loaded = [load_model(name) for name in model_names()]
    _show(
        (
            (
                model.name,
                f"{model.num_parameters / 1e9:.2f}",
                f"{model.kv_bytes_per_token / 1024:,.0f}",
                f"{model.max_model_len:,}",
            )
            for model in loaded
        ),
        *("model", "parameters, 10^9", "KV, KiB/token", "context, tokens"),
    )


def _model_facts(name: str) -> Iterable[Sequence[str]]:
    from simloop.model import load_model

    model = load_model(name)
    sizes = ("hidden_size", "num_layers", "num_heads", "num_kv_heads", "head_dim", "intermediate_size", "vocab_size")
    yield "name", model.name
    yield "family", model.family
    yield "parameters", f"{model.num_parameters:,}"
    if model.num_active_parameters != model.num_parameters:
        yield "active for a token", f"{model.num_active_parameters:,}"
    yield "dtype", model.dtype
    if model.quantization is not None:
        yield "quantization", model.quantization
    yield "weights", f"{model.weight_bytes / 2**30:.2f} GiB"
    yield "KV cache", f"{model.kv_bytes_per_token:,} bytes a token"
    yield "max_model_len", f"{model.max_model_len:,} tokens"
    for size in sizes:
        yield size, f"{getattr(model, size):,}"
    yield "tie_word_embeddings", _text(model.tie_word_embeddings)
    yield from _operator_paths(model)
    yield "source", model.source


def _operator_paths(model: Model) -> Iterable[Sequence[str]]:
    """Yield the operators by what breakpoints call them, in order of execution; layers that are alike together."""
    yield "operators", ", ".join(operator.name for operator in model.prologue)
    for kind, block in enumerate(model.blocks):
        layers = [layer for layer, found in enumerate(model.layers) if found == kind]
        names = ", ".join(operator.name for operator in block)
        yield "layers.*" if len(layers) == model.num_layers else f"layers {_ranges(layers)}", names
    yield "operators", ", ".join(operator.name for operator in model.epilogue)


def _ranges(numbers: Sequence[int]) -> str:
    """Say ``0-2, 5`` for 0, 1, 2, 5; every n-th as ``0, 2, 4, ...``."""
    starts = [number for number in numbers if number - 1 not in numbers]
    ends = [number for number in numbers if number + 1 not in numbers]
    spans = [str(start) if start == end else f"{start}-{end}" for start, end in zip(starts, ends, strict=True)]
    return ", ".join(spans if len(spans) <= 4 else [*spans[:3], "..."])


def policies(name: Annotated[str | None, typer.Argument(help="A policy to describe.")] = None) -> None:
    """List the bundled policies, or describe one: what it does, its parameters, its source.

    Example: `simloop policies vllm`
    """
    from simloop.serving import policy_info, policy_names

    if name is None:
        listed = [policy_info(name) for name in policy_names()]
        _show(
            ((info.name, ", ".join(info.kinds), " ".join(info.summary.split())) for info in listed),
            "policy",
            "kind",
            "what it does",
        )
        return
    info = policy_info(name)
    typer.echo(f"{_filled(info.doc)}\n")
    _show(
        [("kind", ", ".join(info.kinds)), ("params", ", ".join(info.params) or "none"), ("file", str(info.path))],
        "",
        "",
    )


def workloads(
    name: Annotated[str | None, typer.Argument(help="A preset to show, with its source and fit.")] = None,
) -> None:
    """List the length presets, or show one: its source, how many rows it was fitted to, the fit's error.

    Example: `simloop workloads azure-conv-2023`
    """
    from simloop.workload import load_preset, preset_names

    if name is not None:
        typer.echo(_filled(load_preset(name).describe(), indent=20))
        return
    listed = [load_preset(name) for name in preset_names()]
    _show(((preset.name, preset.title) for preset in listed), "preset", "what it is")


def _filled(doc: str, *, indent: int = 8) -> str:
    """Reflow a docstring: each of its paragraphs, and each line of those that have indented ones."""
    import textwrap

    hang = " " * indent

    def fill(text: str) -> str:
        """Reflow one paragraph."""
        lines = text.splitlines() if "\n " in text else [text]
        return "\n".join(
            textwrap.fill(line, WIDTH, subsequent_indent=hang if line[:1] == " " else "") for line in lines
        )

    return "\n\n".join(map(fill, doc.replace("``", "`").split("\n\n")))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)


def _show(rows: Iterable[Sequence[str]], *heads: str) -> None:
    """Print a table; where stdout is no terminal too, so that it can be searched."""
    stdout().print(_table(rows, heads))


def _table(rows: Iterable[Sequence[str]], heads: Sequence[str]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_header=any(heads), pad_edge=False)
    cells = [list(row) for row in rows]
    for number, head in enumerate(heads):
        numbers = all(row[number].replace(",", "").replace(".", "").isdecimal() for row in cells)
        table.add_column(head, overflow="fold", no_wrap=number == 0, justify="right" if numbers else "left")
    for row in cells:
        table.add_row(*(_escape(cell) for cell in row))
    return table


def _escape(cell: str) -> str:
    from rich.markup import escape

    return escape(cell)
