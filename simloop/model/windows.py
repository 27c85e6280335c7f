"""How far each layer's attention looks back."""

from __future__ import annotations

from simloop.model.config import Config

__all__ = ["layer_windows"]

_KINDS = {"full_attention": None, "sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
"""The key of the window, by what ``layer_types`` calls the layer."""


def layer_windows(config: Config, layers: int) -> list[int | None]:
    """Return the window of each layer, tokens, ``None`` where it sees everything.

    Attention in chunks (Llama 4) counts as a window of one chunk: its longest reach.

    Raises:
        InputError: A layer's kind is not supported, the list has another length, or a window is missing.
    """
    kinds = config.words("layer_types") or _usual_kinds(config, layers)
    if kinds is None:
        return [_window(config)] * layers
    if len(kinds) != layers:
        raise config.error(f"{len(kinds)} kinds for {layers} layers", path="layer_types")
    return [_window_of(config, kind) for kind in kinds]


def _window_of(config: Config, kind: str) -> int | None:
    if kind not in _KINDS:
        raise config.error(f"{kind!r} is not supported (there are: {', '.join(_KINDS)})", path="layer_types")
    key = _KINDS[kind]
    return None if key is None else config.positive(key)


def _usual_kinds(config: Config, layers: int) -> list[str] | None:
    """Return the kinds that a family's layers have where its configuration does not list them."""
    family = config.text("model_type")
    if family in ("gemma2", "gpt_oss"):
        return _every(2, "sliding_attention", layers)
    if family in ("gemma3", "gemma3_text"):
        return _every(config.positive("sliding_window_pattern", 6), "sliding_attention", layers)
    if family in ("llama4", "llama4_text"):
        return _every(config.positive("no_rope_layer_interval", 4), "chunked_attention", layers)
    first = config.get("max_window_layers")
    if config.get("sliding_window") is not None and isinstance(first, int) and config.flag("use_sliding_window", True):
        return ["full_attention"] * min(first, layers) + ["sliding_attention"] * (layers - first)
    return None


def _every(period: int, kind: str, layers: int) -> list[str]:
    """Return layers of one kind, with full attention in every ``period``-th."""
    return [kind if (layer + 1) % period else "full_attention" for layer in range(layers)]


def _window(config: Config) -> int | None:
    """Return the sliding window of all layers, or ``None`` where there is none or it is switched off."""
    if config.get("sliding_window") is None or not config.flag("use_sliding_window", True):
        return None
    return config.positive("sliding_window")
