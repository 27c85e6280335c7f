"""Timing from measured kernels: layer profiles of a model, or tables of kernels by shape.

What reads the files is imported when it is first asked for: a run without measured kernels starts faster.
"""

from typing import TYPE_CHECKING

from simloop._later import later
from simloop.hardware.profile.collectives import AllReduce, MeasuredAllReduce, RingLink, read_all_reduce
from simloop.hardware.profile.overheads import VLLM_0_6, VLLM_0_15, VLLM_0_19, Overheads

if TYPE_CHECKING:
    from simloop.hardware.profile.bundle import Bundle, load_bundle
    from simloop.hardware.profile.domain import DomainWarning
    from simloop.hardware.profile.kernel_timing import KernelTiming
    from simloop.hardware.profile.kernels import KernelTables
    from simloop.hardware.profile.layers import load_layers, load_tables, read_mlp
    from simloop.hardware.profile.timing import MeasuredTime, ProfileTiming

__all__ = [
    "VLLM_0_6",
    "VLLM_0_15",
    "VLLM_0_19",
    "AllReduce",
    "Bundle",
    "DomainWarning",
    "KernelTables",
    "KernelTiming",
    "MeasuredAllReduce",
    "MeasuredTime",
    "Overheads",
    "ProfileTiming",
    "RingLink",
    "load_bundle",
    "load_layers",
    "load_tables",
    "read_all_reduce",
    "read_mlp",
]

__getattr__ = later(
    __name__,
    {
        "Bundle": "bundle",
        "DomainWarning": "domain",
        "KernelTables": "kernels",
        "KernelTiming": "kernel_timing",
        "MeasuredTime": "timing",
        "ProfileTiming": "timing",
        "load_bundle": "bundle",
        "load_layers": "layers",
        "load_tables": "layers",
        "read_mlp": "layers",
    },
)
