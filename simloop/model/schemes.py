"""From ``quantization_config`` to the quantisation of each operator."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Any

import attrs

from simloop.errors import did_you_mean
from simloop.model.architecture import Block
from simloop.model.config import Config
from simloop.model.experts import Experts
from simloop.model.operators import Gemm
from simloop.model.quantization import Quantization

__all__ = ["Scheme", "read_scheme"]

_MODULES = {
    "qkv_proj": "self_attn.q_proj",
    "fused_qkv_a_proj": "self_attn.kv_a_proj_with_mqa",
    "q_b_proj": "self_attn.q_b_proj",
    "q_proj": "self_attn.q_proj",
    "kv_b_proj": "self_attn.kv_b_proj",
    "o_proj": "self_attn.o_proj",
    "gate_up_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
    "shared_gate_up_proj": "mlp.shared_experts.gate_proj",
    "shared_down_proj": "mlp.shared_experts.down_proj",
    "experts": "mlp.experts.0.gate_proj",
}
"""What Hugging Face calls the modules behind our operators; those that are not here are never quantised."""


@attrs.frozen
class Scheme:
    """The quantisation of a whole model.

    Attributes:
        method: Its ``quant_method``.
        weights: How quantised weights are stored.
        excluded: Modules that are left alone: names, the ends or beginnings of names, patterns with ``*``, or regular
            expressions after ``re:``.
        kv_cache_dtype: Precision of the KV cache that the checkpoint asks for, or ``auto``.
    """

    method: str
    weights: Quantization
    excluded: tuple[str, ...] = ()
    kv_cache_dtype: str = "auto"

    def apply(self, block: Block, layer: int) -> Block:
        """Return the block of one layer with its matrix products and experts quantised."""
        return tuple(
            attrs.evolve(operator, quantization=self.weights)
            if isinstance(operator, Gemm | Experts) and self._covers(operator.name, layer)
            else operator
            for operator in block
        )

    def _covers(self, operator: str, layer: int) -> bool:
        if operator not in _MODULES:
            return False
        module = f"model.layers.{layer}.{_MODULES[operator]}"
        return not any(_names(pattern, module) for pattern in self.excluded)


def _names(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        return re.match(pattern[3:], module) is not None
    if "*" in pattern:
        return fnmatch.fnmatchcase(module, pattern) or fnmatch.fnmatchcase(module, f"{pattern}.*")
    return f".{pattern}." in f".{module}."


def read_scheme(config: Config) -> Scheme | None:
    """Return how a model's weights are quantised, ``None`` where they are not.

    Raises:
        InputError: The method is unknown, or a key is missing or of the wrong type.
    """
    values = config.get("quantization_config")
    if values is None:
        return None
    if not isinstance(values, dict):
        raise config.error(f"expected an object, found {values!r}", path="quantization_config")
    inner = config.inside("quantization_config")
    method = inner.text("quant_method")
    if method not in _METHODS:
        known = ", ".join(_METHODS)
        message = f"unknown method {method!r}{did_you_mean(method, _METHODS)} (there are: {known})"
        raise inner.error(message, path="quant_method")
    return Scheme(method, _METHODS[method](inner), _excluded(inner), _kv_cache_dtype(inner))


def _fp8(config: Config) -> Quantization:
    block = config.get("weight_block_size")
    if block is None:
        return Quantization("fp8", 8)
    if not (isinstance(block, list) and len(block) == 2 and all(isinstance(size, int) and size > 0 for size in block)):
        raise config.error(f"expected two whole numbers, found {block!r}", path="weight_block_size")
    return Quantization("fp8_block", 8, group=(block[1], block[0]))


def _grouped(config: Config) -> Quantization:
    """Read AWQ and GPTQ: scales in half precision and a zero point for each group along the inner dimension."""
    bits, size = config.positive("bits"), config.get("group_size")
    if bits not in (4, 8):
        raise config.error(f"expected 4 or 8, found {bits!r}", path="bits")
    group = size if isinstance(size, int) and size > 0 else 0
    return Quantization("int4" if bits == 4 else "int8", bits, (group, 1), 16 + bits, weight_only=True)


def _modelopt(config: Config) -> Quantization:
    algorithm = config.text("quant_algo")
    if algorithm == "FP8":
        return Quantization("fp8", 8)
    if algorithm == "NVFP4":
        return Quantization("nvfp4", 4, group=(16, 1), group_bits=8)
    raise config.error(f"expected FP8 or NVFP4, found {algorithm!r}", path="quant_algo")


def _compressed_tensors(config: Config) -> Quantization:
    groups = config.get("config_groups")
    if not isinstance(groups, dict) or len(groups) != 1 or not isinstance(next(iter(groups.values())), dict):
        raise config.error("expected one group of modules", path="config_groups")
    group = config.inside("config_groups").inside(next(iter(groups)))
    weights = group.inside("weights")
    bits, kind = weights.positive("num_bits"), weights.text("type", "int")
    inner, outer = _strategy(weights)
    weight_only = group.get("input_activations") is None
    if (kind, bits) == ("float", 8):
        blocks = weights.get("strategy") == "block"
        return Quantization("fp8_block" if blocks else "fp8", 8, (inner, outer), 16, weight_only)
    if (kind, bits) == ("float", 4):
        return Quantization("nvfp4", 4, (inner, outer), 8, weight_only)
    if kind == "int" and bits in (4, 8):
        return Quantization("int4" if bits == 4 else "int8", bits, (inner, outer), 16, weight_only or bits == 4)
    raise weights.error(f"weights of {bits} bits ({kind}) are not supported", path="num_bits")


def _strategy(weights: Config) -> tuple[int, int]:
    """Return how many weights share a scale, along the inner and the outer dimension."""
    strategy = weights.text("strategy", "tensor")
    if strategy == "block":
        block: Any = weights.get("block_structure") or [128, 128]
        return int(block[1]), int(block[0])
    if strategy in ("group", "tensor_group"):
        return weights.positive("group_size"), 1
    return (0, 1) if strategy == "channel" else (0, 0)


def _excluded(config: Config) -> tuple[str, ...]:
    for key in ("modules_to_not_convert", "ignored_layers", "ignore", "exclude_modules"):
        names = config.get(key)
        if isinstance(names, list):
            return tuple(str(name) for name in names)
    return ()


def _kv_cache_dtype(config: Config) -> str:
    scheme = config.get("kv_cache_scheme")
    eight = isinstance(scheme, dict) and scheme.get("num_bits") == 8
    return "fp8" if eight or config.get("kv_cache_quant_algo") == "FP8" else "auto"


_METHODS: dict[str, Callable[[Config], Quantization]] = {
    "fp8": _fp8,
    "fbgemm_fp8": lambda _: Quantization("fp8", 8, group=(0, 1)),
    "compressed-tensors": _compressed_tensors,
    "modelopt": _modelopt,
    "awq": _grouped,
    "gptq": _grouped,
    "mxfp4": lambda _: Quantization("mxfp4", 4, group=(32, 1), group_bits=8, weight_only=True),
}
"""Readers by ``quant_method``."""
