"""Device cards, and the time and memory that a model takes on a device."""

from simloop.hardware.calibration import Calibration
from simloop.hardware.catalog import ENTRY_POINT_GROUP, device_names, load_device
from simloop.hardware.device import Device, PeakIdentity
from simloop.hardware.interconnect import Interconnect
from simloop.hardware.memory import MemoryPlan, memory_plan
from simloop.hardware.pipeline import Pipeline
from simloop.hardware.prices import Cost, Prices
from simloop.hardware.roofline import Roofline, serving_dtype
from simloop.hardware.timeline import OperatorCall, Timeline
from simloop.hardware.timing import IterationShape, OperatorTime, OperatorTiming, Shape, TimingModel
from simloop.hardware.tokensim import TokenSim, tokensim_memory

__all__ = [
    "ENTRY_POINT_GROUP",
    "Calibration",
    "Cost",
    "Device",
    "Interconnect",
    "IterationShape",
    "MemoryPlan",
    "OperatorCall",
    "OperatorTime",
    "OperatorTiming",
    "PeakIdentity",
    "Pipeline",
    "Prices",
    "Roofline",
    "Shape",
    "Timeline",
    "TimingModel",
    "TokenSim",
    "device_names",
    "load_device",
    "memory_plan",
    "serving_dtype",
    "tokensim_memory",
]
