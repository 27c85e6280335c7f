"""Transformer architectures as operators with shapes, weight bytes and KV bytes, whole or cut by a plan."""

from simloop.model.architecture import DTYPE_BYTES, KV_DTYPE_BYTES, Block, Model, dtype_bytes
from simloop.model.attention import Attention, LatentAttention, Rows
from simloop.model.catalog import load_model, model_names
from simloop.model.config import Config
from simloop.model.experts import Experts
from simloop.model.families import FAMILIES, read_model
from simloop.model.operators import Collective, CollectiveKind, Elementwise, Gemm, Operator, Split
from simloop.model.plan import All2All, Plan
from simloop.model.quantization import Kernel, Quantization
from simloop.model.routing import Balanced, Load, RandomRouting, Recorded, Routing
from simloop.model.sharding import Stage, exchanged_bytes, shard

__all__ = [
    "DTYPE_BYTES",
    "FAMILIES",
    "KV_DTYPE_BYTES",
    "All2All",
    "Attention",
    "Balanced",
    "Block",
    "Collective",
    "CollectiveKind",
    "Config",
    "Elementwise",
    "Experts",
    "Gemm",
    "Kernel",
    "LatentAttention",
    "Load",
    "Model",
    "Operator",
    "Plan",
    "Quantization",
    "RandomRouting",
    "Recorded",
    "Routing",
    "Rows",
    "Split",
    "Stage",
    "dtype_bytes",
    "exchanged_bytes",
    "load_model",
    "model_names",
    "read_model",
    "shard",
]
