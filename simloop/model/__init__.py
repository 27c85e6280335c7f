"""Transformer architectures as operators with shapes, weight bytes and KV bytes."""

from simloop.model.architecture import DTYPE_BYTES, Model, dtype_bytes
from simloop.model.catalog import load_model, model_names
from simloop.model.config import Config
from simloop.model.families import FAMILIES, read_model
from simloop.model.operators import Attention, Elementwise, Gemm, Operator, Rows

__all__ = [
    "DTYPE_BYTES",
    "FAMILIES",
    "Attention",
    "Config",
    "Elementwise",
    "Gemm",
    "Model",
    "Operator",
    "Rows",
    "dtype_bytes",
    "load_model",
    "model_names",
    "read_model",
]
